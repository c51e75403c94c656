"""Looks after the indexes beside what is written: what is too old goes, and what nobody needs."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import Metric

from broker import subjects
from broker.metrics import counter, gauge
from broker.snowflake import unix_ms
from search.errors import IndexMissing, SearchError
from search.filters import expired_filters
from search.indexes import Indexes
from store.errors import StoreError
from store.searchable import Searchable, SearchNumbers

EVERY_S = 60.0
RETRY_S = 5.0

_log = logging.getLogger("hikyaku.index")


class IndexHouse:
    """Any number of processes may have one. `run` until cancelled."""

    def __init__(
        self,
        indexes: Indexes,
        messages: Searchable,
        numbers: SearchNumbers,
        *,
        days: float,
        retention_days: float,
    ):
        self._indexes = indexes
        self._messages = messages
        self._numbers = numbers
        self._days = days
        self._retention_days = retention_days
        self.pruned = 0
        self.documents = 0
        self.building = False

    async def run(self) -> None:
        """Once a minute; sooner again when something did not answer."""
        while True:
            try:
                await self.tidy()
                await asyncio.sleep(EVERY_S)
            except (SearchError, StoreError) as error:
                _log.warning("the index is not looked after: %s", error)
                await asyncio.sleep(RETRY_S)

    async def tidy(self) -> None:
        """See that the index is there, and that nothing is which should not be."""
        if await self._numbers.abandon_left():
            _log.warning("a rebuild of the index died; begin it again: `hikyaku search rebuild`")
        numbers = await self._numbers.read()
        self.building = numbers.building is not None
        await self._indexes.ensure(numbers.live)
        own = await self._messages.own_retention()
        expired = expired_filters(
            unix_ms(),
            days=self._days,
            retention_days=self._retention_days,
            own={subjects.group(group): days for group, days in own.items()},
        )
        for each in numbers.all:
            for chosen in expired:
                with suppress(IndexMissing):
                    self.pruned += await self._indexes.forget(each, chosen)
        self.documents = await self._indexes.count(numbers.live)
        await sweep(self._indexes, self._numbers)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield counter("hikyaku_index_pruned_total", "Documents removed for their age.", self.pruned)
        yield gauge("hikyaku_index_documents", "Messages in the index.", self.documents)
        text = "1 while the index is made anew."
        yield gauge("hikyaku_index_rebuilding", text, self.building)


async def sweep(indexes: Indexes, numbers: SearchNumbers) -> None:
    """Remove this site's indexes that are neither live nor being built.

    They are listed before the numbers are read: an index gets its number before it is made.
    """
    there = await indexes.numbers()
    kept = (await numbers.read()).all
    for each in there:
        if each not in kept:
            await indexes.remove(each)
