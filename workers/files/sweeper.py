"""Removes, again and again, what nothing needs any more."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator

from prometheus_client import Metric

from broker import outbox
from broker.bus import Bus
from broker.errors import BrokerError
from broker.log import Log
from broker.metrics import counter, gauge
from broker.snowflake import unix_ms
from store.archive_retention import Retention
from store.database import Database
from store.errors import StoreError
from store.file_objects import FileObjects
from store.file_sweep import Sweep, Swept

from ..archive import NAMES
from .uses_known import uses_known

CAUGHT_UP_S = 10.0
JITTER = 0.1
TIDY_S = 86_400.0
FIRST_S = 30.0

_log = logging.getLogger("hikyaku.files")


class Sweeper:
    """One process's part of it; several may sweep. `run` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        objects: FileObjects,
        *,
        interval_s: float,
        retention_days: float,
    ):
        self._bus = bus
        self._submitted = Log(bus, stream=outbox.SUBMITTED)
        self._database = database
        self._objects = objects
        self._interval_s = interval_s
        self._retention_days = retention_days
        self._tidied_at = float("-inf")
        self.total = Swept()
        self.runs = 0
        self.failures = 0
        self.behind = 0
        self.finished_at = 0.0

    async def run(self) -> None:
        """Sweep, wait, again and again."""
        await asyncio.sleep(min(FIRST_S, self._interval_s))
        while True:
            try:
                await self.sweep()
            except (StoreError, BrokerError) as error:
                self.failures += 1
                _log.warning("not swept, next try in %g s: %s", self._interval_s, error)
            spread = random.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(self._interval_s * spread)

    async def sweep(self) -> None:
        """Everything, once."""
        ahead_ms = await self._database.ahead_ms()
        retention = Retention(self._database, NAMES, self._retention_days, ahead_ms)
        sweep = Sweep(self._database, self._objects, retention)
        now = unix_ms() - ahead_ms
        try:
            await sweep.expire_uploads(now)
            # Asked first: what came back from there is in the log, and so counted by what follows.
            waiting, _ = await self._submitted.count(outbox.submissions("*"), 1)
            if await uses_known(self._bus, CAUGHT_UP_S):
                await sweep.release_old()
                await sweep.remove_files(now, elsewhere=not waiting)
            else:
                self.behind += 1
                _log.warning("no file is removed while MongoDB is behind the log")
            await sweep.remove_contents(now)
            await sweep.collect()
            if time.monotonic() - self._tidied_at > TIDY_S:
                await sweep.tidy()
                self._tidied_at = time.monotonic()
        finally:
            self._count(sweep.swept)
        self.runs += 1
        self.finished_at = time.time()

    def _count(self, swept: Swept) -> None:
        for name in Swept.__struct_fields__:
            setattr(self.total, name, getattr(self.total, name) + getattr(swept, name))
        if swept.files or swept.uploads:
            _log.info("swept %s", swept)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        results = {"done": self.runs, "failed": self.failures, "behind": self.behind}
        text = "Searches for files to remove; behind: MongoDB lacked a part of the log."
        yield counter("hikyaku_files_sweeps_total", text, results, "result")
        text = "When the last search ended, or 0."
        yield gauge("hikyaku_files_swept_timestamp_seconds", text, self.finished_at)
        removed = {"file": self.total.files, "upload": self.total.uploads}
        removed["object"] = self.total.objects
        text = "What was removed."
        yield counter("hikyaku_files_removed_total", text, removed, "kind")
        text = "Bytes of files removed."
        yield counter("hikyaku_files_removed_bytes_total", text, self.total.bytes)
