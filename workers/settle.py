"""Brings the index to what MongoDB has, for some messages: the one way in which it is written.

Whatever an event says, what is written is the message as MongoDB has it. So it does not matter in
which order events come, or how often. What remains is that two writers, one of them slow, could
write an older version last. Therefore each looks again when its write can be found: if MongoDB has
another version by then, it writes once more, and only then is its event done with.
"""

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from broker.snowflake import unix_ms
from search.documents import Document, document_of
from search.filters import DAY_MS
from search.indexes import Indexes
from store.searchable import Searchable

ROUNDS = 3
LAST_LOOK_S = 0.2

Wanted = dict[int, Document | None]


class Settled(NamedTuple):
    """What the server refused, with the reason; and messages of which it is not known."""

    refused: dict[int, str]
    unsure: set[int]


class Settler:
    """Writes messages into indexes. Raises `SearchError` and `StoreError`; then do it again."""

    def __init__(self, messages: Searchable, indexes: Indexes, *, days: float):
        self._messages = messages
        self._indexes = indexes
        self.days = days
        self.put = 0
        self.removed = 0

    async def settle(self, ids: Collection[int], into: Collection[int]) -> Settled:
        """Returns when each of the indexes has the messages as MongoDB has them, or newer."""
        refused: dict[int, str] = {}
        writing = await self._wanted(ids)
        for _ in range(ROUNDS):
            refused = {key: why for key, why in refused.items() if key not in writing}
            for number in into:
                refused |= await self._write(number, writing)
            now = await self._wanted(writing)
            writing = {key: now[key] for key in _differing(writing, now)}
            if not writing:
                return Settled(refused, set())
        # One that is still changing has changed after our last write, or not. If it has, the event
        # of that is handled after it, by whoever that is. So one who edits without end holds up
        # nobody.
        await asyncio.sleep(LAST_LOOK_S)
        later = await self._wanted(writing)
        return Settled(refused, writing.keys() - _differing(writing, later))

    async def _wanted(self, ids: Collection[int]) -> Wanted:
        found = await self._messages.messages(ids)
        since_ms = unix_ms() - int(self.days * DAY_MS)
        return {key: document_of(found.get(key), since_ms=since_ms) for key in ids}

    async def _write(self, number: int, wanted: Wanted) -> dict[int, str]:
        documents = [each for each in wanted.values() if each is not None]
        gone = [str(key) for key, each in wanted.items() if each is None]
        await self._indexes.ensure(number)
        refused = await self._indexes.write(number, documents, gone)
        self.put += len(documents) - len(refused)
        self.removed += len(gone)
        return {int(each.id): each.reason for each in refused}


def _differing(one: Wanted, other: Wanted) -> set[int]:
    return {key for key, document in one.items() if other[key] != document}
