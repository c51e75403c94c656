"""Reads files of the archive: the footer once, then row groups, each with one range request.

What was read is kept for the next page, up to `CACHE_BYTES`; a file never changes.
"""

import asyncio
import io
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import archive_rows
from .archive_objects import Objects
from .archive_rows import Document
from .errors import StoreError

CACHE_BYTES = 64 * 1024 * 1024
FOOTER_BYTES = 16 * 1024 * 1024

_SEQ = archive_rows.SCHEMA.get_field_index("seq")
_ID = archive_rows.SCHEMA.get_field_index("_id")

_T = TypeVar("_T")


class Damaged(StoreError):
    """A file is not what was written; `hikyaku archive verify` tells more."""


class Place(NamedTuple):
    """Where a file is: its key, its size, and the length of its footer."""

    key: str
    size: int
    footer: int


class Wanted(NamedTuple):
    """Which rows: of a chat, with `before` and `after` exclusive, and of one thread or some ids."""

    chat_id: str
    before: int | None = None
    after: int | None = None
    thread: int | None = None
    ids: tuple[int, ...] | None = None


class _Cache(Generic[_T]):
    """The last used values, up to a number of bytes."""

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._values: OrderedDict[Any, tuple[_T, int]] = OrderedDict()

    def get(self, key: Any) -> _T | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Any, value: _T, size: int) -> None:
        if key in self._values:
            return
        self._values[key] = (value, size)
        self._used += size
        while self._used > self._limit:
            _, (_, freed) = self._values.popitem(last=False)
            self._used -= freed


class _Piece(io.RawIOBase):
    """A file of which only one piece is here; nothing else of it may be read."""

    def __init__(self, start: int, data: bytes, size: int):
        self._start = start
        self._data = data
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, length: int = -1) -> bytes:
        start = self._at - self._start
        if length < 0 or start < 0 or start + length > len(self._data):
            raise ValueError(f"bytes {self._at} and {length} more were not fetched")
        self._at += length
        return self._data[start : start + length]


class Files:
    """Raises `Gone` when a file was replaced, `StoreUnavailable` when it cannot be read now."""

    def __init__(self, objects: Objects):
        self._objects = objects
        self._footers: _Cache[Any] = _Cache(FOOTER_BYTES)
        self._tables: _Cache[Any] = _Cache(CACHE_BYTES)
        self.requests = 0

    async def newest(
        self, place: Place, groups: range, wanted: Wanted, *, limit: int, oldest: bool
    ) -> list[Document]:
        """Up to `limit` of the wanted rows, in order of seq from the end asked for."""
        metadata = await self._metadata(place)
        found: list[Document] = []
        for number in groups if oldest else reversed(groups):
            if not _may_have(metadata.row_group(number), wanted):
                continue
            table = _filtered(await self._group(place, metadata, number), wanted)
            missing = limit - len(found)
            table = table.slice(0, missing) if oldest else table[-missing:]
            documents = archive_rows.unpack(table)
            found += documents if oldest else reversed(documents)
            if len(found) == limit:
                break
        return found

    async def groups(self, place: Place) -> AsyncIterator[list[Document]]:
        """All documents, group by group; for whole files, past the cache."""
        metadata = await self._metadata(place)
        for number in range(metadata.num_row_groups):
            start, end = _extent(metadata.row_group(number))
            data = await self._fetch(place, start, end)
            piece = _Piece(start, data, place.size)
            with _reading(place):
                documents = await asyncio.to_thread(_documents, piece, metadata, number)
            yield documents

    async def _metadata(self, place: Place) -> Any:
        known = self._footers.get(place.key)
        if known is None:
            data = await self._fetch(place, place.size - place.footer, place.size)
            with _reading(place):
                known = pq.read_metadata(pa.BufferReader(data))
            self._footers.put(place.key, known, place.footer)
        return known

    async def _group(self, place: Place, metadata: Any, number: int) -> Any:
        table: Any = self._tables.get((place.key, number))
        if table is None:
            start, end = _extent(metadata.row_group(number))
            piece = _Piece(start, await self._fetch(place, start, end), place.size)
            with _reading(place):
                table = await asyncio.to_thread(_table, piece, metadata, number)
            self._tables.put((place.key, number), table, table.nbytes)
        return table

    async def _fetch(self, place: Place, start: int, end: int) -> bytes:
        self.requests += 1
        return await self._objects.part(place.key, start, end)


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"{place.key} cannot be read: {error}") from error


def _documents(piece: _Piece, metadata: Any, number: int) -> list[Document]:
    return archive_rows.unpack(_table(piece, metadata, number))


def _table(piece: _Piece, metadata: Any, number: int) -> pa.Table:
    return pq.ParquetFile(piece, metadata=metadata).read_row_group(number, use_threads=False)


def _extent(group: Any) -> tuple[int, int]:
    """Where a row group begins and ends."""
    starts, ends = [], []
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.data_page_offset
        if column.has_dictionary_page:
            start = min(start, column.dictionary_page_offset)
        starts.append(start)
        ends.append(start + column.total_compressed_size)
    return min(starts), max(ends)


def _may_have(group: Any, wanted: Wanted) -> bool:
    seq = group.column(_SEQ).statistics
    if wanted.before is not None and seq.min >= wanted.before:
        return False
    if wanted.after is not None and seq.max <= wanted.after:
        return False
    if wanted.ids is None:
        return True
    ids = group.column(_ID).statistics
    return any(ids.min <= each <= ids.max for each in wanted.ids)


def _filtered(table: pa.Table, wanted: Wanted) -> pa.Table:
    mask = pc.equal(table["chat"], wanted.chat_id)
    if wanted.before is not None:
        mask = pc.and_(mask, pc.less(table["seq"], wanted.before))
    if wanted.after is not None:
        mask = pc.and_(mask, pc.greater(table["seq"], wanted.after))
    if wanted.thread is not None:
        mask = pc.and_kleene(mask, pc.equal(table["thread"], wanted.thread))
    if wanted.ids is not None:
        mask = pc.and_(mask, pc.is_in(table["_id"], pa.array(wanted.ids, pa.int64())))
    return table.filter(mask)
