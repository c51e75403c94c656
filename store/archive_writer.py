"""Writes files of the archive: written, read back, compared, and only then in the manifest."""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from itertools import pairwise
from uuid import uuid4

import msgspec

from . import archive_rows
from .archive_files import Damaged, Files, Place
from .archive_manifest import Entry, LeaseLost, Listed, Manifest, copy_key, parts_of
from .archive_objects import Gone, Objects
from .archive_rows import Digest, Document, Packed
from .config import ArchiveConfig

MAX_CHATS = 2000
PREFIX = "messages/"


class Batch:
    """Messages for one file, until it is full."""

    def __init__(self, config: ArchiveConfig):
        self._config = config
        self._bytes = 0
        self._chats: set[str] = set()
        self._documents: dict[int, Document] = {}

    @property
    def documents(self) -> Iterable[Document]:
        """The messages so far."""
        return self._documents.values()

    def add(self, document: Document) -> None:
        """One more message, or another state of one that is here."""
        key = int(document["_id"])
        if key in self._documents:
            document = archive_rows.merged(self._documents[key], document)
        self._documents[key] = document
        self._bytes += archive_rows.size(document)
        self._chats.add(document["chat"])

    @property
    def full(self) -> bool:
        """Whether the next message needs another file."""
        return (
            len(self._documents) >= self._config.file_rows
            or self._bytes >= self._config.file_bytes
            or len(self._chats) >= MAX_CHATS
        )


class Writer:
    """Writes as `owner`, the holder of the lease. Raises `LeaseLost`, `StoreUnavailable`."""

    def __init__(self, manifest: Manifest, objects: Objects, owner: str):
        self._manifest = manifest
        self._objects = objects
        self._owner = owner

    async def write(
        self,
        documents: Iterable[Document],
        bucket: int,
        *,
        old: Entry | None,
        open: bool,
        hot: bool,
    ) -> Entry:
        """Put a file of these messages in the place of `old`."""
        ordered = sorted(documents, key=archive_rows.order)
        low, high = (int(pick(each["_id"] for each in ordered)) for pick in (min, max))
        key = f"{PREFIX}{bucket:04d}/{low:019d}-{uuid4().hex[:12]}.parquet"
        packed, content = await asyncio.to_thread(_pack, ordered)
        entry = Entry(
            key=key,
            bucket=bucket,
            rows=len(ordered),
            size=len(packed.data),
            footer=packed.footer,
            groups=len(packed.groups),
            sha256=hashlib.sha256(packed.data).hexdigest(),
            content=content,
            min_id=low,
            max_id=high,
            open=open,
            hot=hot,
            created_at=time.time_ns() // 1_000_000,
            replaces=[old.key] if old is not None else [],
        )
        listed = Listed(entry=entry, chats=parts_of(key, packed))
        keys = [key, copy_key(key)]
        await self._manifest.begin(keys, self._owner)
        try:
            await self._put(listed, packed.data)
            await self._manifest.commit(listed, old, self._owner)
        except (LeaseLost, Damaged):
            # Whoever took over may have swept these before they were written.
            await self._manifest.forsake(keys, self._owner)
            raise
        return entry

    async def _put(self, listed: Listed, data: bytes) -> None:
        key = listed.entry.key
        await self._objects.put(key, data)
        await self._objects.put(copy_key(key), msgspec.json.encode(listed))
        problems = await problems_of(self._objects, listed.entry)
        if problems:
            raise Damaged(f"{key} was written and read back: {'; '.join(problems)}")

    async def remove(self, old: Entry) -> None:
        """Take a file out of the manifest."""
        await self._manifest.commit(None, old, self._owner)


def _pack(documents: list[Document]) -> tuple[Packed, str]:
    digest = Digest()
    digest.add(documents)
    return archive_rows.pack(documents), digest.hex


async def problems_of(objects: Objects, entry: Entry) -> list[str]:
    """What is wrong with a file and the copy of the manifest beside it; nothing, if empty."""
    try:
        data = await objects.get(entry.key)
    except Gone:
        return ["the file is missing"]
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return [f"the file has changed: {len(data)} bytes with another checksum"]
    problems: list[str] = []
    digest = Digest()
    last: tuple[str, int] = ("", -1)
    try:
        async for group in Files(_Held(data)).groups(Place(entry.key, entry.size, entry.footer)):
            digest.add(group)
            places = [last, *(archive_rows.order(each) for each in group)]
            if any(first > second for first, second in pairwise(places)):
                problems.append("the messages are not in order")
            last = places[-1]
    except Damaged as damaged:
        return [str(damaged)]
    if (digest.rows, digest.hex) != (entry.rows, entry.content):
        problems.append(f"the content differs: {digest.rows} rows, not {entry.rows} as listed")
    return problems + await _problems_of_copy(objects, entry)


async def _problems_of_copy(objects: Objects, entry: Entry) -> list[str]:
    try:
        listed = msgspec.json.decode(await objects.get(copy_key(entry.key)), type=Listed)
    except Gone:
        return ["the copy of the manifest is missing"]
    except msgspec.DecodeError as error:
        return [f"the copy of the manifest cannot be read: {error}"]
    if msgspec.structs.replace(listed.entry, hot=entry.hot, open=entry.open) != entry:
        return ["the copy of the manifest differs"]
    return []


class _Held(Objects):
    """One object that is here already."""

    def __init__(self, data: bytes):
        self._data = data

    async def part(self, key: str, start: int, end: int) -> bytes:
        return self._data[start:end]
