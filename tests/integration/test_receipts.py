"""Delivery receipts, and how far everyone is in a chat when one asks."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from broker import subjects
from broker.bus import Bus
from broker.fanout import LARGE, SMALL
from tests.brokers import last_seq, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.mirror import message, store_in_log
from tests.servers import Site

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(site: Site) -> AsyncIterator[Bus]:
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


async def deliver(client: Chat, chat_id: str, message_id: str) -> None:
    await client.send("delivery_receipt", chat_id=chat_id, last_delivered_msg_id=message_id)


async def read(client: Chat, chat_id: str, message_id: str) -> None:
    answer = await client.ask("read_receipt", chat_id=chat_id, last_read_msg_id=message_id)
    assert answer["type"] == "result", answer


async def receipts(client: Chat, chat_id: str) -> dict[str, Frame]:
    answer = await client.ask("receipts", chat_id=chat_id)
    assert answer["type"] == "result", answer
    found: dict[str, Frame] = answer["receipts"]
    return found


def told(client: Chat, chat_id: str) -> list[Frame]:
    found = [frame for frame in client.frames if frame["type"] == "delivery_receipt"]
    return [frame for frame in found if frame["chat_id"] == chat_id]


async def flush(client: Chat) -> None:
    """Wait until all that was on its way to this client is here."""
    await client.say(client.user, "flush")
    await client.until("chat", content="flush")


def up_to(said: Frame, read: Frame | None = None) -> Frame:
    """What is told of a member who has got up to one message and read up to another."""
    return {
        "last_read_msg_id": read["message_id"] if read else None,
        "read_seq": read["seq"] if read else 0,
        "last_delivered_msg_id": said["message_id"],
        "delivered_seq": said["seq"],
    }


async def test_the_other_is_told_at_once_and_the_log_has_nothing(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        phone = await connect(site.edges[0], alice)
        desktop = await connect(site.edges[1], alice)
        other = await connect(site.edges[1], bob)
        said = await other.say(alice, "hello")
        chat, here = said["chat_id"], await last_seq(bus)
        assert await receipts(other, chat) == {}
        await deliver(phone, chat, said["message_id"])
        seen = await other.until("delivery_receipt")
        assert seen == {
            "type": "delivery_receipt",
            "chat_id": chat,
            "user_id": alice,
            "last_delivered_msg_id": said["message_id"],
            "delivered_seq": said["seq"],
        }
        assert await last_seq(bus) == here
        assert await receipts(other, chat) == {alice: up_to(said)}
        assert await receipts(desktop, chat) == {alice: up_to(said)}

        # The second device has nothing to add; the user's own devices are not told.
        await deliver(desktop, chat, said["message_id"])
        later = await other.say(alice, "again")
        await deliver(desktop, chat, later["message_id"])
        await other.until("delivery_receipt", last_delivered_msg_id=later["message_id"])
        assert len(told(other, chat)) == 2
        for own in (phone, desktop):
            await flush(own)
            assert told(own, chat) == []
        assert not [frame for frame in phone.frames if frame["type"] == "result"]


async def test_it_never_moves_back_and_reading_is_getting(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        first, second, third = [await b.say(alice, text) for text in "123"]
        chat = first["chat_id"]
        await deliver(a, chat, second["message_id"])
        await b.until("delivery_receipt", last_delivered_msg_id=second["message_id"])
        await deliver(a, chat, first["message_id"])
        await read(a, chat, first["message_id"])
        assert await receipts(b, chat) == {alice: up_to(second, read=first)}
        await read(a, chat, third["message_id"])
        assert await receipts(b, chat) == {alice: up_to(third, read=third)}
        await flush(b)
        assert [each["last_delivered_msg_id"] for each in told(b, chat)] == [second["message_id"]]


async def test_the_list_of_chats_has_the_other_ones_receipts(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        to_bob = await a.say(bob, "hello")
        to_carol = await a.say(carol, "hello")
        note = await a.say(alice, "remember")
        group = await a.group(bob)
        await read(a, note["chat_id"], note["message_id"])
        await deliver(b, to_bob["chat_id"], to_bob["message_id"])
        await a.until("delivery_receipt", user_id=bob)
        page = await a.ask("chats")
        found = {each["chat_id"]: each.get("receipts") for each in page["chats"]}
        assert found == {
            to_bob["chat_id"]: {bob: up_to(to_bob)},
            to_carol["chat_id"]: {},
            note["chat_id"]: {},
            group["chat_id"]: None,
        }


async def test_members_of_a_group(site: Site) -> None:
    alice, bob, carol, mallory = names("alice", "bob", "carol", "mallory")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[0], carol)
        m = await connect(site.edges[0], mallory)
        group = await a.group(bob, carol)
        for client in (b, c):
            await client.until("member_added")
        said = await a.tell(group["group_id"], "hello")
        chat = said["chat_id"]
        await deliver(b, chat, said["message_id"])
        for client in (a, c):
            await client.until("delivery_receipt", chat_id=chat, user_id=bob)
        await read(c, chat, said["message_id"])
        bobs, carols = up_to(said), up_to(said, read=said)
        assert await receipts(a, chat) == {bob: bobs, carol: carols}

        for request in ("receipts", "delivery_receipt"):
            await m.send(request, id=request, chat_id=chat, last_delivered_msg_id="1")
            refused = await m.until("error", id=request)
            assert refused["code"] == "not_member"
        await flush(m)
        assert told(m, chat) == []

        # Who has left is in it no more.
        left = await a.ask("group_remove", group_id=group["group_id"], users=[bob])
        assert left["type"] == "result"
        assert await receipts(a, chat) == {carol: carols}


async def test_groups_of_over_50_are_told_nothing(site: Site) -> None:
    alice, bob = names("alice", "bob")
    others = [f"{bob}-{number}" for number in range(SMALL - 2)]
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        small = await a.group(bob, *others)
        crowded = await a.group(bob, *others, "one-more")
        assert [each["member_count"] for each in (small, crowded)] == [SMALL, SMALL + 1]
        for group in (small, crowded):
            await b.until("member_added", group_id=group["group_id"])
        in_crowded = [await a.tell(crowded["group_id"], text) for text in "12"]
        in_small = await a.tell(small["group_id"], "hello")
        for said in (*in_crowded, in_small):
            await deliver(b, said["chat_id"], said["message_id"])
        await a.until("delivery_receipt", chat_id=in_small["chat_id"])
        await read(b, crowded["chat_id"], in_crowded[0]["message_id"])
        first = in_crowded[0]
        assert await receipts(a, crowded["chat_id"]) == {bob: up_to(first, read=first)}
        await flush(a)
        assert told(a, crowded["chat_id"]) == []
        assert not [frame for frame in b.frames if frame["type"] == "error"]


async def test_a_large_channel_keeps_none(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        members = [f"{bob}-{number}" for number in range(LARGE)]
        channel = await a.group(*members, kind="channel")
        refused = await a.ask("receipts", chat_id=channel["chat_id"])
        assert (refused["type"], refused["code"]) == ("error", "invalid")


async def test_unknown_messages(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        said = await b.say(alice, "hello")
        chat = said["chat_id"]
        await deliver(a, chat, said["message_id"])
        await a.send("delivery_receipt", id="bad", chat_id=chat, last_delivered_msg_id="9" * 18)
        assert (await a.until("error", id="bad"))["code"] == "not_found"
        await b.until("delivery_receipt", last_delivered_msg_id=said["message_id"])
        assert await receipts(b, chat) == {alice: up_to(said)}


async def test_at_most_one_a_second(site: Site, bus: Bus) -> None:
    alice, bob = names("alice", "bob")
    said = [message(bob, alice, str(number)) for number in range(60)]
    await store_in_log(bus, said)
    chat, ids = subjects.dm(alice, bob), [each.id for each in said]
    async with Clients() as connect:
        devices = [await connect(site.edges[0], alice) for _ in range(2)]
        other = await connect(site.edges[1], bob)
        began = time.monotonic()
        for number, message_id in enumerate(ids):
            await deliver(devices[number % 2], chat, message_id)
            await asyncio.sleep(0.03)
        await other.until("delivery_receipt", last_delivered_msg_id=ids[-1])
        taken_s = time.monotonic() - began
        seen = [each["last_delivered_msg_id"] for each in told(other, chat)]
        assert 2 <= len(seen) <= taken_s + 1.5
        assert seen == sorted(seen, key=ids.index)
        for device in devices:
            await flush(device)
            assert not [frame for frame in device.frames if frame["type"] == "error"]
