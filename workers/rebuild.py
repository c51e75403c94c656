"""Makes the index anew from MongoDB, beside the live one, and puts it in its place.

Who indexes an event first sees it in MongoDB, then reads which indexes there are, and writes them
all. So what does not go to the new index by that way was in MongoDB before it got its number, and
is copied from there. At the end it lacks nothing, and one change in MongoDB makes it the live one.
Killed before that, the live index is what it was, and `workers.index` removes what was begun;
killed after it, only the old index is left to be removed.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from search.indexes import Indexes
from store.errors import StoreError
from store.searchable import Searchable, SearchNumbers

from .index_house import sweep
from .settle import Settler

PAGE = 2000


class Overtaken(Exception):
    """Another rebuild began, and takes the place of this one."""


class Rebuilt(NamedTuple):
    """How many messages were looked at, and which of them the server refused, with the reason."""

    messages: int
    refused: dict[int, str]


class Rebuild:
    """One rebuild. Raises `Overtaken`, `SearchError`, `StoreError`."""

    def __init__(
        self, messages: Searchable, numbers: SearchNumbers, indexes: Indexes, settler: Settler
    ):
        self._messages = messages
        self._numbers = numbers
        self._indexes = indexes
        self._settler = settler

    async def run(self, progress: Callable[[int, int], None]) -> Rebuilt:
        """Do it. `progress` is told how many messages are done, and about how many there are."""
        beginning = asyncio.ensure_future(self._numbers.begin())
        try:
            number = await asyncio.shield(beginning)
            rebuilt = await self._copy(number, progress)
            if not await self._numbers.finish(number):
                raise Overtaken("another rebuild began meanwhile, and goes on")
        except BaseException:
            with suppress(StoreError):
                await self._numbers.abandon(await beginning)
            raise
        await sweep(self._indexes, self._numbers)
        return rebuilt

    async def _copy(self, number: int, progress: Callable[[int, int], None]) -> Rebuilt:
        await self._indexes.ensure(number)
        # What comes after this is written by whoever indexes it.
        last = await self._messages.last()
        total = await self._messages.count()
        refused: dict[int, str] = {}
        done = after = 0
        unsure: set[int] = set()
        while page := await self._messages.page(after, last, PAGE) or list(unsure):
            if not await self._numbers.going_on(number):
                raise Overtaken("another rebuild began meanwhile, and goes on")
            settled = await self._settler.settle({*page, *unsure}, [number])
            refused |= settled.refused
            done += len({*page} - unsure)
            after = max(after, *page)
            unsure = settled.unsure
            progress(done, max(done, total))
        progress(done, done)
        return Rebuilt(done, refused)
