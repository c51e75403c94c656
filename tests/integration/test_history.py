"""Pages of the past: every message once and in order, whether MongoDB has it already or not."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from broker import subjects
from broker.bus import Bus
from tests.brokers import commit_all, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.mirror import conversation, message, store_in_log, until_persisted
from tests.servers import Site

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(site: Site) -> AsyncIterator[Bus]:
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


@asynccontextmanager
async def persist_paused(site: Site) -> AsyncIterator[None]:
    site.persist.process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        site.persist.process.send(signal.SIGCONT)


async def history(client: Chat, chat_id: str, **fields: Any) -> Frame:
    found = await client.ask("history", chat_id=chat_id, **fields)
    assert found["type"] == "result", found
    return found


def contents(page: Frame) -> list[str]:
    return [each["content"] for each in page["messages"]]


async def everything(client: Chat, chat_id: str, limit: int = 200) -> list[Frame]:
    """All of a chat, newest first, page by page."""
    found: list[Frame] = []
    more = True
    while more:
        before = {"before": found[-1]["id"]} if found else {}
        page = await history(client, chat_id, limit=limit, **before)
        found += page["messages"]
        more = page["more"]
        assert len(page["messages"]) == limit or not more
    return found


async def test_large_messages_come_in_smaller_pages(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    said = [message(alice, bob, f"{number} " + "x" * 16_000) for number in range(100)]
    await store_in_log(bus, said)
    chat = subjects.dm(alice, bob)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        newest: list[str] = []
        more, fields = True, dict[str, str]()
        while more:
            page = await history(client, chat, limit=100, **fields)
            newest += [each["id"] for each in page["messages"]]
            more, fields = page["more"], {"before": newest[-1]}
            assert 0 < len(page["messages"]) < 100
        assert newest == [each.id for each in reversed(said)]
        page = await history(client, chat, limit=100, after=said[0].id)
        oldest = [each["id"] for each in page["messages"]]
        assert page["more"]
        assert oldest == [each.id for each in reversed(said[1 : len(oldest) + 1])]


async def filled(bus: Bus, count: int) -> tuple[str, str, list[str]]:
    """A chat of two new users with `count` messages; the user, the chat, the ids in order."""
    alice, bob = names("alice", "bob")
    said = [message(alice, bob, str(number)) for number in range(count)]
    await store_in_log(bus, said)
    return alice, subjects.dm(alice, bob), [each.id for each in said]


async def change(client: Chat, type: str, chat_id: str, message_id: str, **fields: Any) -> Frame:
    asked = {"client_id": uuid4().hex, "chat_id": chat_id, "message_id": message_id, **fields}
    ack = await client.write(type, **asked)
    assert ack["type"] == "ack", ack
    return ack


@pytest.mark.parametrize("persisted", [True, False], ids=["in-mongodb", "in-the-log"])
async def test_windows(site: Site, bus: Bus, persisted: bool) -> None:
    """Every combination of bounds, at the edges and beyond, against a list."""
    async with Clients() as connect, persist_paused(site):
        if persisted:
            site.persist.process.send(signal.SIGCONT)
        alice, chat, ids = await filled(bus, 7)
        if persisted:
            await until_persisted(bus)
        client = await connect(site.edges[0], alice)
        bounds: list[int | None] = [None, 0, 1, 3, 6]
        for before in bounds:
            for after in bounds:
                first = 0 if after is None else after + 1
                last = 7 if before is None else before
                window = ids[first : max(first, last)]
                for limit in (1, 3, 7, 200):
                    fields: dict[str, Any] = {"limit": limit}
                    if before is not None:
                        fields["before"] = ids[before]
                    if after is not None:
                        fields["after"] = ids[after]
                    page = await history(client, chat, **fields)
                    oldest = after is not None and before is None
                    part = window[:limit] if oldest else window[-limit:]
                    assert [each["id"] for each in page["messages"]] == part[::-1], fields
                    assert page["more"] == (len(window) > limit), fields


async def test_a_message_is_as_it_was_delivered(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        first = await a.say(bob, "first")
        ack = await a.say(
            bob,
            "all fields",
            content_type="markdown",
            reply_to=first["message_id"],
            thread=first["message_id"],
            mentions=[bob],
        )
        live = await b.until("chat", content="all fields")
        page = await history(b, ack["chat_id"])
        assert page["messages"][0] == live
        assert page["messages"][1]["replies"] == 1
        assert page["more"] is False
        group = (await a.group(bob))["group_id"]
        ack = await a.tell(group, "in the group")
        live = await b.until("group_chat", content="in the group")
        assert (await history(b, ack["chat_id"]))["messages"] == [live]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, None])
async def test_a_message_is_there_right_after_its_ack(
    site: Site, number: signal.Signals | None
) -> None:
    alice, bob = names("alice", "bob")
    if number is not None:
        site.persist.process.send(number)
    try:
        async with Clients() as connect:
            a = await connect(site.edges[0], alice)
            b = await connect(site.edges[1], bob)
            for turn in range(15):
                sender, other = (a, b) if turn % 2 else (b, a)
                ack = await sender.say(other.user, str(turn))
                page = await history(other, ack["chat_id"], limit=200)
                assert contents(page) == [str(n) for n in range(turn, -1, -1)]
    finally:
        if number == signal.SIGKILL:
            site.persist.process.kill()
            await site.persist.start()
        elif number is not None:
            site.persist.process.send(signal.SIGCONT)


async def test_a_tail_of_thousands(site: Site, bus: Bus) -> None:
    """With persist away for long, history comes from both, without a seam."""
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    count = 3000
    said = [message(alice, bob, str(number)) for number in range(count)]
    await store_in_log(bus, said[:1000])
    await until_persisted(bus)
    async with persist_paused(site), Clients() as connect:
        await store_in_log(bus, said[1000:])
        client = await connect(site.edges[0], alice)
        found = await everything(client, chat)
        assert [each["id"] for each in found] == [each.id for each in reversed(said)]
        page = await history(client, chat, after=said[998].id, limit=3)
        assert contents(page) == ["1001", "1000", "999"]
    await until_persisted(bus)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        assert await everything(client, chat) == found


async def test_changes_show_alike_before_and_after_they_are_in_mongodb(
    site: Site, bus: Bus
) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    talk = conversation(alice, bob, 120)
    await store_in_log(bus, talk[:130])
    await until_persisted(bus)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        async with persist_paused(site):
            await store_in_log(bus, talk[130:])
            early = await everything(client, chat, 50)
        await until_persisted(bus)
        late = await everything(client, chat, 50)
    assert early == late
    assert len(late) == 120
    by_content = {each["content"]: each for each in late}
    assert by_content["second edit"]["edited_at"]
    assert "first edit" not in by_content
    assert "gone soon" not in by_content
    assert [each for each in late if each.get("reactions") == {"-1": [alice]}]
    tombs = [each for each in late if each.get("deleted")]
    assert len(tombs) == 4
    assert {(each["content"], "edited_at" in each) for each in tombs} == {("", False)}


@pytest.mark.parametrize("persisted", [True, False], ids=["in-mongodb", "in-the-log"])
async def test_threads_and_replies(site: Site, bus: Bus, persisted: bool) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect, persist_paused(site):
        if persisted:
            site.persist.process.send(signal.SIGCONT)
        a = await connect(site.edges[0], alice)
        root = (await a.say(bob, "root"))["message_id"]
        other = (await a.say(bob, "other root"))["message_id"]
        replies = [(await a.say(bob, f"reply {n}", thread=root))["message_id"] for n in range(5)]
        await a.say(bob, "other reply", thread=other)
        await a.say(bob, "no reply")

        async def counts() -> dict[str, int]:
            if persisted:
                await until_persisted(bus)
            page = await history(a, chat)
            return {m["content"]: m["replies"] for m in page["messages"] if "replies" in m}

        assert await counts() == {"root": 5, "other root": 1}
        page = await history(a, chat, thread=root, limit=2)
        assert (contents(page), page["more"]) == (["reply 4", "reply 3"], True)
        page = await history(a, chat, thread=root, limit=3, before=replies[3])
        assert (contents(page), page["more"]) == (["reply 2", "reply 1", "reply 0"], False)
        page = await history(a, chat, thread=root, limit=2, after=replies[0])
        assert (contents(page), page["more"]) == (["reply 2", "reply 1"], True)
        assert {m["thread"] for m in page["messages"]} == {root}
        assert contents(await history(a, chat, thread=replies[0])) == []

        await change(a, "delete", chat, replies[4])
        assert await counts() == {"root": 4, "other root": 1}
        await a.say(bob, "one more", thread=root)
        assert await counts() == {"root": 5, "other root": 1}


async def test_a_reply_deleted_just_now_no_longer_counts(site: Site, bus: Bus) -> None:
    """The reply is in MongoDB, its deletion only in the log."""
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        root = await a.say(bob, "root")
        replies = [await a.say(bob, "reply", thread=root["message_id"]) for _ in range(3)]
        await until_persisted(bus)
        async with persist_paused(site):
            await change(a, "delete", root["chat_id"], replies[1]["message_id"])
            page = await history(a, root["chat_id"])
            assert page["messages"][-1]["replies"] == 2
        await until_persisted(bus)
        page = await history(a, root["chat_id"])
        assert page["messages"][-1]["replies"] == 2


async def test_refusals(site: Site, bus: Bus) -> None:
    alice, chat, ids = await filled(bus, 3)
    mallory, carol = names("mallory", "carol")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        m = await connect(site.edges[0], mallory)
        group = (await a.group(carol))["chat_id"]
        other = (await a.say(carol, "elsewhere"))["message_id"]
        limit = a.welcome["limits"]["history_page"]
        assert len((await history(a, chat, limit=limit))["messages"]) == 3
        cases: list[tuple[Chat, str, dict[str, Any], str]] = [
            (m, chat, {}, "not_member"),
            (m, group, {}, "not_member"),
            (a, subjects.dm(carol, mallory), {}, "not_member"),
            (a, f"user.{subjects.encode(alice)}", {}, "not_member"),
            (a, "dm.x", {}, "invalid"),
            (a, "dm.*.*", {}, "invalid"),
            (a, "", {}, "invalid"),
            (a, chat, {"before": "1"}, "not_found"),
            (a, chat, {"after": "1"}, "not_found"),
            (a, chat, {"before": other}, "not_found"),
            (a, chat, {"before": "9" * 20}, "not_found"),
            (a, chat, {"thread": "9" * 20}, "not_found"),
            (a, chat, {"before": ids[0] + "\n"}, "invalid"),
            (a, chat, {"before": "abc"}, "invalid"),
            (a, chat, {"limit": 0}, "invalid"),
            (a, chat, {"limit": limit + 1}, "invalid"),
        ]
        for client, chat_id, fields, code in cases:
            answer = await client.ask("history", chat_id=chat_id, **fields)
            assert (answer["type"], answer.get("code")) == ("error", code), (chat_id, fields)
            assert answer["retryable"] is False
        empty = await history(a, subjects.dm(alice, mallory))
        assert (empty["messages"], empty["more"]) == ([], False)


@pytest.mark.parametrize("name", ["thread", "reply_to"])
@pytest.mark.parametrize("number", ["9" * 20, "007", "1\n"])
async def test_a_client_cannot_send_what_cannot_be_stored(
    site: Site, name: str, number: str
) -> None:
    """It would be acknowledged, and then be missing from history."""
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        answer = await a.write("chat", to=bob, content="x", **{name: number})
        assert (answer["type"], answer.get("code")) == ("error", "invalid")
        assert name in answer["message"]


async def test_garbage_in_the_log_does_not_hide_the_rest(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with persist_paused(site), Clients() as connect:
        await store_in_log(bus, [message(alice, bob, "before")])
        strange = message(alice, bob, "strange")
        strange.id = "abc"
        await commit_all(bus, [(chat, b"\xff garbage"), (chat, b"{}")])
        await store_in_log(bus, [strange, message(alice, bob, "after")])
        client = await connect(site.edges[0], alice)
        assert contents(await history(client, chat)) == ["after", "before"]
    await until_persisted(bus)


async def test_unavailable_while_mongodb_is_away(site: Site, bus: Bus) -> None:
    alice, chat, _ = await filled(bus, 3)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        site.mongo.process.kill()
        answer = await client.ask("history", chat_id=chat)
        assert (answer["type"], answer["code"]) == ("error", "unavailable")
        assert answer["retryable"] is True
        await site.mongo.start()
        await until_persisted(bus)
        assert len((await history(client, chat))["messages"]) == 3
