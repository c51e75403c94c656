"""Read pointers only move forward, everyone who should know is told, and none is ever lost."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from broker import subjects
from broker.bus import Bus
from broker.pointers import BUCKET, Of, Pointers
from broker.query import Pointer
from tests.brokers import api, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.mirror import message, store_in_log, until_persisted
from tests.servers import Site

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(site: Site) -> AsyncIterator[Bus]:
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


async def filled(bus: Bus, count: int) -> tuple[str, str, str, list[str]]:
    """A chat of two new users: both, the chat, the ids of `count` messages to the first."""
    alice, bob = names("alice", "bob")
    said = [message(bob, alice, str(number)) for number in range(count)]
    await store_in_log(bus, said)
    return alice, bob, subjects.dm(alice, bob), [each.id for each in said]


async def read(client: Chat, chat_id: str, message_id: str) -> Frame:
    return await client.ask("read_receipt", chat_id=chat_id, last_read_msg_id=message_id)


async def pointer(bus: Bus, user: str, chat_id: str) -> str | None:
    of = Of(chat_id, user)
    found = await Pointers(bus).find([of])
    return found[of].id if of in found else None


async def flush(client: Chat) -> None:
    """Wait until all that was on its way to this client is here."""
    await client.say(client.user, "flush")
    await client.until("chat", content="flush")


def receipts(client: Chat, chat_id: str) -> list[Frame]:
    found = [frame for frame in client.frames if frame["type"] == "read_receipt"]
    return [frame for frame in found if frame["chat_id"] == chat_id]


async def test_who_is_told_and_how(site: Site, bus: Bus) -> None:
    alice, bob, chat, ids = await filled(bus, 3)
    async with Clients() as connect:
        phone = await connect(site.edges[0], alice)
        desktop = await connect(site.edges[1], alice)
        other = await connect(site.edges[1], bob)
        answer = await read(phone, chat, ids[1])
        assert (answer["type"], answer["last_read_msg_id"]) == ("result", ids[1])
        assert answer["chat_id"] == chat
        told = {"chat_id": chat, "reader_id": alice, "last_read_msg_id": ids[1]}
        for own in (phone, desktop):
            seen = await own.until("read_receipt", **told)
            assert isinstance(seen["seq"], int)
        seen = await other.until("read_receipt", **told)
        assert "seq" not in seen
        assert await pointer(bus, alice, chat) == ids[1]
        for client in (phone, desktop, other):
            await flush(client)
            assert len(receipts(client, chat)) == 1
        assert await pointer(bus, bob, chat) is None

        # A device that was away learns it from the log.
        cursor = desktop.cursor
        await desktop.close()
        await read(phone, chat, ids[2])
        back = await connect(site.edges[1], alice, cursor=cursor)
        await back.until("caught_up")
        (seen,) = receipts(back, chat)
        assert seen["last_read_msg_id"] == ids[2]
        assert seen["seq"] > int(cursor.rpartition(":")[2])


async def test_members_of_a_group_are_told(site: Site) -> None:
    alice, bob, carol, mallory = names("alice", "bob", "carol", "mallory")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[0], carol)
        m = await connect(site.edges[0], mallory)
        group = await a.group(bob, carol)
        for client in (b, c):
            await client.until("member_added")
        said = await a.tell(group["group_id"], "read this")
        assert (await read(b, said["chat_id"], said["message_id"]))["type"] == "result"
        for client in (a, c):
            seen = await client.until("read_receipt", reader_id=bob)
            assert (seen["chat_id"], "seq" in seen) == (said["chat_id"], False)
        refused = await read(m, said["chat_id"], said["message_id"])
        assert (refused["type"], refused["code"]) == ("error", "not_member")
        await flush(m)
        assert receipts(m, said["chat_id"]) == []


async def test_it_never_moves_back(site: Site, bus: Bus) -> None:
    alice, bob, chat, ids = await filled(bus, 3)
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        other = await connect(site.edges[1], bob)
        assert (await read(a, chat, ids[2]))["last_read_msg_id"] == ids[2]
        answer = await read(a, chat, ids[0])
        assert (answer["type"], answer["last_read_msg_id"]) == ("result", ids[2])
        assert await pointer(bus, alice, chat) == ids[2]
        again = await read(a, chat, ids[2])
        assert again["last_read_msg_id"] == ids[2]
        for client in (a, other):
            await flush(client)
            assert [each["last_read_msg_id"] for each in receipts(client, chat)] == [ids[2]]


async def test_unknown_messages(site: Site, bus: Bus) -> None:
    alice, _, chat, ids = await filled(bus, 2)
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        for unknown in ("1", "9" * 20):
            refused = await read(a, chat, unknown)
            assert (refused["type"], refused["code"]) == ("error", "not_found")
        # One that does not exist does not keep one that does from being passed on.
        await a.send("read_receipt", id="good", chat_id=chat, last_read_msg_id=ids[1])
        await a.send("read_receipt", id="bad", chat_id=chat, last_read_msg_id="9" * 19)
        assert (await a.until("error", id="bad"))["code"] == "not_found"
        assert (await a.until("result", id="good"))["last_read_msg_id"] == ids[1]
        assert await pointer(bus, alice, chat) == ids[1]


async def test_right_after_the_ack(site: Site) -> None:
    """The message is in the log and not in MongoDB."""
    alice, bob = names("alice", "bob")
    site.persist.process.send(signal.SIGSTOP)
    try:
        async with Clients() as connect:
            a = await connect(site.edges[0], alice)
            b = await connect(site.edges[1], bob)
            said = await a.say(bob, "read at once")
            answer = await read(b, said["chat_id"], said["message_id"])
            assert answer["type"] == "result"
            await a.until("read_receipt", last_read_msg_id=said["message_id"])
    finally:
        site.persist.process.send(signal.SIGCONT)


async def test_at_most_one_a_second(site: Site, bus: Bus) -> None:
    """Two devices read on for a while; all are answered, and others are told the newest."""
    alice, bob, chat, ids = await filled(bus, 60)
    async with Clients() as connect:
        devices = [await connect(site.edges[0], alice) for _ in range(2)]
        other = await connect(site.edges[1], bob)
        began = time.monotonic()
        for number, message_id in enumerate(ids):
            device = devices[number % 2]
            fields = {"id": f"read {number}"} if number % 3 == 0 else {}
            await device.send("read_receipt", chat_id=chat, last_read_msg_id=message_id, **fields)
            await asyncio.sleep(0.03)
        await other.until("read_receipt", last_read_msg_id=ids[-1])
        taken_s = time.monotonic() - began
        seen = [each["last_read_msg_id"] for each in receipts(other, chat)]
        assert 2 <= len(seen) <= taken_s + 1.5
        assert seen == sorted(seen, key=ids.index)
        for number in range(0, len(ids), 3):
            answer = await devices[number % 2].until("result", id=f"read {number}")
            assert ids.index(answer["last_read_msg_id"]) >= number
        for device in devices:
            await flush(device)
            own = receipts(device, chat)
            assert [each["last_read_msg_id"] for each in own] == seen
            assert [each["seq"] for each in own] == sorted(each["seq"] for each in own)
            assert not [f for f in device.frames if f["type"] == "result" and "id" not in f]
        assert await pointer(bus, alice, chat) == ids[-1]


async def test_many_move_one_pointer_at_once(site: Site, bus: Bus) -> None:
    alice, _, chat, ids = await filled(bus, 12)
    pointers = Pointers(bus)
    order = [ids.index(each) for each in sorted(ids, key=hash)]
    stands = await asyncio.gather(
        *(pointers.advance(chat, alice, Pointer(seq=n + 1, id=ids[n])) for n in order[:6])
    )
    assert all(found.pointer.seq >= n + 1 for found, n in zip(stands, order, strict=False))
    best = max(order[:6])
    of = Of(chat, alice)
    assert await pointers.find([of]) == {of: Pointer(seq=best + 1, id=ids[best])}


async def test_pointers_of_many_are_moved_together(site: Site, bus: Bus) -> None:
    """Those that another one has moved further stay, and hold up none of the others."""
    users = names(*(f"u{number}" for number in range(1200)))
    chat = subjects.group(names("g")[0])
    pointers = Pointers(bus)
    await pointers.advance(chat, users[3], Pointer(seq=50, id="50"))
    first = {Of(chat, user): Pointer(seq=10 + n, id=str(10 + n)) for n, user in enumerate(users)}
    moved = await pointers.advance_all(first)
    assert [of for of, each in moved.items() if not each.moved] == [Of(chat, users[3])]
    assert moved[Of(chat, users[3])].pointer.seq == 50
    assert (await pointers.advance_all(first))[Of(chat, users[0])] == (
        first[Of(chat, users[0])],
        False,
    )

    # Two at once: whoever comes second finds what it read changed.
    low = {of: Pointer(seq=5000, id="5000") for of in first}
    high = {of: Pointer(seq=9000, id="9000") for of in first}
    answers = await asyncio.gather(*(pointers.advance_all(each) for each in (low, high, low, high)))
    assert {each.pointer.seq for each in answers[1].values()} == {9000}
    found = await pointers.find(list(first))
    assert {each.seq for each in found.values()} == {9000}
    assert len(found) == len(users)
    for of in first:
        tellers = [answer[of] for answer in answers if answer[of].moved]
        assert sum(each.pointer.seq == 9000 for each in tellers) == 1


async def test_a_lost_bucket_is_restored_from_mongodb(site: Site, bus: Bus) -> None:
    chats = [await filled(bus, 3) for _ in range(5)]
    async with Clients() as connect:
        for number, (alice, _, chat, ids) in enumerate(chats):
            client = await connect(site.edges[0], alice)
            assert (await read(client, chat, ids[number % 3]))["type"] == "result"
        await until_persisted(bus)
        site.query.process.kill()
        await api(bus, f"STREAM.DELETE.KV_{BUCKET}")
        await site.query.start()
        for number, (alice, _, chat, ids) in enumerate(chats):
            assert await pointer(bus, alice, chat) == ids[number % 3]
            client = await connect(site.edges[1], alice)
            counts = (await client.ask("unread", chat_ids=[chat]))["counts"]
            assert counts == {chat: 2 - number % 3}
        log = site.query.process.log.read_text()
        assert "restored" in log
        # The next start finds them as they are.
        site.query.process.kill()
        alice, _, chat, ids = chats[0]
        before = site.query.process.log.stat().st_size
        await site.query.start()
        assert b"restored" not in site.query.process.log.read_bytes()[before:]
        assert await pointer(bus, alice, chat) == ids[0]


async def test_a_pointer_moved_but_not_told_is_told_by_the_next_try(site: Site, bus: Bus) -> None:
    """As when the worker dies after it moved the pointer: the client asks again."""
    alice, bob, chat, ids = await filled(bus, 1)
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        own = await connect(site.edges[1], alice)
        other = await connect(site.edges[1], bob)
        page = await a.ask("history", chat_id=chat)
        seq = page["messages"][0]["seq"]
        await Pointers(bus).advance(chat, alice, Pointer(seq=seq, id=ids[0]))
        assert (await read(a, chat, ids[0]))["type"] == "result"
        await own.until("read_receipt", last_read_msg_id=ids[0])
        await other.until("read_receipt", last_read_msg_id=ids[0])
