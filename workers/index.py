"""Carries the log into the search index: what events name, as MongoDB has it.

A batch waits until `persist` has it, is written as the messages are then (`workers.settle`), and is
acknowledged when the server says that it can be found. Any number of processes may share the work,
and any may be killed anywhere: what was not acknowledged comes again, and does no harm. While the
server is away or has too much to do, the batch stays in hand and no other is fetched.

What cannot be read here `persist` has put to the dead letters already.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import Metric

from broker import consumer, events
from broker.bus import Bus
from broker.consumer import Delivery, Lag, Puller, durable, progress
from broker.dead import DeadLetters
from broker.errors import BrokerError
from broker.following import Following, trace_of
from broker.log import STREAM
from broker.metrics import Spread, counter, gauge, histogram
from broker.streams import ensure
from search.errors import SearchError
from search.indexes import Indexes
from store.documents import number
from store.errors import StoreError
from store.searchable import SearchNumbers

from . import persist
from .index_house import IndexHouse
from .settle import Settled, Settler

BATCH = 2000
ACK_WAIT_S = 10.0
"""What a killed process had in hand comes again after this; a living one says that it works."""

SMALL_BATCH = 500
GATHER_S = 0.3
"""Pause after a small batch, so that the next one is larger: each is a commit of the index."""

MAX_TASKS = 100
"""With so many tasks unfinished on the server, no more are given to it."""

WORKING_S = 4.0
WATCH_S = 1.0
PERSISTED_S = 30.0
PERSISTED_POLL_S = 0.02
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 5.0
CALM_S = 1.0
"""Between a failure and the next write: what the server still had of the failed one goes first."""


NAME = "index"
CONSUMER = durable(STREAM, NAME, ack_wait_s=ACK_WAIT_S)

_log = logging.getLogger("hikyaku.index")


class NotYet(StoreError):
    """What is to be indexed is not in MongoDB yet."""

    retryable = True


class IndexWorker:
    """One process of the service. `run` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        settler: Settler,
        *,
        indexes: Indexes,
        numbers: SearchNumbers,
        house: IndexHouse,
        dead: DeadLetters,
        following: Following | None = None,
    ):
        self._bus = bus
        self._settler = settler
        self._indexes = indexes
        self._numbers = numbers
        self._house = house
        self._dead = dead
        self._following = following
        self._puller = Puller(bus, CONSUMER)
        self._held: list[Delivery] = []
        self._held_since = 0.0
        self._delays = Spread()
        self._lag = Lag()
        self.indexed = 0
        self.dead_lettered = 0
        self.retries = 0
        self.tasks = 0

    async def run(self) -> None:
        """Fetch, write, acknowledge; back off while something does not answer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work())
                group.create_task(self._watch())
                group.create_task(self._house.run())
        finally:
            self._puller.close()
            self._give_back()

    async def _work(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                deliveries = await self._puller.fetch(BATCH)
                self._hold(deliveries)
                await self._index(deliveries)
                self._hold([])
                pause_s = FIRST_PAUSE_S
                if len(deliveries) < SMALL_BATCH:
                    await asyncio.sleep(GATHER_S)
            except BrokerError as error:
                self._give_back()
                pause_s = await self._back_off(error, pause_s)
                with suppress(BrokerError):
                    await ensure(self._bus, [], [CONSUMER])

    async def _back_off(self, error: Exception, pause_s: float) -> float:
        """Say what is wrong and wait; how long the next time."""
        _log.warning("not indexed, next try in %g s: %s", pause_s, error)
        self.retries += 1
        await asyncio.sleep(pause_s)
        return min(pause_s * 2, LAST_PAUSE_S)

    async def _index(self, deliveries: list[Delivery]) -> None:
        about = [(message_in(each.subject, each.data), each) for each in deliveries]
        about.sort(key=lambda each: each[1].seq)
        newest = {message: each for message, each in about if message is not None}
        settled = Settled({}, set())
        if newest:
            settled = await self._settled(newest)
        for message, why in settled.refused.items():
            await self._bury(newest[message], f"message {message} was refused: {why}")
        self._puller.give_back([each for message, each in about if message in settled.unsure])
        deliveries = [each for message, each in about if message not in settled.unsure]
        self._puller.ack(deliveries)
        now_ns = time.time_ns()
        self._delays.add_all((now_ns - each.stored_ns) / 1e9 for each in deliveries)
        self.indexed += len(deliveries)
        if self._following is not None:
            for message in newest.keys() - settled.refused.keys() - settled.unsure:
                self._following.step(
                    "indexed",
                    message,
                    trace=trace_of(newest[message].header),
                    took_s=time.monotonic() - self._held_since,
                    seq=newest[message].seq,
                )

    async def _settled(self, newest: dict[int, Delivery]) -> Settled:
        """Write until the index has them: the batch stays in hand while something is away."""
        last = max(each.seq for each in newest.values())
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._persisted(last)
                await self._room()
                if pause_s > FIRST_PAUSE_S:
                    await asyncio.sleep(CALM_S)
                # Read when all this is in MongoDB: what is being built from then on, has it.
                numbers = await self._numbers.read()
                return await self._settler.settle(newest, numbers.all)
            except (SearchError, StoreError) as error:
                pause_s = await self._back_off(error, pause_s)

    async def _persisted(self, seq: int) -> None:
        """Wait until MongoDB has all up to `seq`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PERSISTED_S
        while not (await progress(self._bus, persist.CONSUMER, to=seq)).reached(seq):
            if loop.time() > deadline:
                raise NotYet(f"MongoDB is behind by over {PERSISTED_S:g} s: does `persist` run?")
            await asyncio.sleep(PERSISTED_POLL_S)

    async def _room(self) -> None:
        """Wait while the server has too many tasks."""
        while (tasks := await self._indexes.waiting()) > MAX_TASKS:
            self.tasks = tasks
            await asyncio.sleep(WATCH_S)
        self.tasks = tasks

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        _log.error("event %d on %s: %s", delivery.seq, delivery.subject, reason)
        await self._dead.bury(NAME, delivery, reason)
        self.dead_lettered += 1

    # --- beside ---

    def _hold(self, deliveries: list[Delivery]) -> None:
        self._held, self._held_since = deliveries, time.monotonic()

    def _give_back(self) -> None:
        with suppress(BrokerError):
            self._puller.give_back(self._held)
        self._hold([])

    async def _watch(self) -> None:
        """Know how much waits, and tell the log what is still being worked on."""
        while True:
            with suppress(BrokerError):
                self._lag = await consumer.lag(self._bus, CONSUMER)
                if self._held and time.monotonic() - self._held_since > WORKING_S:
                    self._puller.working(self._held)
            await asyncio.sleep(WATCH_S)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from consumer.metrics(
            NAME, self._lag, retries=self.retries, buried=self.dead_lettered
        )
        yield counter("hikyaku_index_events_total", "Events carried to the index.", self.indexed)
        documents = {"put": self._settler.put, "removed": self._settler.removed}
        text = "Documents that the search server was told to change."
        yield counter("hikyaku_index_changes_total", text, documents, "change")
        text = "Unfinished tasks of the search server."
        yield gauge("hikyaku_index_server_tasks", text, self.tasks)
        text = "Time from the log until a message can be found."
        yield histogram("hikyaku_index_delay_seconds", text, self._delays)
        yield from self._house.metrics()


def message_in(subject: str, data: bytes) -> int | None:
    """The message whose document an event changes, if it does."""
    try:
        event = persist.decoded(subject, data)
        if isinstance(event, events.Message | events.MessageEdited | events.MessageDeleted):
            return int(number(event.id))
    except ValueError:
        pass
    return None
