"""Carries the log into MongoDB: bulk writes, acknowledged to the log when a majority has them.

Several processes may share the work, and any of them may be killed at any point: what was not
acknowledged comes again, and writing it again changes nothing. What cannot be stored goes to the
dead-letter stream with its reason and does not hold up the rest.
"""

import asyncio
import logging
import time
from collections import deque

import msgspec

from broker import events
from broker.bus import Bus
from broker.consumer import Delivery, Puller, durable
from broker.dead import DeadLetters
from broker.errors import BrokerError
from broker.log import STREAM
from broker.subjects import CHAT_SUBJECTS
from store.documents import Entry
from store.errors import StoreError
from store.messages import Messages
from store.reads import ReadRecord, Reads

BATCH = 1000
ACK_WAIT_S = 60.0
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 10.0
DELAYS = 10_000

NAME = "persist"
CONSUMER = durable(STREAM, NAME, subjects=list(CHAT_SUBJECTS), ack_wait_s=ACK_WAIT_S)

_log = logging.getLogger("hikyaku.persist")


class PersistWorker:
    """One process of the service. `run` until cancelled."""

    def __init__(self, bus: Bus, messages: Messages, reads: Reads, dead: DeadLetters):
        self._puller = Puller(bus, CONSUMER)
        self._messages = messages
        self._reads = reads
        self._dead = dead
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self.persisted = 0
        self.dead_lettered = 0
        self.retries = 0
        self.pending = 0

    async def run(self) -> None:
        """Fetch, write, acknowledge; back off while something does not answer."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                deliveries = await self._puller.fetch(BATCH)
                await self._persist(deliveries)
                pause_s = FIRST_PAUSE_S
            except (StoreError, BrokerError) as error:
                _log.warning("not persisted, next try in %g s: %s", pause_s, error)
                self.retries += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _persist(self, deliveries: list[Delivery]) -> None:
        if not deliveries:
            self.pending = 0
            return
        entries: list[Entry] = []
        reads: list[ReadRecord] = []
        for each in deliveries:
            try:
                event = events.decode(each.data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                await self._bury(each, f"not readable: {error}")
                continue
            if isinstance(event, events.ReadReceipt):
                reads.append(
                    ReadRecord(
                        event.chat_id, event.reader_id, event.read_seq, event.last_read_msg_id
                    )
                )
            elif isinstance(event, events.Message | events.Change):
                entries.append(Entry(each.seq, event))
        await self._write(entries, reads, {each.seq: each for each in deliveries})
        self._puller.ack(deliveries)
        now_ns = time.time_ns()
        self._delays.extend((now_ns - each.stored_ns) / 1e9 for each in deliveries)
        self.persisted += len(entries)
        self.pending = deliveries[-1].pending

    async def _write(
        self, entries: list[Entry], reads: list[ReadRecord], deliveries: dict[int, Delivery]
    ) -> None:
        """Write until MongoDB has them: the batch stays in hand while it is away."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                for rejected in await self._messages.write(entries):
                    await self._bury(deliveries[rejected.seq], rejected.reason)
                await self._reads.write(reads)
                return
            except StoreError as error:
                _log.warning("not written, next try in %g s: %s", pause_s, error)
                self.retries += 1
                self._puller.working(deliveries.values())
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        _log.error("event %d on %s: %s", delivery.seq, delivery.subject, reason)
        await self._dead.bury(NAME, delivery, reason)
        self.dead_lettered += 1

    def numbers(self) -> dict[str, float]:
        """For `/metrics`. Delays are seconds from the log to the majority, of the last 10,000."""
        delays = sorted(self._delays)

        def quantile(part: float) -> float:
            return delays[int(part * (len(delays) - 1))] if delays else 0.0

        return {
            "persisted_total": self.persisted,
            "dead_letters_total": self.dead_lettered,
            "retries_total": self.retries,
            "pending": self.pending,
            "delay_seconds_p50": quantile(0.5),
            "delay_seconds_p99": quantile(0.99),
            "delay_seconds_max": quantile(1.0),
        }
