"""Writes the newest value of keys of a bucket: what waits while one write is in flight is the next.

Several keys go as one atomic batch, one fsync for hundreds of connections that come back together.
What fails is written again until it succeeds, unless a newer value came meanwhile: only the newest
of each key waits, so the queue is bounded by the number of keys.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import NamedTuple

from .batch import BATCH, Part, publish_all
from .bucket import MARKER_TTL_S, TIMEOUT_S
from .bus import Bus
from .errors import BrokerError, Unavailable

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0

_log = logging.getLogger("hikyaku.keys")


class _Write(NamedTuple):
    number: int
    value: bytes
    ttl_s: int | None


class KeyWriter:
    """Use as a context manager; `put` from the event loop only."""

    def __init__(self, bus: Bus, bucket: str):
        self._bus = bus
        self._prefix = f"$KV.{bucket}."
        self._waiting: dict[str, _Write] = {}
        self._numbers = itertools.count(1)
        self._written = 0
        self._wanted = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "KeyWriter":
        self._task = asyncio.create_task(self._run(), name="key writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def waiting(self) -> int:
        """Keys not yet written."""
        return len(self._waiting)

    def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write a value, soon; empty removes the key. Returns a number for `written`."""
        number = next(self._numbers)
        self._waiting.pop(key, None)  # in order of the newest
        self._waiting[key] = _Write(number, value, ttl_s if value else MARKER_TTL_S)
        self._wanted.set()
        return number

    def drop(self, unwanted: Callable[[str], bool]) -> None:
        """Forget about keys that wait."""
        for key in [key for key in self._waiting if unwanted(key)]:
            del self._waiting[key]

    async def written(self, number: int, *, timeout_s: float) -> None:
        """Wait until a `put` and all before it are on disk. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(timeout_s), self._progress:
                await self._progress.wait_for(lambda: self._written >= number)
        except TimeoutError:
            raise Unavailable("presence was not written in time") from None

    async def drain(self, timeout_s: float) -> None:
        """Wait until all is written, at most `timeout_s`."""
        if self._waiting:
            last = max(each.number for each in self._waiting.values())
            try:
                await self.written(last, timeout_s=timeout_s)
            except Unavailable:
                _log.warning("%d keys left unwritten", len(self._waiting))

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            await self._wanted.wait()
            batch = dict(itertools.islice(self._waiting.items(), BATCH))
            if not batch:
                self._wanted.clear()
                continue
            try:
                await self._write(batch)
            except BrokerError as error:
                _log.warning("%d keys not written yet: %s", len(batch), error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            for key, write in batch.items():
                if self._waiting.get(key) is write:
                    del self._waiting[key]
            async with self._progress:
                self._written = max(each.number for each in batch.values())
                self._progress.notify_all()

    async def _write(self, batch: dict[str, _Write]) -> None:
        if not self._bus.connected:
            raise Unavailable("NATS does not answer")
        parts = [
            Part(
                self._prefix + key,
                write.value,
                () if write.ttl_s is None else (f"Nats-TTL: {write.ttl_s}s",),
            )
            for key, write in batch.items()
        ]
        await publish_all(self._bus, parts, timeout_s=TIMEOUT_S)
