"""kill -9 of the workers and of mongod while events flow: MongoDB ends as the log, event by event.

`HIKYAKU_TEST_ROUNDS` (5) kills, `HIKYAKU_TEST_RATE` (300) events a second; the seed is printed.
"""

import asyncio
import os
import random
import time
from uuid import uuid4

import pytest

from broker import directory, events, query, subjects
from broker.bus import Bus
from broker.committer import Committed, Committer, Outcome
from broker.errors import BrokerError
from broker.log import Log
from broker.requests import Failure, ask
from store import documents
from store.config import StoreConfig
from store.database import Database, connect
from tests.brokers import make_bus
from tests.mirror import (
    assert_mirrors,
    deleted,
    edited,
    expected,
    log_entries,
    message,
    reaction,
    until,
    until_persisted,
)
from tests.servers import Hikyaku, Mongo, Site

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("HIKYAKU_TEST_ROUNDS", "5"))
RATE = int(os.environ.get("HIKYAKU_TEST_RATE", "300"))
TICK_S = 0.02
PAIRS = 20


class Flow:
    """Messages and changes of any earlier message, straight into the log, at a steady rate."""

    def __init__(self, bus: Bus, chance: random.Random):
        self._bus = bus
        self._chance = chance
        self._said: list[events.Chat] = []
        self.committed = 0
        self.failed: list[Outcome] = []

    async def run(self) -> None:
        """Until cancelled; then what was on its way is committed."""
        began, sent = time.monotonic(), 0
        async with Committer(self._bus, Log(self._bus)) as committer:
            try:
                while True:
                    due = int((time.monotonic() - began) * RATE)
                    for event in (self._next() for _ in range(due - sent)):
                        committer.submit(
                            event.chat_id, events.encode(event), msg_id=uuid4().hex, done=self._done
                        )
                    sent = due
                    await asyncio.sleep(TICK_S)
            finally:
                await committer.drain(30)

    def _done(self, outcome: Outcome) -> None:
        if isinstance(outcome, Committed):
            self.committed += 1
        else:
            self.failed.append(outcome)

    def _next(self) -> events.Message | events.Change:
        chance = self._chance
        if self._said and chance.random() < 0.4:
            subject = chance.choice(self._said[-200:])
            match chance.randrange(5):
                case 0:
                    return deleted(subject)
                case 1 | 2:
                    return edited(subject, f"edit {chance.random()}")
                case _:
                    by = chance.choice((subject.from_, subject.to))
                    emoji = chance.choice(("+1", "👍"))
                    return reaction(subject, by, emoji, removed=chance.random() < 0.3)
        pair = chance.randrange(PAIRS)
        said = message(f"alice{pair}", f"bob{pair}", f"message {len(self._said)}")
        self._said.append(said)
        return said


class Groups:
    """Keeps on creating groups and changing who is in them, as clients that try again."""

    def __init__(self, bus: Bus):
        self._bus = bus
        self.changes = 0

    async def run(self) -> None:
        for number in range(10**6):
            group = f"group{number}"
            create = directory.Create(
                by="owner", client_id=group, name=group, members=["a", "b"], kind="group"
            )
            create.group_id = group
            await self._until_done("create", create)
            add = directory.Add(by="owner", group_id=group, users=["c", "d"])
            await self._until_done("add", add)
            remove = directory.Remove(by="owner", group_id=group, users=["a", "c"])
            await self._until_done("remove", remove)

    async def _until_done(self, verb: str, question: object) -> None:
        while True:
            try:
                await ask(self._bus, directory.SERVICE, verb, question, directory.Changed, 2)
                self.changes += 1
                return
            except Failure as failure:
                if not failure.retryable:
                    raise
            except BrokerError:
                pass
            await asyncio.sleep(TICK_S)


async def assert_groups_were_told(bus: Bus, database: Database) -> None:
    """Who is in each group by the events of the log is who is in it by MongoDB."""
    told: dict[str, set[str]] = {}
    seq, pending = 1, 1
    while pending:
        page = await Log(bus).read("user.*", seq)
        for stored in page.events:
            event = events.decode(stored.data)
            if isinstance(event, events.MemberAdded):
                told.setdefault(event.group_id, set()).update(event.users)
            elif isinstance(event, events.MemberRemoved):
                told[event.group_id] -= set(event.users)
        pending = page.pending
        seq = page.events[-1].seq + 1 if page.events else seq
    members: dict[str, set[str]] = {}
    async for each in database["members"].find():
        members.setdefault(each["group"], set()).add(each["user"])
    assert told == members


async def assert_history_agrees(bus: Bus) -> None:
    """What clients are told of the last messages of each chat is what the log says."""
    wanted = expected(await log_entries(bus)).values()
    for pair in range(PAIRS):
        chat = subjects.dm(f"alice{pair}", f"bob{pair}")
        question = query.History(chat_id=chat, limit=50)
        page = await ask(bus, query.SERVICE, "history", question, query.Page, 20)
        mine = sorted((d for d in wanted if d["chat"] == chat), key=lambda d: -d["seq"])
        assert page.messages == [documents.view(each) for each in mine[:50]]


async def test_killed_at_random_while_events_flow(site: Site) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    victims: dict[str, Hikyaku | Mongo] = {
        "persist": site.persist,
        "query": site.query,
        "directory": site.worker,
        "mongod": site.mongo,
    }
    plan = [name for _ in range(-(-ROUNDS // 4)) for name in chance.sample(list(victims), 4)]
    async with (
        make_bus(site.nats.url) as bus,
        connect(StoreConfig(url=site.mongo.url)) as database,
    ):
        await bus.wait_connected(10)
        flow, groups = Flow(bus, chance), Groups(bus)
        began = time.monotonic()
        running = [asyncio.create_task(flow.run()), asyncio.create_task(groups.run())]

        async def more(events: int) -> None:
            wanted = flow.committed + events

            async def there() -> bool:
                assert not any(task.done() for task in running), running
                return flow.committed >= wanted

            await until(there)

        try:
            for name in plan[:ROUNDS]:
                await more(chance.randrange(RATE // 10, RATE // 2))
                victim = victims[name]
                victim.process.kill()
                await more(chance.randrange(RATE // 10, RATE // 2))
                await victim.start()
            await more(RATE // 2)
        finally:
            taken_s = time.monotonic() - began
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        await until_persisted(bus, within_s=120)

        async def all_told() -> bool:
            return bool(await database["outbox"].count_documents({}) == 0)

        await until(all_told)
        count = await assert_mirrors(bus, database)
        print(f"{count} events at {flow.committed / taken_s:.0f}/s, killed: {plan[:ROUNDS]}")
        assert not flow.failed
        assert count >= flow.committed
        assert groups.changes > 0
        await assert_groups_were_told(bus, database)
        await assert_history_agrees(bus)
        dead = await database["messages"].count_documents({"chat": {"$exists": False}})
        assert dead == 0, "a change whose message never came"
