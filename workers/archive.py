"""Runs the archive once a day, one process at a time. See `docs/archive.md`."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator

from prometheus_client import Metric

from broker import subjects
from broker.errors import InvalidName
from broker.metrics import counter, gauge
from broker.snowflake import EPOCH_MS, unix_ms
from store.archive import Archive
from store.archive_lease import Busy, Lease
from store.archive_retention import Names
from store.database import Database
from store.errors import StoreError

DAY_MS = 86_400_000
JITTER = 0.1
FIRST_S = 60.0
RETRY_S = 300.0

_log = logging.getLogger("hikyaku.archive")


def _before(days: float) -> int:
    """The first message id that is newer than so many days."""
    return max(0, unix_ms() - int(days * DAY_MS) - EPOCH_MS) << 22


def _group_of(chat_id: str) -> str | None:
    try:
        kind, tokens = subjects.parse(chat_id)
    except InvalidName:
        return None
    return subjects.decode(tokens[0]) if kind == "group" else None


NAMES = Names(before=_before, group_of=_group_of, chat_of=subjects.group)
"""What the archive must know about ids."""


class ArchiveWorker:
    """One process of the service. `run` until cancelled."""

    def __init__(self, database: Database, archive: Archive, *, interval_s: float):
        self._lease = Lease(database)
        self._archive = archive
        self._interval_s = interval_s
        self.runs = 0
        self.failures = 0
        self.moved = 0
        self.removed = 0
        self.last_run_s = 0.0
        self.finished_at = 0.0

    async def run(self) -> None:
        """Wait until a run is due, run, again and again."""
        while True:
            await asyncio.sleep(await self._wait_s())
            try:
                if await self._due_s() <= 0:
                    await self._run()
            except Busy as busy:
                _log.info("not now: %s", busy)
                await asyncio.sleep(min(RETRY_S, self._interval_s))
            except StoreError as error:
                self.failures += 1
                pause_s = min(RETRY_S, self._interval_s)
                _log.error("the archive was not run, next try in %g s: %s", pause_s, error)
                await asyncio.sleep(pause_s)

    async def _run(self) -> None:
        begin = time.monotonic()
        report = await self._archive.run()
        self.runs += 1
        self.moved += report.moved
        self.removed += report.removed
        self.last_run_s = time.monotonic() - begin
        self.finished_at = time.time()
        _log.info("archived in %.1f s: %s", self.last_run_s, report)

    async def _wait_s(self) -> float:
        """Spread, so that the processes of a site, and all sites, do not run together."""
        try:
            due_s = await self._due_s()
        except StoreError as error:
            _log.warning("not known when the archive was run last: %s", error)
            return min(RETRY_S, self._interval_s)
        spread_s = min(FIRST_S, self._interval_s * JITTER)
        return max(0.0, due_s) + random.uniform(0, spread_s)

    async def _due_s(self) -> float:
        """Seconds until the next run, by the clock of MongoDB."""
        ago_s = await self._lease.finished_ago_s()
        return 0.0 if ago_s is None else self._interval_s - ago_s

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        results = {"done": self.runs, "failed": self.failures}
        yield counter("hikyaku_archive_runs_total", "Runs of the archive.", results, "result")
        moved = {"moved": self.moved, "removed": self.removed}
        text = "Messages moved to the archive, or removed for their age."
        yield counter("hikyaku_archive_messages_total", text, moved, "change")
        text = "How long the last run took."
        yield gauge("hikyaku_archive_last_run_seconds", text, self.last_run_s)
        text = "When the last run of this process ended, or 0."
        yield gauge("hikyaku_archive_finished_timestamp_seconds", text, self.finished_at)
