"""The committer under random senders, duplicates and faults: no loss, no double, order by sender.

A failure prints its seed; `HIKYAKU_TEST_SEED=<seed>` makes the first run repeat the same choices.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from bench.proxy import Direction, Proxy
from broker import committer as committer_module
from broker.bus import Bus
from broker.committer import Committed, Committer, Outcome
from broker.errors import BrokerError, Overloaded, Unavailable
from broker.log import Log
from tests.brokers import all_events, make_bus, prepare
from tests.servers import Nats

pytestmark = pytest.mark.anyio

RUNS = 2
TURNS = 250
SENDERS = 12
EDGES = 2


class Submission:
    """One call of `submit`. The payload tells it from other submissions of the same message."""

    def __init__(self, edge: int, sender: int, number: int, payload: bytes):
        self.edge = edge
        self.sender = sender
        self.number = number
        self.payload = payload
        self.outcomes: list[Outcome] = []

    @property
    def msg_id(self) -> str:
        return f"{self.sender}-{self.number}"

    @property
    def committed(self) -> Committed | None:
        return next((each for each in self.outcomes if isinstance(each, Committed)), None)


class Sender(NamedTuple):
    """Numbers its messages. Its first attempts all go to one edge, in order."""

    number: int
    edge: int
    firsts: list[Submission]


class World:
    """Two edges with a committer each, behind one proxy to one server."""

    def __init__(self, seed: int, nats: Nats, proxy: Proxy, committers: list[Committer]):
        self.random = random.Random(seed)
        self.nats = nats
        self.proxy = proxy
        self.committers = committers
        self.senders = [Sender(number, number % EDGES, []) for number in range(SENDERS)]
        self.submissions: list[Submission] = []
        self.refused = 0
        self.over = False
        self.elsewhere: set[str] = set()
        """Messages that were repeated on another edge: their order is the client's doing."""

    # --- what senders do ---

    def send(self) -> None:
        sender = self.random.choice(self.senders)
        for _ in range(self.random.choice((1, 1, 2, 30))):
            submission = self._submit(sender.edge, sender.number, len(sender.firsts))
            if submission is None:
                return
            sender.firsts.append(submission)

    def repeat(self) -> None:
        """Like a client that saw no acknowledgement: any message, old or under way."""
        sender = self.random.choice(self.senders)
        if sender.firsts:
            recent = self.random.choice((1, 5, 1000))
            first = self.random.choice(sender.firsts[-recent:])
            edge = self.random.choice((sender.edge, sender.edge, sender.edge, 1 - sender.edge))
            if edge != sender.edge:
                self.elsewhere.add(first.msg_id)
            self._submit(edge, sender.number, first.number)

    def _submit(self, edge: int, sender: int, number: int) -> Submission | None:
        payload = b"%d" % len(self.submissions) + b"." * self.random.choice((0, 100, 5000))
        submission = Submission(edge, sender, number, payload)
        try:
            self.committers[edge].submit(
                f"group.{sender % 5}",
                payload,
                msg_id=submission.msg_id,
                done=submission.outcomes.append,
            )
        except (Unavailable, Overloaded):
            self.refused += 1
            return None
        self.submissions.append(submission)
        return submission

    # --- what befalls them ---

    async def fault(self) -> None:
        kind = self.random.choice(
            ("reset", "reset", "hold", "hold", "drop", "drop", "delay", "late", "kill", "refuse")
        )
        proxy = self.proxy
        direction = self.random.choice((proxy.up, proxy.down))
        match kind:
            case "hold":
                direction.hold()
                await self._for_a_while(0.8)
            case "drop":
                direction.drop(after_bytes=self.random.choice((0, 0, 100, 5000)))
                await self._for_a_while(0.5)
                proxy.reset()
            case "delay":
                direction.delay_s = self.random.uniform(0, 0.05)
                await self._for_a_while(0.5)
            case "late":
                proxy.up.hold()
                await self._for_a_while(0.2)
                late, proxy.up = proxy.up, Direction()
                proxy.cut()
                await self._for_a_while(0.5)
                late.release()
            case "kill":
                self.nats.process.kill()
                await self._for_a_while(0.5)
                await self.nats.start()
            case "refuse":
                proxy.sever()
                await self._for_a_while(0.5)
            case _:
                proxy.reset()
        proxy.clear()

    async def _for_a_while(self, at_most_s: float) -> None:
        await asyncio.sleep(self.random.uniform(0, at_most_s))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            faults = group.create_task(self._faults())
            for _ in range(TURNS):
                for _ in range(self.random.choice((0, 1, 4))):
                    self.random.choice((self.send, self.send, self.repeat))()
                await self._for_a_while(0.02)
            self.over = True
            await faults

    async def _faults(self) -> None:
        while not self.over:
            await self._for_a_while(0.3)
            await self.fault()

    # --- what must hold ---

    async def check(self, truth: Bus) -> None:
        log = await all_events(truth)
        ids = [each.msg_id for each in log]
        assert len(ids) == len(set(ids)), "stored twice"
        by_seq = {each.seq: each for each in log}
        for each in self.submissions:
            (outcome,) = each.outcomes
            if isinstance(outcome, Committed):
                stored = by_seq[outcome.seq]
                assert stored.msg_id == each.msg_id
                assert stored.data == (outcome.first or each.payload)
            else:
                assert isinstance(outcome, BrokerError)
                assert outcome.retryable, outcome
        submitted = {each.msg_id for each in self.submissions}
        assert set(ids) <= submitted
        for sender in self.senders:
            in_order = [
                each.committed.seq
                for each in sender.firsts
                if each.committed is not None and each.msg_id not in self.elsewhere
            ]
            assert in_order == sorted(in_order), f"order of sender {sender.number}"


@pytest.mark.parametrize("run", range(RUNS))
async def test_nothing_is_lost_doubled_or_out_of_order(
    nats: Nats, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("HIKYAKU_TEST_SEED", random.randrange(2**32))) + run
    print(f"HIKYAKU_TEST_SEED={seed}")
    monkeypatch.setattr(committer_module, "ATTEMPT_S", 0.25)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        proxy = await enter(Proxy(nats.port))
        truth = await enter(make_bus(nats.url, "truth"))
        await prepare(truth)
        committers = []
        for number in range(EDGES):
            bus = await enter(make_bus(proxy.url, f"edge {number}"))
            await bus.wait_connected(10)
            committers.append(await enter(Committer(bus, Log(bus))))
        world = World(seed, nats, proxy, committers)
        await world.run()
        for each in committers:
            await each.drain(30)
        await truth.wait_connected(10)
        await world.check(truth)
        acknowledged = sum(each.committed is not None for each in world.submissions)
        retries = sum(each.retries for each in committers)
        print(f"{len(world.submissions)} submitted, {acknowledged} acknowledged, {retries} retries")
        assert acknowledged > len(world.submissions) / 2
