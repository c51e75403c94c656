"""kill -9 of the workers and of mongod while events flow: MongoDB ends as the log, event by event.

`under_fire` is the part for tests: it takes any faults. The scenario kills processes of a stack
whose supervisor restarts them.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

from broker import directory, events, query, subjects
from broker.bus import Bus
from broker.committer import Committed, Committer, Outcome
from broker.consumer import progress
from broker.dead import DeadLetters
from broker.errors import BrokerError
from broker.log import Log
from broker.requests import Failure, ask
from store import documents
from store.database import Database, connect
from workers.persist import CONSUMER

from . import scenario
from .faults import Fault, process_faults
from .mirror import compare, deleted, edited, expected, log_entries, message, reaction
from .past import servers
from .scenario import BenchError, Context, Scenario

RATE = 1000
ROUNDS = 20
PAIRS = 20
TICK_S = 0.02
DEADLINE_S = 120.0
PAUSE_S = (0.5, 2.5)
VICTIMS = ("mongod", "worker directory", "worker persist", "worker query")


class Result(NamedTuple):
    """What came out: events compared, how many a second were stored, changes of groups made."""

    compared: int
    per_s: float
    group_changes: int
    caught_up_s: float


class Flow:
    """Messages, and changes of any of the last ones, straight into the log at a steady rate."""

    def __init__(self, bus: Bus, run: str, rate: float, chance: random.Random):
        self._bus = bus
        self._run = run
        self._rate = rate
        self._chance = chance
        self._said: list[events.Chat] = []
        self.committed = 0
        self.failed: list[Outcome] = []

    @property
    def chats(self) -> list[str]:
        """The chats that are written to."""
        return [subjects.dm(*self._pair(number)) for number in range(PAIRS)]

    async def run(self) -> None:
        """Until cancelled; then what was on its way is committed."""
        began, sent = time.monotonic(), 0
        async with Committer(self._bus, Log(self._bus)) as committer:
            try:
                while True:
                    due = int((time.monotonic() - began) * self._rate)
                    for event in (self._next() for _ in range(due - sent)):
                        data = events.encode(event)
                        committer.submit(event.chat_id, data, msg_id=uuid4().hex, done=self._done)
                    sent = due
                    await asyncio.sleep(TICK_S)
            finally:
                await committer.drain(30)

    def _done(self, outcome: Outcome) -> None:
        if isinstance(outcome, Committed):
            self.committed += 1
        else:
            self.failed.append(outcome)

    def _pair(self, number: int) -> tuple[str, str]:
        return f"alice{number}-{self._run}", f"bob{number}-{self._run}"

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
        said = message(*self._pair(chance.randrange(PAIRS)), f"message {len(self._said)}")
        self._said.append(said)
        return said


class Groups:
    """Keeps on creating groups and changing who is in them, as clients that try again."""

    def __init__(self, bus: Bus, run: str):
        self._bus = bus
        self._prefix = f"group-{run}-"
        self.changes = 0

    async def run(self) -> None:
        """Until cancelled."""
        for number in itertools.count():
            group = f"{self._prefix}{number}"
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

    async def compare(self, database: Database, since: int) -> None:
        """Who is in each group by the events of the log is who is in it by MongoDB."""
        told: dict[str, set[str]] = {}
        seq, pending = since, 1
        while pending:
            page = await Log(self._bus).read("user.*", seq)
            for stored in page.events:
                event = events.decode(stored.data)
                if isinstance(event, events.MemberAdded):
                    told.setdefault(event.group_id, set()).update(event.users)
                elif isinstance(event, events.MemberRemoved):
                    told[event.group_id] -= set(event.users)
            pending = page.pending
            seq = page.events[-1].seq + 1 if page.events else seq
        told = {group: users for group, users in told.items() if group.startswith(self._prefix)}
        members: dict[str, set[str]] = {}
        async for each in database["members"].find({"group": {"$regex": f"^{self._prefix}"}}):
            members.setdefault(each["group"], set()).add(each["user"])
        if told != members:
            raise BenchError("who is in a group differs between log and MongoDB")


async def under_fire(
    bus: Bus,
    database: Database,
    plan: Sequence[Fault],
    *,
    run: str,
    rate: float,
    chance: random.Random,
    pause_s: tuple[float, float] = (0.1, 0.5),
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Let events flow through all faults, wait until MongoDB has them, and compare.

    Before and after each fault they flow for a time between those of `pause_s`. Raises `BenchError`
    for anything that differs.
    """
    since = (await Log(bus).state()).last_seq + 1
    flow, groups = Flow(bus, run, rate, chance), Groups(bus, run)
    began = time.monotonic()
    running = [asyncio.create_task(flow.run()), asyncio.create_task(groups.run())]

    async def more(count: float) -> None:
        wanted = flow.committed + count

        async def there() -> bool:
            for task in running:
                if task.done():
                    task.result()
            return flow.committed >= wanted

        await _until(there, "the events do not flow")

    try:
        for number, fault in enumerate(plan, 1):
            say(f"kill -9 {fault.name}, {number} of {len(plan)}")
            await more(chance.uniform(*pause_s) * rate)
            fault.strike()
            await more(chance.uniform(*pause_s) * rate)
            await _until(fault.healed, f"{fault.name} is not back")
        await more(rate / 2)
    finally:
        taken_s = time.monotonic() - began
        for task in running:
            task.cancel()
        await asyncio.wait(running)
    say("catching up")
    ended = time.monotonic()
    last = (await Log(bus).state()).last_seq
    await _until(lambda: _persisted(bus, last), "MongoDB is behind the log")
    caught_up_s = time.monotonic() - ended

    async def all_told() -> bool:
        return bool(await database["outbox"].count_documents({}) == 0)

    await _until(all_told, "the outbox is not told")
    say("comparing")
    if flow.failed:
        raise BenchError(f"{len(flow.failed)} events were not stored: {flow.failed[0]}")
    compared = await compare(bus, database, since=since, chats=flow.chats)
    if compared < flow.committed:
        raise BenchError(f"only {compared} of {flow.committed} events are in the log")
    await groups.compare(database, since)
    await _compare_history(bus, flow.chats, since)
    if dead := [each for each in await DeadLetters(bus).all() if each.seq >= since]:
        raise BenchError(f"{len(dead)} events are dead letters: {dead[0].reason}")
    stray = {"chat": {"$exists": False}, "of": {"$in": flow.chats}}
    if left := await database["messages"].count_documents(stray):
        raise BenchError(f"{left} changes whose message never came")
    return Result(compared, flow.committed / taken_s, groups.changes, caught_up_s)


async def _persisted(bus: Bus, seq: int) -> bool:
    try:
        return (await progress(bus, CONSUMER, to=seq)).reached(seq)
    except BrokerError:
        return False


async def _until(check: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await check():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {DEADLINE_S:g} s: {what}")
        await asyncio.sleep(TICK_S)


async def _compare_history(bus: Bus, chats: list[str], since: int) -> None:
    """What clients are told of the last messages of each chat is what the log says."""
    wanted = expected(await log_entries(bus, since)).values()
    for chat in chats:
        question = query.History(chat_id=chat, limit=50)
        page = await ask(bus, query.SERVICE, "history", question, query.Page, 20)
        mine = sorted((d for d in wanted if d["chat"] == chat), key=lambda d: -d["seq"])
        if page.messages != [documents.view(each) for each in mine[:50]]:
            raise BenchError(f"history of {chat} is not what the log says")


async def persist_faults(context: Context) -> scenario.Outcome:
    """`ROUNDS` kills at `RATE` events a second, each victim as often as the others."""
    where = servers(context)
    faults = {each.name: each for each in process_faults(context.target)}
    if absent := [name for name in VICTIMS if name not in faults]:
        raise BenchError(f"the stack has no {', '.join(absent)} of its own")
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    turns = int(context.scaled(ROUNDS, len(VICTIMS))) // len(VICTIMS)
    plan = [faults[name] for _ in range(turns) for name in chance.sample(VICTIMS, len(VICTIMS))]
    async with (
        Bus(where.broker, name="bench") as bus,
        connect(where.store) as database,
    ):
        await bus.wait_connected(10)
        result = await under_fire(
            bus,
            database,
            plan,
            run=context.run,
            rate=RATE,
            chance=chance,
            pause_s=PAUSE_S,
            say=context.say,
        )
    return scenario.Outcome(
        metrics={
            "persist_faults_events": float(result.compared),
            "persist_faults_differ": 0.0,
        },
        notes={
            "seed": seed,
            "rounds": len(plan),
            "stored_per_s": round(result.per_s),
            "changes_of_groups": result.group_changes,
            "caught_up_after_s": round(result.caught_up_s, 1),
            "killed": ", ".join(each.name for each in plan),
        },
    )


SCENARIOS = [
    Scenario(
        name="persist-faults",
        title=f"kill -9 of workers and mongod at {RATE:,} events/s",
        expected_s=(150, 40),
        run=persist_faults,
    )
]
