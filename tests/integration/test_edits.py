"""Edits, deletions and reactions: who may, what everyone sees live, later, and again."""

import json
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from broker.bus import Bus
from store.config import StoreConfig
from store.database import connect as connect_database
from tests.brokers import make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.mirror import until_persisted
from tests.servers import Site

pytestmark = pytest.mark.anyio

CHANGES = {"message_edited", "message_deleted", "reaction"}


@pytest.fixture
async def bus(site: Site) -> AsyncIterator[Bus]:
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


async def change(client: Chat, type: str, ack: Frame, **fields: Any) -> Frame:
    """Ask for a change of the message that was acknowledged so; `ack` or `error`."""
    about = {"chat_id": ack["chat_id"], "message_id": ack["message_id"]}
    return await client.write(type, **{"client_id": uuid4().hex, **about, **fields})


async def done(client: Chat, type: str, ack: Frame, **fields: Any) -> Frame:
    found = await change(client, type, ack, **fields)
    assert found["type"] == "ack", found
    assert found["message_id"] == ack["message_id"]
    return found


async def last_message(client: Chat, chat_id: str) -> Frame:
    page = await client.ask("history", chat_id=chat_id, limit=1)
    found: Frame = page["messages"][0]
    return found


async def test_everyone_sees_a_change_live_and_later(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        own = await connect(site.edges[1], alice)
        b = await connect(site.edges[1], bob)
        said = await a.say(bob, "helo")
        edit = await done(a, "edit", said, content="hello")
        react = await done(b, "react", said, emoji="👍")
        for client in (a, own, b):
            seen = await client.until("message_edited")
            assert seen.pop("client_id")
            assert seen == {
                "type": "message_edited",
                "id": said["message_id"],
                "seq": edit["seq"],
                "chat_id": said["chat_id"],
                "from": alice,
                "content": "hello",
                "edited_at": edit["timestamp"],
            }
            seen = await client.until("reaction")
            assert (seen["id"], seen["seq"]) == (said["message_id"], react["seq"])
            assert (seen["from"], seen["emoji"], seen["removed"]) == (bob, "👍", False)
        found = await last_message(b, said["chat_id"])
        assert (found["content"], found["edited_at"]) == ("hello", edit["timestamp"])
        assert (found["seq"], found["timestamp"]) == (said["seq"], said["timestamp"])
        assert found["reactions"] == {"👍": [bob]}

        await done(a, "react", said, emoji="👍")
        await done(b, "react", said, emoji="👍", remove=True)
        await done(b, "react", said, emoji="🎉")
        await done(b, "react", said, emoji="🎉")
        found = await last_message(b, said["chat_id"])
        assert found["reactions"] == {"👍": [alice], "🎉": [bob]}

        gone = await done(a, "delete", said)
        for client in (a, own, b):
            seen = await client.until("message_deleted")
            assert (seen["id"], seen["seq"], seen["from"]) == (
                said["message_id"],
                gone["seq"],
                alice,
            )
            assert seen["deleted_at"] == gone["timestamp"]
        found = await last_message(b, said["chat_id"])
        assert (found["content"], found["deleted"]) == ("", True)
        assert not {"edited_at", "reactions"} & found.keys()
        again = await done(a, "delete", said)
        assert again["seq"] > gone["seq"]


async def test_who_may(site: Site) -> None:
    alice, bob, carol, dave, mallory = names("alice", "bob", "carol", "dave", "mallory")
    async with Clients() as connect:
        owner, admin, member, author, stranger = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate((alice, bob, carol, dave, mallory))
        ]
        group = (await owner.group(bob, carol, dave))["group_id"]
        for client in (admin, member, author):
            await client.until("member_added")
        raised = await owner.ask("group_update", group_id=group, roles={bob: "admin"})
        assert raised["type"] == "result", raised

        async def refusal(client: Chat, type: str, ack: Frame, **fields: Any) -> str:
            found = await change(client, type, ack, **fields)
            assert found["type"] == "error", found
            assert found["retryable"] is False
            code: str = found["code"]
            return code

        said = await author.tell(group, "mine")
        for client in (owner, admin, member):
            assert await refusal(client, "edit", said, content="yours") == "forbidden"
        assert await refusal(member, "delete", said) == "forbidden"
        await done(author, "edit", said, content="still mine")
        for client in (owner, admin, member, author):
            await done(client, "react", said, emoji="+1")
        for kind, fields in (("edit", {"content": "x"}), ("delete", {}), ("react", {"emoji": "x"})):
            assert await refusal(stranger, kind, said, **fields) == "not_member"
        await done(admin, "delete", said)
        for kind, fields in (("edit", {"content": "x"}), ("react", {"emoji": "x"})):
            assert await refusal(author, kind, said, **fields) == "not_found"
        other = await author.tell(group, "other")
        await done(owner, "delete", other)
        own = await member.tell(group, "a member's own")
        await done(member, "delete", own)

        direct = await author.say(alice, "between us")
        assert await refusal(owner, "delete", direct) == "forbidden"
        assert await refusal(owner, "edit", direct, content="x") == "forbidden"
        await done(owner, "react", direct, emoji="+1")
        await done(author, "delete", direct)
        for wrong in ("1", "9" * 20):
            made_up = {**direct, "message_id": wrong}
            assert await refusal(author, "delete", made_up) == "not_found"
        elsewhere = {**direct, "message_id": said["message_id"]}
        assert await refusal(author, "delete", elsewhere) == "not_found"
        left = await author.tell(group, "and then left")
        assert (await author.ask("group_leave", group_id=group))["type"] == "result"
        assert await refusal(author, "edit", left, content="x") == "not_member"


async def test_content_has_limits(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, "x")
        most = a.welcome["limits"]["content_bytes"]
        await done(a, "edit", said, content="y" * most)
        for content, code in (("", "invalid"), ("y" * (most + 1), "too_large")):
            found = await change(a, "edit", said, content=content)
            assert (found["type"], found["code"]) == ("error", code)
        for emoji in ("", "x" * 65):
            found = await change(a, "react", said, emoji=emoji)
            assert (found["type"], found["code"]) == ("error", "invalid")


async def test_reactions_have_limits(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        said = await a.say(bob, "hello")
        for number in range(20):
            await done(b, "react", said, emoji=str(number))
        change = {"chat_id": said["chat_id"], "message_id": said["message_id"]}
        more = await b.write("react", emoji="one-more", **change)
        assert (more["code"], more["message"][:6]) == ("invalid", "emoji:")
        await done(b, "react", said, emoji="3", remove=True)
        await done(b, "react", said, emoji="3")
        await done(a, "react", said, emoji="one-more")
        found = await last_message(b, said["chat_id"])
        assert len(found["reactions"]) == 21


async def test_at_once_after_the_ack(site: Site) -> None:
    """Nothing of it is in MongoDB yet."""
    alice, bob = names("alice", "bob")
    site.persist.process.send(signal.SIGSTOP)
    try:
        async with Clients() as connect:
            a = await connect(site.edges[0], alice)
            b = await connect(site.edges[1], bob)
            said = await a.say(bob, "one")
            await done(a, "edit", said, content="two")
            await done(b, "react", said, emoji="+1")
            assert (await change(b, "edit", said, content="mine"))["code"] == "forbidden"
            found = await last_message(b, said["chat_id"])
            assert (found["content"], found["reactions"]) == ("two", {"+1": [bob]})
            await done(a, "delete", said)
            assert (await change(a, "edit", said, content="three"))["code"] == "not_found"
            assert (await last_message(b, said["chat_id"]))["deleted"] is True
    finally:
        site.persist.process.send(signal.SIGCONT)


async def test_the_same_client_id_again(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        said = await a.say(bob, "one")
        changes: list[tuple[str, dict[str, Any]]] = [
            ("edit", {"content": "two"}),
            ("react", {"emoji": "+1"}),
            ("delete", {}),
        ]
        for kind, fields in changes:
            first = await done(a, kind, said, client_id=f"{kind} {alice}", **fields)
            again = await done(a, kind, said, client_id=f"{kind} {alice}", **fields)
            assert first["duplicate"] is False
            assert again == {**first, "id": again["id"], "duplicate": True}
        await b.until("message_deleted")
        await a.say(bob, "the end")
        await b.until("chat", content="the end")
        seen = [frame["type"] for frame in b.frames if frame["type"] in CHANGES]
        assert seen == ["message_edited", "reaction", "message_deleted"]


async def test_who_was_away_sees_them_in_order(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        one = await a.say(bob, "one")
        two = await a.say(bob, "two")
        await b.until("chat", content="two")
        cursor = b.cursor
        await b.close()
        await done(a, "edit", one, content="one!")
        three = await a.say(bob, "three")
        await done(a, "delete", two)
        await done(a, "react", three, emoji="+1")
        back = await connect(site.edges[0], bob, cursor=cursor)
        caught_up = await back.until("caught_up")
        assert (caught_up["recovered"], caught_up["missing"]) == (True, [])
        events = [frame for frame in back.frames if "seq" in frame]
        assert [(frame["type"], frame["id"]) for frame in events] == [
            ("message_edited", one["message_id"]),
            ("chat", three["message_id"]),
            ("message_deleted", two["message_id"]),
            ("reaction", three["message_id"]),
        ]
        seqs = [frame["seq"] for frame in events]
        assert seqs == sorted(seqs)


async def test_a_deleted_message_leaves_no_content_in_mongodb(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    secret = f"secret {uuid4().hex}"
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, secret, mentions=[secret])
        await done(a, "edit", said, content=f"{secret} edited")
        await done(a, "react", said, emoji="+1")
        await until_persisted(bus)
        async with connect_database(StoreConfig(url=site.mongo.url)) as database:

            async def everything() -> str:
                found = []
                for name in await database._database.list_collection_names():
                    found += [each async for each in database[name].find()]
                return json.dumps(found, default=str)

            assert secret in await everything()
            await done(a, "delete", said)
            await until_persisted(bus)
            text = await everything()
            assert secret not in text
            assert said["message_id"] in text, "the tombstone stays"
