"""kill -9 of `notify`, and of what it needs, while pushes flow: none is missed, none sent twice but
what a provider had taken in the moment of the kill.

`HIKYAKU_TEST_ROUNDS` (4) kills; the seed is printed.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker import events
from broker.committer import Committed, Committer, Outcome
from broker.log import Log
from tests.chat import Clients, names
from tests.mirror import message, until
from tests.push_server import Fault, Reply, Request
from tests.pushing import World
from tests.servers import eventually

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("HIKYAKU_TEST_ROUNDS", "4"))
TIMEOUT_S = 2.0
LEASE_S = 4.0
PATIENT_TIMEOUT_S = 12.0
PATIENT_LEASE_S = 16.0
"""Longer than a shared machine takes to answer, and to write down what was done: a push whose
answer does not come in time is sent again, and that is not what the test counts."""

CONCURRENCY = 50


def made(folder: Path, timeout_s: float, lease_s: float) -> World:
    return World(folder, lease_s=lease_s, HIKYAKU_PUSH_TIMEOUT_S=f"{timeout_s:g}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with made(tmp_path, TIMEOUT_S, LEASE_S).running() as world:
        yield world


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[World]:
    async with made(tmp_path, PATIENT_TIMEOUT_S, PATIENT_LEASE_S).running() as world:
        yield world


class Taken:
    """What Apple took, by device and message, and when."""

    def __init__(self, world: World):
        self._world = world
        self.at: dict[tuple[str, str], list[float]] = {}
        self.slow_s = 0.0

    async def more(self, count: int) -> None:
        """Wait for as many more."""
        wanted = len(self.at) + count
        await eventually(lambda: len(self.at) >= wanted, within_s=60)

    def special(self, device: str) -> None:
        async def take(request: Request) -> Reply | Fault:
            key = (device, request.headers["apns-id"])
            self.at.setdefault(key, []).append(time.monotonic())
            await asyncio.sleep(self.slow_s)
            return Reply(200)

        self._world.apns.specials[device] = take


async def test_killed_at_random_while_pushes_flow(patient: World) -> None:
    world = patient
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    users = list(names(*(f"user{number}" for number in range(20))))
    taken = Taken(world)
    taken.slow_s = 0.02
    for number, user in enumerate(users):
        device = f"{number:064x}"
        taken.special(device)
        await world.register(user, "phone", "apns", token=device)
    second = world.add_worker()
    await second.start()
    sent: list[Outcome] = []
    kills: list[float] = []
    async with Committer(world.bus, Log(world.bus)) as committer:

        async def flow() -> None:
            while True:
                event = message("sender", chance.choice(users), "hello")
                data = events.encode(event)
                committer.submit(event.chat_id, data, msg_id=uuid4().hex, done=sent.append)
                await asyncio.sleep(0.005)

        flowing = asyncio.create_task(flow())
        try:
            for _ in range(ROUNDS):
                await taken.more(chance.randrange(20, 120))
                victim = chance.choice(world.workers)
                victim.process.kill()
                kills.append(time.monotonic())
                await victim.start()
        finally:
            flowing.cancel()
            await asyncio.wait([flowing])
        await committer.drain(30)
    assert all(isinstance(each, Committed) for each in sent)

    async def all_there() -> bool:
        return len(taken.at) == len(sent)

    await until(all_there)
    await world.settled()
    twice = [times for times in taken.at.values() if len(times) > 1]
    print(f"{len(sent)} messages, {len(kills)} kills, {len(twice)} sent twice")
    assert len(taken.at) == len(sent), "each message was pushed"
    assert len(twice) <= len(kills) * CONCURRENCY
    for times in twice:
        first, *_, last = times
        # It was on its way when the worker was killed: the provider takes 20 ms to answer.
        assert any(first - 0.1 < kill < first + PATIENT_LEASE_S / 2 for kill in kills), (
            times,
            kills,
        )
        assert last - first > PATIENT_LEASE_S / 2, "not before its lease ended"


async def test_killed_before_the_answer_it_is_sent_again(world: World) -> None:
    (bob,) = names("bob")
    device = "aa" * 32
    await world.register(bob, "phone", "apns", token=device)
    asked: list[str] = []

    def hang(request: Request) -> Fault:
        asked.append(request.headers["apns-id"])
        return Fault.HANG

    world.apns.specials[device] = hang
    event = message("alice", bob, "hello")
    await world.commit(event.chat_id, events.encode(event))
    await eventually(lambda: len(asked) == 1)
    world.worker.process.kill()
    del world.apns.specials[device]
    await world.worker.start()
    await world.settled()
    assert [head["apns-id"] for _, head, _ in world.apns.taken] == asked


async def test_what_was_pushed_is_not_pushed_when_the_log_says_it_again(world: World) -> None:
    """A worker that is killed after planning and before it has acknowledged."""
    (bob,) = names("bob")
    await world.register(bob, "phone", "apns", token="ab" * 32)
    event = message("alice", bob, "hello")
    await world.commit(event.chat_id, events.encode(event))
    await world.settled()
    assert len(world.apns.taken) == 1
    # The same message once more in the log, past its window of duplicates.
    await world.commit(event.chat_id, events.encode(event))
    await world.settled()
    assert len(world.apns.taken) == 1


async def test_read_within_the_wait_on_another_device(tmp_path: Path) -> None:
    async with World(tmp_path, HIKYAKU_PUSH_WAIT_S="2").running() as world:
        alice, bob = names("alice", "bob")
        browser = await world.browser(bob)
        async with Clients() as connect:
            a = await connect(world.site.edges[0], alice)
            ack = await a.say(bob, "read at once")
            b = await connect(world.site.edges[1], bob)
            await b.ask("read_receipt", chat_id=ack["chat_id"], last_read_msg_id=ack["message_id"])
            await b.close()
            await world.settled()
            assert browser.got == []
            assert (
                world.metric("notify_skipped_total", reason="read")
                + world.metric("notify_skipped_total", reason="online")
                == 1
            )
            began = time.monotonic()
            await a.say(bob, "not read")
            await eventually(lambda: len(browser.got) == 1)
            assert time.monotonic() - began >= 2.0


async def test_users_of_an_edge_that_died_are_told_when_it_is_known(tmp_path: Path) -> None:
    async with World(tmp_path, HIKYAKU_PRESENCE_LEASE_S="3").running() as world:
        alice, bob, carol = names("alice", "bob", "carol")
        browsers = {user: await world.browser(user) for user in (bob, carol)}
        async with Clients() as connect:
            a = await connect(world.site.edges[0], alice)
            await connect(world.site.edges[0], carol)
            b = await connect(world.site.edges[1], bob)
            ack = await a.say(bob, "here")
            chat = {"chat_id": ack["chat_id"], "last_read_msg_id": ack["message_id"]}
            assert (await b.ask("read_receipt", **chat))["type"] == "result"
            await world.settled()
            world.site.edges[1].process.kill()
            await a.say(bob, "into the void")
            await a.say(carol, "to who is here")

            async def decided() -> bool:
                return world.metric("notify_skipped_total", reason="online") == 3

            await until(decided)
            assert browsers[bob].got == [], "his edge still holds its lease"
            await eventually(lambda: len(browsers[bob].got) == 1)
            await world.settled()
            assert [each["body"] for each in browsers[bob].got] == ["into the void"]
            assert browsers[carol].got == []
            b.abort()


async def test_nats_and_mongod_come_back(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        await a.say(bob, "before")
        await world.settled()
        world.site.mongo.process.kill()
        await a.say(bob, "while MongoDB is away")
        await world.site.mongo.start()
        await world.settled()
        assert [each["body"] for each in browser.got] == ["before", "while MongoDB is away"]
        world.site.nats.process.kill()
        await world.site.nats.start()

        async def again() -> bool:
            ack = await a.write("chat", to=bob, content="after")
            return bool(ack["type"] == "ack")

        await until(again)
        await world.settled()
        assert "after" in [each["body"] for each in browser.got]


async def test_a_provider_that_is_down_is_left_alone_and_gets_all_later(world: World) -> None:
    users = names(*["bob"] * 30)
    for number, user in enumerate(users):
        await world.register(user, "phone", "apns", token=f"{number:064x}")
    await world.apns.stop()
    async with Clients() as connect:
        a = await connect(world.site.edges[0], *names("alice"))
        for user in users:
            await a.say(user, "hello")

        async def broken() -> bool:
            return world.metric("push_broken_servers", provider="apns") == 1

        await until(broken)
        assert world.metric("push_results_total", provider="apns", result="sent") == 0
        async with world.apns:
            await world.settled()
            assert len(world.apns.taken) == 30
            assert world.metric("push_broken_servers", provider="apns") == 0
