"""Delivery receipts of the client, against a scripted server."""

import asyncio
from typing import Any

import pytest

from client import Client, CursorStore, DeliveryReceiptEvent, Receipt
from edge.frames import Chats, DeliveryReceipt, Receipts, Result

from .test_client_sends import nothing_comes, online
from .test_client_server import eventually, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

DM = "dm.alice.bob"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.deliveries.EVERY_S", 0.05)
    monkeypatch.setattr("client.keeper.SAVE_EVERY_S", 0.05)


class SlowStore(CursorStore):
    """Saves when it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.saved = ""

    async def load(self) -> str | None:
        return None

    async def save(self, cursor: str) -> None:
        await self.may.wait()
        self.saved = cursor


async def take(client: Client, count: int) -> None:
    """Have so many events; the last one counts as had with the next wait."""
    for _ in range(count):
        async with asyncio.timeout(10):
            await anext(client)


def wait_for_more(client: Client) -> "asyncio.Task[Any]":
    return asyncio.create_task(client.__anext__())


async def test_the_newest_of_each_chat_is_told_once_it_is_stored() -> None:
    store = SlowStore()
    async with online(cursor_store=store, delivery_receipts=True) as (_, client, link):
        other = message(3, from_="carol", chat_id="dm.alice.carol")
        mine = message(4, from_="alice", to="bob")
        await link.send(message(1), message(2), other, mine)
        await take(client, 4)
        waiting = wait_for_more(client)
        await nothing_comes(link)
        store.may.set()
        told = [await link.receive(DeliveryReceipt) for _ in range(2)]
        assert {each.chat_id: each.last_delivered_msg_id for each in told} == {
            DM: "1002",
            "dm.alice.carol": "1003",
        }
        assert all(each.id is None for each in told)
        await nothing_comes(link)
        await link.send(message(5))
        await waiting
        waiting = wait_for_more(client)
        assert (await link.receive(DeliveryReceipt)).last_delivered_msg_id == "1005"
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_nothing_is_told_unless_asked_for() -> None:
    async with online() as (_, client, link):
        await link.send(message(1), message(2))
        await take(client, 2)
        await eventually(lambda: client._keeper._saved is not None)
        await nothing_comes(link)


async def test_what_may_not_have_arrived_is_told_again() -> None:
    async with online(delivery_receipts=True) as (server, client, link):
        await link.send(message(1))
        await take(client, 1)
        waiting = wait_for_more(client)
        await link.receive(DeliveryReceipt)
        link.cut()
        link = await server.online("e1:1")
        assert (await link.receive(DeliveryReceipt)).last_delivered_msg_id == "1001"
        await nothing_comes(link)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_what_is_stored_while_away_is_told_later() -> None:
    async with online(delivery_receipts=True) as (server, client, link):
        await link.send(message(1), message(2))
        await eventually(lambda: len(client._inbox) == 2)
        link.cut()
        await eventually(lambda: client.state.phase != "online")
        await take(client, 2)
        link = await server.online("e1:2")
        waiting = wait_for_more(client)
        told = await link.receive(DeliveryReceipt)
        while told.last_delivered_msg_id != "1002":
            assert told.last_delivered_msg_id == "1001"
            told = await link.receive(DeliveryReceipt)
        await nothing_comes(link)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_many_chats_are_told_in_turns() -> None:
    async with online(delivery_receipts=True) as (_, client, link):
        chats = [f"dm.alice.u{n}" for n in range(120)]
        await link.send(*[message(n + 1, chat_id=chat) for n, chat in enumerate(chats)])
        await take(client, 120)
        waiting = wait_for_more(client)
        told = [(await link.receive(DeliveryReceipt)).chat_id for _ in range(120)]
        assert sorted(told) == sorted(chats)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_the_others_receipts_come_and_can_be_asked_for() -> None:
    async with online() as (_, client, link):
        event = DeliveryReceiptEvent(
            chat_id=DM, user_id="bob", last_delivered_msg_id="1001", delivered_seq=1
        )
        await link.send(event)
        async with asyncio.timeout(10):
            assert await anext(client) == event
        asking = asyncio.create_task(client.receipts(DM))
        frame = await link.receive(Receipts)
        assert frame.chat_id == DM
        row = {
            "last_read_msg_id": None,
            "read_seq": 0,
            "last_delivered_msg_id": "7",
            "delivered_seq": 7,
        }
        await link.send(Result(id=frame.id, receipts={"bob": row}))
        wanted = {"bob": Receipt(last_delivered_msg_id="7", delivered_seq=7)}
        assert await asking == wanted
        listing = asyncio.create_task(client.chats())
        summary = {"chat_id": DM, "kind": "dm", "receipts": {"bob": row}}
        await link.send(Result(id=(await link.receive(Chats)).id, chats=[summary]))
        assert (await listing).chats[0].receipts == wanted
