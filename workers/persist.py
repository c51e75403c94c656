"""Carries the log into MongoDB: bulk writes, acknowledged to the log when a majority has them.

Several processes may share the work, and any of them may be killed at any point: what was not
acknowledged comes again, and writing it again changes nothing. What cannot be stored goes to the
dead-letter stream with its reason and does not hold up the rest.

Each process has two lanes, so that one fetches and decodes while MongoDB works for the other. They
fetch in turn, and after a small batch only when more had time to gather.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import Metric

from broker import consumer, events
from broker.bus import Bus
from broker.consumer import Delivery, Lag, Puller, durable
from broker.dead import DeadLetters
from broker.errors import BrokerError
from broker.following import Following, trace_of
from broker.log import STREAM
from broker.metrics import Spread, counter, histogram
from broker.streams import ensure
from store.documents import Entry
from store.errors import StoreError
from store.log_floor import LogFloor
from store.messages import Messages, Rejected
from store.reads import ReadRecord, Reads

BATCH = 2000
LANES = 2
ACK_WAIT_S = 10.0
"""What a killed process had in hand comes again after this; a living one says that it works."""

SMALL_BATCH = 500
GATHER_S = 0.04
"""Pause before the fetch after a small batch, so that the next one is larger: MongoDB's journal and
the log share the disk and the cores, and a write for each message slows the messages down."""

WORKING_S = 4.0
WATCH_S = 1.0
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 3.0

NAME = "persist"
CONSUMER = durable(STREAM, NAME, ack_wait_s=ACK_WAIT_S)

Receipt = tuple[int, events.ReadReceipt]
"""A receipt and its seq."""

_log = logging.getLogger("hikyaku.persist")


class PersistWorker:
    """One process of the service. `run` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        messages: Messages,
        reads: Reads,
        dead: DeadLetters,
        floor: LogFloor,
        following: Following | None = None,
    ):
        self._bus = bus
        self._messages = messages
        self._reads = reads
        self._dead = dead
        self._floor = floor
        self._following = following
        self._lanes = [_Lane(Puller(bus, CONSUMER)) for _ in range(LANES)]
        self._turn = asyncio.Lock()
        self._few = False
        self._delays = Spread()
        self._lag = Lag()
        self.persisted = 0
        self.dead_lettered = 0
        self.retries = 0

    async def run(self) -> None:
        """Fetch, write, acknowledge; back off while something does not answer."""
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    group.create_task(self._work(lane))
                group.create_task(self._watch())
        finally:
            # First hear no more: what one lane gives back must not come to the other.
            for lane in self._lanes:
                lane.puller.close()
            for lane in self._lanes:
                lane.give_back()

    async def _work(self, lane: "_Lane") -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with self._turn:
                    if self._few:
                        await asyncio.sleep(GATHER_S)
                    deliveries = await lane.puller.fetch(BATCH)
                    lane.hold(deliveries)
                    self._few = 0 < len(deliveries) < SMALL_BATCH
                await self._persist(deliveries, lane.puller)
                lane.hold([])
                pause_s = FIRST_PAUSE_S
            except (StoreError, BrokerError) as error:
                lane.give_back()
                _log.warning("not persisted, next try in %g s: %s", pause_s, error)
                self.retries += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
                with suppress(BrokerError):
                    await ensure(self._bus, [], [CONSUMER])

    async def _watch(self) -> None:
        """Know how much waits, and tell the log what is still being worked on."""
        while True:
            with suppress(BrokerError):
                self._lag = await consumer.lag(self._bus, CONSUMER)
                for lane in self._lanes:
                    if lane.busy_s() > WORKING_S:
                        lane.puller.working(lane.deliveries)
            await asyncio.sleep(WATCH_S)

    async def _persist(self, deliveries: list[Delivery], puller: Puller) -> None:
        if not deliveries:
            return
        entries: list[Entry] = []
        receipts: list[Receipt] = []
        for each in deliveries:
            try:
                event = decoded(each.subject, each.data)
            except ValueError as error:
                await self._bury(each, f"not readable: {error}")
                continue
            if isinstance(event, events.ReadReceipt):
                receipts.append((each.seq, event))
            elif isinstance(event, events.Message | events.Change):
                entries.append(Entry(each.seq, event))
        by_seq = {each.seq: each for each in deliveries}
        begin = time.monotonic()
        for rejected in await self._write(entries, receipts):
            await self._bury(by_seq[rejected.seq], rejected.reason)
        puller.ack(deliveries)
        now_ns = time.time_ns()
        self._delays.add_all((now_ns - each.stored_ns) / 1e9 for each in deliveries)
        self.persisted += len(entries)
        if self._following is not None:
            for seq, event in entries:
                about = by_seq[seq]
                self._following.step(
                    "persisted",
                    event.id,
                    trace=trace_of(about.header),
                    took_s=time.monotonic() - begin,
                    seq=seq,
                    chat=event.chat_id,
                )

    async def _write(self, entries: list[Entry], receipts: list[Receipt]) -> list[Rejected]:
        """Write until MongoDB has them: the batch stays in hand while it is away."""
        highest = max([each[0] for each in (*entries, *receipts)], default=0)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._floor.cover(highest)
                return await store(entries, receipts, self._messages, self._reads)
            except StoreError as error:
                _log.warning("not written, next try in %g s: %s", pause_s, error)
                self.retries += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        _log.error("event %d on %s: %s", delivery.seq, delivery.subject, reason)
        await self._dead.bury(NAME, delivery, reason)
        self.dead_lettered += 1

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from consumer.metrics(
            NAME, self._lag, retries=self.retries, buried=self.dead_lettered
        )
        text = "Messages and changes written to MongoDB."
        yield counter("hikyaku_persist_events_total", text, self.persisted)
        text = "Time from the log to a majority of MongoDB."
        yield histogram("hikyaku_persist_delay_seconds", text, self._delays)


class _Lane:
    """One of the batches that a worker has in hand."""

    def __init__(self, puller: Puller):
        self.puller = puller
        self.deliveries: list[Delivery] = []
        self._since = 0.0

    def busy_s(self) -> float:
        """For how long it has had the present batch."""
        return time.monotonic() - self._since if self.deliveries else 0.0

    def hold(self, deliveries: list[Delivery]) -> None:
        """It has these in hand now, and no others."""
        self.deliveries, self._since = deliveries, time.monotonic()

    def give_back(self) -> None:
        """What it has may come again at once, to another one."""
        with suppress(BrokerError):
            self.puller.give_back(self.deliveries)
        self.deliveries = []


def decoded(subject: str, data: bytes) -> events.Event:
    """An event of the log. Raises `ValueError` for what no edge wrote."""
    event = events.decode(data)
    if isinstance(event, events.Message | events.Change) and event.chat_id != subject:
        raise ValueError(f"it names the chat {event.chat_id[:200]!r}")
    return event


async def store(
    entries: list[Entry], receipts: list[Receipt], messages: Messages, reads: Reads
) -> list[Rejected]:
    """Write events to MongoDB; those it will never take, and why. Raises `StoreUnavailable`."""
    rejected = await messages.write(entries)
    refused = await reads.write([read_record(event) for _, event in receipts])
    return rejected + [Rejected(receipts[each.at][0], each.reason) for each in refused]


def read_record(event: events.ReadReceipt) -> ReadRecord:
    """The pointer that a receipt tells of."""
    return ReadRecord(event.chat_id, event.reader_id, event.read_seq, event.last_read_msg_id)
