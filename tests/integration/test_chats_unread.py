"""The list of chats and the counts of what is unread, exact as far as they go."""

import statistics
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from broker import events, subjects
from broker.bus import Bus
from store.config import StoreConfig
from store.database import connect as connect_database
from store.history import History, counting
from tests.brokers import make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.mirror import deleted, edited, message, store_in_log, until_persisted
from tests.servers import Site

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(site: Site) -> AsyncIterator[Bus]:
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


async def chats(client: Chat, **fields: Any) -> list[Frame]:
    found = await client.ask("chats", **fields)
    assert found["type"] == "result", found
    page: list[Frame] = found["chats"]
    return page


async def unread(client: Chat, *chat_ids: str) -> tuple[dict[str, int], list[str]]:
    found = await client.ask("unread", chat_ids=chat_ids)
    assert found["type"] == "result", found
    return found["counts"], found["more"]


async def read(client: Chat, chat_id: str, message_id: str) -> None:
    answer = await client.ask("read_receipt", chat_id=chat_id, last_read_msg_id=message_id)
    assert answer["type"] == "result", answer


async def test_order_preview_unread_and_pointer(site: Site) -> None:
    alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[1], carol)
        silent = await b.group(alice, carol, name="nothing said")
        group = await b.group(alice, carol, name="three of us")
        await a.until("member_added", group_id=group["group_id"])
        await a.until("member_added", group_id=silent["group_id"])
        first = await a.say(bob, "hello bob")
        await b.say(alice, "x" * 500)
        read_here = await c.say(alice, "one")
        await c.say(alice, "two")
        await b.tell(group["group_id"], "hello all")
        await a.say(dave, "anyone?")
        await read(a, read_here["chat_id"], read_here["message_id"])

        found = await chats(a)
        assert [each["chat_id"] for each in found] == [
            subjects.dm(alice, dave),
            group["chat_id"],
            subjects.dm(alice, carol),
            first["chat_id"],
            silent["chat_id"],
        ]
        with_dave, with_all, with_carol, with_bob, with_none = found
        assert [each["unread"] for each in found] == [0, 1, 1, 1, 0]
        assert [each["kind"] for each in found] == ["dm", "group", "dm", "dm", "group"]
        assert [each["name"] for each in found[:2]] == [None, "three of us"]
        assert [each["members"] for each in found] == [2, 3, 2, 2, 3]
        assert with_carol["last_read_msg_id"] == read_here["message_id"]
        assert with_bob["last_read_msg_id"] is None
        assert with_none["last_message"] is None
        assert with_dave["last_message"]["content"] == "anyone?"
        assert with_all["last_message"]["from"] == bob
        assert with_all["last_message"]["type"] == "group_chat"
        assert with_bob["last_message"]["content"] == "x" * 200

        counts, more = await unread(a, *(each["chat_id"] for each in found))
        assert counts == {each["chat_id"]: each["unread"] for each in found}
        assert more == []
        b_found = await chats(b)
        assert [each["unread"] for each in b_found] == [0, 1, 0]

        ack = await c.write(
            "delete",
            client_id=uuid4().hex,
            chat_id=with_carol["chat_id"],
            message_id=with_carol["last_message"]["id"],
        )
        assert ack["type"] == "ack"
        (again,) = [e for e in await chats(a) if e["chat_id"] == with_carol["chat_id"]]
        assert again["last_message"]["deleted"] is True
        assert again["last_message"]["content"] == ""


async def test_what_was_said_before_one_came_is_not_unread(site: Site, bus: Bus) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[0], carol)
        group = await a.group(bob, kind="channel")
        chat_id, group_id = group["chat_id"], group["group_id"]
        for number in range(5):
            await a.tell(group_id, f"before {number}")
        await until_persisted(bus)
        await a.ask("group_add", group_id=group_id, users=[carol])
        assert (await unread(c, chat_id))[0] == {chat_id: 0}
        assert (await unread(b, chat_id))[0] == {chat_id: 5}
        await a.tell(group_id, "after")
        assert (await unread(c, chat_id))[0] == {chat_id: 1}
        assert [each["unread"] for each in await chats(c)] == [1]
        await a.ask("group_remove", group_id=group_id, users=[bob])
        await a.tell(group_id, "while bob is out")
        await until_persisted(bus)
        assert (await b.ask("group_join", group_id=group_id))["type"] == "result"
        assert (await unread(b, chat_id))[0] == {chat_id: 0}
        page = await b.ask("history", chat_id=chat_id)
        assert len(page["messages"]) == 7


async def test_who_left_sees_the_group_no_more(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        group = await a.group(bob)
        await b.until("member_added")
        await a.tell(group["group_id"], "hello")
        assert [each["unread"] for each in await chats(b)] == [1]
        assert (await b.ask("group_leave", group_id=group["group_id"]))["type"] == "result"
        assert await chats(b) == []
        refused = await b.ask("unread", chat_ids=[group["chat_id"]])
        assert (refused["type"], refused["code"]) == ("error", "not_member")


async def test_unread_is_exact_up_to_a_thousand(site: Site, bus: Bus) -> None:
    """Own messages do not count, and changes are no messages."""
    (alice,) = names("alice")
    expected: dict[str, int] = {}
    found: list[events.Message | events.Change] = []
    pointers: dict[str, str] = {}
    for count in (0, 1, 999, 1000, 1001):
        (peer,) = names(f"peer{count}")
        chat = subjects.dm(alice, peer)
        start = message(peer, alice, "read already")
        theirs = [message(peer, alice, str(number)) for number in range(count)]
        own = [message(alice, peer, "own") for _ in range(5)]
        found += [start, *theirs, *own, edited(own[0], "edited"), deleted(own[1])]
        expected[chat] = min(count, 1000)
        pointers[chat] = start.id
    await store_in_log(bus, found)
    await until_persisted(bus)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        counts, more = await unread(client, *expected)
        assert list(counts.values()) == [1, 2, 1000, 1000, 1000]
        assert more == list(expected)[2:]
        for chat, message_id in pointers.items():
            await read(client, chat, message_id)
        counts, more = await unread(client, *expected)
        assert counts == expected
        assert more == list(expected)[3:], "1,000 means that many or more"
        listed = {each["chat_id"]: each["unread"] for each in await chats(client)}
        assert listed == expected
        nowhere = subjects.dm(alice, "nobody")
        assert await unread(client, nowhere) == ({nowhere: 0}, [])
        for chat_ids in ([], [nowhere] * 201, ["dm.x"], [subjects.dm("x", "y")]):
            refused = await client.ask("unread", chat_ids=chat_ids)
            assert refused["type"] == "error"
            assert refused["code"] in ("invalid", "not_member")


async def test_deleted_messages_are_not_unread(site: Site, bus: Bus) -> None:
    (alice,) = names("alice")
    expected: dict[str, int] = {}
    found: list[events.Message | events.Change] = []
    for count, gone in ((3, 1), (5, 5), (1005, 4), (1005, 5), (1005, 6)):
        (peer,) = names(f"peer{gone}")
        theirs = [message(peer, alice, str(number)) for number in range(count)]
        # A deletion may reach MongoDB before its message.
        found += [*theirs, message(alice, peer, "own"), *map(deleted, theirs[:gone])]
        expected[subjects.dm(alice, peer)] = min(count - gone, 1000)
    await store_in_log(bus, found)
    await until_persisted(bus)
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        full = [chat for chat, count in expected.items() if count == 1000]
        assert await unread(client, *expected) == (expected, full)
        listed = {each["chat_id"]: each["unread"] for each in await chats(client)}
        assert listed == expected

        # One that is deleted now is not counted with the next question.
        (peer,) = names("peer")
        other = await connect(site.edges[1], peer)
        said = [await other.say(alice, text) for text in "12"]
        chat, last = said[1]["chat_id"], said[1]["message_id"]
        assert await unread(client, chat) == ({chat: 2}, [])
        gone_now = await other.write("delete", chat_id=chat, message_id=last)
        assert gone_now["type"] == "ack"
        assert await unread(client, chat) == ({chat: 1}, [])


async def test_counting_reads_only_the_index(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    said = [message(bob, alice, str(number)) for number in range(30)]
    await store_in_log(bus, [*said, *map(deleted, said[:10])])
    await until_persisted(bus)
    async with connect_database(StoreConfig(url=site.mongo.url)) as database:
        history = History(database, chat_of=subjects.group)
        chat = subjects.dm(alice, bob)
        assert await history.unread(alice, {chat: 0}) == {chat: 20}
        plan = await database["messages"].database.command(
            "explain",
            {"aggregate": "messages", "pipeline": counting(alice, chat, 0), "cursor": {}},
            verbosity="executionStats",
        )
        stats = plan.get("executionStats") or plan["stages"][0]["$cursor"]["executionStats"]
        assert (stats["totalKeysExamined"] >= 20, stats["totalDocsExamined"]) == (True, 0)


async def test_a_thousand_chats(site: Site, bus: Bus) -> None:
    """Pages in order, each chat once, with as much work for the last page as for the first."""
    (alice,) = names("alice")
    peers = [f"peer{number}-{alice}" for number in range(1000)]
    said = [message(peer, alice, f"from {peer}") for peer in peers]
    said += [message(peer, alice, f"again from {peer}") for peer in peers[:200]]
    await store_in_log(bus, said)
    await until_persisted(bus)
    order = [subjects.dm(alice, peer) for peer in [*peers[:200][::-1], *peers[200:][::-1]]]
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        found: list[Frame] = []
        times: list[float] = []
        more = True
        while more:
            after = {"after": found[-1]["chat_id"]} if found else {}
            began = time.perf_counter()
            page = await client.ask("chats", limit=200, **after)
            times.append(time.perf_counter() - began)
            found += page["chats"]
            more = page["more"]
        assert [each["chat_id"] for each in found] == order
        assert [each["unread"] for each in found] == [2] * 200 + [1] * 800
        assert found[0]["last_message"]["content"] == f"again from {peers[199]}"
        assert len(times) == 5
        assert statistics.median(times) < 1
        (first,) = await chats(client, limit=1)
        assert first == found[0]

        two_hundred = order[:200]
        began = time.perf_counter()
        counts, more_of = await unread(client, *two_hundred)
        taken = time.perf_counter() - began
        assert counts == dict.fromkeys(two_hundred, 2)
        assert more_of == []
        assert taken < 1
        print(f"pages of 200 chats: {[round(each * 1e3) for each in times]} ms")
        print(f"unread of 200 chats: {taken * 1e3:.0f} ms")


async def test_paging_goes_on_where_it_was(site: Site) -> None:
    alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        for peer in (bob, carol, dave):
            await a.say(peer, "hello")
        page = await a.ask("chats", limit=1)
        assert (page["chats"][0]["chat_id"], page["more"]) == (subjects.dm(alice, dave), True)
        page = await a.ask("chats", limit=1, after=page["chats"][0]["chat_id"])
        assert (page["chats"][0]["chat_id"], page["more"]) == (subjects.dm(alice, carol), True)
        page = await a.ask("chats", limit=1, after=page["chats"][0]["chat_id"])
        assert (page["chats"][0]["chat_id"], page["more"]) == (subjects.dm(alice, bob), False)
        page = await a.ask("chats", limit=1, after=page["chats"][0]["chat_id"])
        assert (page["chats"], page["more"]) == ([], False)
        refused = await a.ask("chats", after=subjects.dm("x", "y"))
        assert (refused["type"], refused["code"]) == ("error", "not_found")
        for limit in (0, 201):
            refused = await a.ask("chats", limit=limit)
            assert (refused["type"], refused["code"]) == ("error", "invalid")
        b = await connect(site.edges[0], f"new-{alice}")
        assert await chats(b) == []


async def test_what_was_just_said_is_in_the_list(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        for number in range(1, 11):
            await a.say(bob, f"number {number}")
            (found,) = await chats(b)
            assert (found["last_message"]["content"], found["unread"]) == (
                f"number {number}",
                number,
            )
            assert await unread(b, found["chat_id"]) == ({found["chat_id"]: number}, [])


async def test_notes_to_oneself(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        await a.say(alice, "remember")
        (found,) = await chats(a)
        assert (found["chat_id"], found["unread"]) == (subjects.dm(alice, alice), 0)
