"""Puts events into the log in the order in which they are given: a part of them, never with a hole.

A batch is stored as a whole or not at all. When its outcome is not known, the caller stops, and
what comes again later is looked for first (`there`).
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from broker.batch import BATCH, Part, publish_all
from broker.bus import Bus
from broker.errors import Refused
from broker.log import Log
from broker.streams import MAX_EVENT_BYTES

BATCH_BYTES = 1024 * 1024
STORE_S = 5.0
CLOCKS_MS = 300_000
"""So far at most two machines' clocks are apart."""

DUPLICATE = 10201
HEADERS = 512
"""At most so many bytes stand before an event, which count as well."""


class Copy(NamedTuple):
    """An event for the log."""

    subject: str
    data: bytes
    msg_id: str


def too_large(data: bytes) -> bool:
    """Whether the log would not take it, also as one of a batch."""
    return len(data) > MAX_EVENT_BYTES - HEADERS


class Copier:
    """Raises `Unavailable` when it is not known what was stored, and what `check` raises."""

    def __init__(self, bus: Bus, check: Callable[[], None]):
        self._bus = bus
        self._check = check
        self._log = Log(bus)
        self.stored = 0

    async def there(self, copy: Copy, since_ms: int) -> bool:
        """Whether it is in the log, stored since then."""
        since_s = max(0.0, (since_ms - CLOCKS_MS) / 1000) if since_ms else time.time() - 86_400
        return await self._log.find(copy.subject, copy.msg_id, since_s=since_s) > 0

    async def ids(self, subject: str) -> set[str]:
        """The `msg_id` of all that the log has of a subject."""
        return await self._log.ids(subject)

    async def store(self, copies: Sequence[Copy]) -> None:
        """Store them in this order."""
        start = size = 0
        for end, each in enumerate(copies):
            if end - start == BATCH or (end > start and size + len(each.data) > BATCH_BYTES):
                await self._store(copies[start:end])
                start, size = end, 0
            size += len(each.data)
        if copies:
            await self._store(copies[start:])

    async def _store(self, copies: Sequence[Copy]) -> None:
        self._check()
        parts = [Part(each.subject, each.data, (f"Nats-Msg-Id: {each.msg_id}",)) for each in copies]
        try:
            await publish_all(self._bus, parts, timeout_s=STORE_S)
        except Refused as refused:
            if refused.err_code != DUPLICATE or len(parts) == 1:
                raise
            # One of them is there: one by one, each is stored unless it is.
            for part in parts:
                await publish_all(self._bus, [part], timeout_s=STORE_S)
        self.stored += len(copies)
