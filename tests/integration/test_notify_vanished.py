"""A device that vanished without a word: what it cannot have got is pushed to the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chat import Chat, Clients, names
from tests.push_services import Browser
from tests.pushing import WITHIN_S, World
from tests.servers import eventually

pytestmark = pytest.mark.anyio

PING_S = 0.5
PONG_TIMEOUT_S = 2.0
PINGS = 5
"""Of which the last comes well after what was sent before the first."""


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    world = World(
        tmp_path_factory.mktemp("vanished"),
        HIKYAKU_PING_INTERVAL_S=str(PING_S),
        HIKYAKU_PONG_TIMEOUT_S=str(PONG_TIMEOUT_S),
    )
    async with world.running():
        yield world
        assert "Traceback" not in world.worker.process.log.read_text(errors="replace")


@asynccontextmanager
async def living(*clients: Chat) -> AsyncIterator[None]:
    """Meanwhile these answer every ping."""

    async def answer(client: Chat) -> None:
        while True:
            await client.send("pong")
            await asyncio.sleep(PING_S)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(each)) for each in clients]
        yield
        for each in tasks:
            each.cancel()


def skipped(world: World, reason: str = "online") -> float:
    return world.metric("notify_skipped_total", reason=reason)


async def passed(world: World, count: float) -> None:
    """Wait until so many were not pushed because the user was here."""
    await eventually(lambda: skipped(world) >= count)


def bodies(browser: Browser) -> list[str]:
    return [each["body"] for each in browser.got]


async def pushed(world: World, sender: Chat, to: str) -> None:
    """Wait until all that may be pushed of before now was: one more message to somebody away."""
    browser = await world.browser(to)
    await sender.say(to, "the last one")
    await eventually(lambda: bodies(browser) == ["the last one"])
    await world.settled()


@pytest.mark.parametrize("reads", [True, False])
async def test_what_came_before_the_edge_noticed_is_pushed_once(world: World, reads: bool) -> None:
    """Whether the client takes note of the end, or hears nothing at all any more."""
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b = await connect(world.site.edges[1], bob)
        if not reads:
            b.socket.transport.pause_reading()
        async with living(a):
            before = skipped(world)
            await a.say(bob, "into the void")
            await passed(world, before + 1)
            assert bodies(browser) == []
            assert not reads or (await b.closed())[0] == 4101
            await eventually(lambda: bodies(browser) == ["into the void"], within_s=WITHIN_S)
            await a.say(bob, "while away")
            await eventually(lambda: len(browser.got) == 2)
            assert bodies(browser) == ["into the void", "while away"]
            b.abort()


async def test_what_a_device_had_got_is_not_pushed(world: World) -> None:
    """It said so, or was heard afterwards, or took its leave."""
    alice, bob, carol, dave, eve = names("alice", "bob", "carol", "dave", "eve")
    browsers = [await world.browser(each) for each in (bob, carol, dave)]
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b, c, d = [await connect(world.site.edges[1], each) for each in (bob, carol, dave)]
        async with living(a):
            before = skipped(world)
            ack = await a.say(bob, "delivered")
            chat = {"chat_id": ack["chat_id"], "last_delivered_msg_id": ack["message_id"]}
            await b.send("delivery_receipt", **chat)
            await a.say(carol, "heard later")
            await a.say(dave, "until he left")
            await passed(world, before + 3)
            await d.close()
            for _ in range(PINGS):
                await c.until("ping")
                await c.send("pong")
            for each in (b, c):
                assert (await each.closed())[0] == 4101
            await eventually(lambda: skipped(world, "delivered") == 1, within_s=WITHIN_S)
            await pushed(world, a, eve)
        assert [bodies(each) for each in browsers] == [[], [], []]


async def test_a_connection_that_broke_is_looked_at_at_once(world: World) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    browsers = [await world.browser(each) for each in (bob, carol)]
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b = await connect(world.site.edges[1], bob)
        c, stays = [await connect(edge, carol) for edge in world.site.edges]
        async with living(a, stays):
            before = skipped(world)
            await a.say(bob, "lost")
            await a.say(carol, "there on another device")
            await passed(world, before + 2)
            b.abort()
            c.abort()
            await eventually(lambda: bodies(browsers[0]) == ["lost"])
            assert bodies(browsers[1]) == []
