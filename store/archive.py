"""Moves old messages from MongoDB into files of an object store. See `docs/archive.md`.

One run: finish what an earlier one left, move what is old, remove what is past its time, rewrite
the files whose messages were changed, delete the files that were replaced. A run may be killed at
any point; the next one finishes it.
"""

import logging
import zlib
from collections.abc import AsyncIterator, Callable, Iterable

from msgspec import Struct

from .archive_files import Files, Place
from .archive_hot import Hot
from .archive_lease import Lease
from .archive_manifest import Entry, Manifest
from .archive_objects import Objects
from .archive_retention import Names, Retention
from .archive_rows import Document, merged
from .archive_writer import Batch, Writer
from .config import ArchiveConfig
from .database import Database

Scrub = Callable[[Document], Document]
"""What is to be changed in every archived message; gives the same object for no change."""

_log = logging.getLogger("hikyaku.archive")


class Report(Struct, kw_only=True):
    """What a run did."""

    moved: int = 0
    removed: int = 0
    changed: int = 0
    written: int = 0
    deleted: int = 0


class Archive:
    """Runs the archive. Raises `Busy`, `LeaseLost`, `StoreUnavailable`, `Damaged`."""

    def __init__(self, database: Database, objects: Objects, config: ArchiveConfig, names: Names):
        self._database = database
        self._objects = objects
        self._config = config
        self._names = names
        self.manifest = Manifest(database)

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        await self.manifest.ensure()

    async def run(self, scrub: Scrub | None = None) -> Report:
        """One run, as the only one at a time; tells what it did."""
        async with Lease(self._database) as lease:
            days, ahead_ms = self._config.retention_days, await self._database.ahead_ms()
            report = await Run(
                Hot(self._database),
                self.manifest,
                self._objects,
                Retention(self._database, self._names, days, ahead_ms),
                self._config,
                lease.owner,
            ).all(scrub)
            await lease.finish()
            return report


class Run:
    """One run of the archive, by the holder of the lease."""

    def __init__(
        self,
        hot: Hot,
        manifest: Manifest,
        objects: Objects,
        retention: Retention,
        config: ArchiveConfig,
        owner: str,
    ):
        self._hot = hot
        self._manifest = manifest
        self._objects = objects
        self._retention = retention
        self._config = config
        self._owner = owner
        self._files = Files(objects)
        self._writer = Writer(manifest, objects, owner)
        self._old = retention.before(config.hot_days)
        self._lost = min(self._old, retention.before(config.log_days))
        self.report = Report()

    async def all(self, scrub: Scrub | None = None) -> Report:
        """Everything, in order."""
        await self._sweep()
        async for entry in self._manifest.entries({"hot": True}):
            await self._clear(entry)
        await self._move()
        await self._expire()
        await self._apply_changes()
        async for entry in self._to_rewrite(everything=scrub is not None):
            await self._rewrite(entry, scrub)
        await self._sweep()
        return self.report

    def _bucket_of(self, chat: str) -> int:
        return zlib.crc32(chat.encode()) % self._config.buckets

    async def _sweep(self) -> None:
        """Delete the objects that nothing needs."""
        while keys := await self._manifest.garbage(self._owner):
            for key in keys:
                if not await self._manifest.lists(key):
                    await self._objects.delete(key)
                await self._manifest.swept(key)
            self.report.deleted += len(keys)

    # --- from MongoDB into files ---

    async def _clear(self, entry: Entry) -> None:
        async for group in self._files.groups(_place(entry)):
            await self._hot.clear(group)
        await self._manifest.cleared(entry.key)

    async def _move(self) -> None:
        after = 0
        while True:
            refs = await self._hot.old(after, self._old, self._bucket_of)
            if not refs.last:
                return
            for bucket in sorted(refs.ids):
                await self._move_bucket(bucket, refs.ids[bucket])
            after = refs.last

    async def _move_bucket(self, bucket: int, ids: Iterable[int]) -> None:
        old = await self._manifest.open_entry(bucket)
        batch = Batch(self._config)
        fresh: list[Document] = []
        async for documents in self._hot.documents(ids):
            for document in await self._movable(documents):
                if not fresh and old is not None:
                    async for group in self._files.groups(_place(old)):
                        for each in group:
                            batch.add(each)
                if batch.full:
                    await self._moved(batch, fresh, bucket, old)
                    old, batch, fresh = None, Batch(self._config), []
                batch.add(document)
                fresh.append(document)
        if fresh:
            await self._moved(batch, fresh, bucket, old)

    async def _movable(self, documents: list[Document]) -> list[Document]:
        """Not the last message of a chat, which stays at hand; what is past its time is removed."""
        chats = {each["chat"] for each in documents}
        limits = await self._retention.limits(chats)
        past = {int(each["_id"]) for each in documents if each["_id"] < limits[each["chat"]]}
        self.report.removed += await self._hot.remove(past)
        last = await self._hot.last_seqs(chats)
        return [
            each
            for each in documents
            if int(each["_id"]) not in past and last.get(each["chat"]) != each["seq"]
        ]

    async def _moved(
        self, batch: Batch, fresh: list[Document], bucket: int, old: Entry | None
    ) -> None:
        entry = await self._writer.write(
            batch.documents, bucket, old=old, open=not batch.full, hot=True
        )
        await self._hot.clear(fresh)
        await self._manifest.cleared(entry.key)
        self.report.moved += len(fresh)
        self.report.written += 1
        _log.info("%s: %d messages, %d of them new", entry.key, entry.rows, len(fresh))

    # --- what is past its time ---

    async def _expire(self) -> None:
        """Remove messages that are not old enough for the archive but past their time."""
        async for chat, limit in self._retention.groups():
            self.report.removed += await self._hot.expire(chat, limit)
        after = self._old - 1
        while after < self._retention.default:
            refs = await self._hot.old(after, self._retention.default, self._bucket_of)
            if not refs.last:
                return
            for ids in refs.ids.values():
                async for documents in self._hot.documents(ids):
                    limits = await self._retention.limits({each["chat"] for each in documents})
                    past = [d["_id"] for d in documents if d["_id"] < limits[d["chat"]]]
                    self.report.removed += await self._hot.remove(past)
            after = refs.last

    async def _to_rewrite(self, *, everything: bool) -> AsyncIterator[Entry]:
        """The files with messages that are past their time, or all."""
        if everything:
            async for entry in self._manifest.entries():
                yield entry
            return
        async for entry in self._manifest.entries({"min_id": {"$lt": self._retention.default}}):
            if await self._has_past(entry):
                yield entry
        async for chat, limit in self._retention.groups():
            query = {"chat": chat, "min_id": {"$lt": limit}}
            files = [part.file async for part in self._manifest.parts(query)]
            for key in files:
                found = await self._manifest.entry(key)
                if found is not None:
                    yield found

    async def _has_past(self, entry: Entry) -> bool:
        parts = [part async for part in self._manifest.parts({"file": entry.key})]
        limits = await self._retention.limits({part.chat for part in parts})
        return any(part.min_id < limits[part.chat] for part in parts)

    # --- changes of archived messages ---

    async def _apply_changes(self) -> None:
        after = 0
        below = max(self._old, await self._manifest.highest_id() + 1)
        while True:
            changes = await self._hot.changes(after, below)
            if not changes.last:
                return
            left = {each for ids in changes.ids.values() for each in ids}
            files: set[str] = set()
            for chat, ids in changes.ids.items():
                files |= await self._manifest.holding(chat, ids)
            for key in files:
                entry = await self._manifest.entry(key)
                if entry is not None:
                    left -= await self._rewrite(entry, None)
            stray = await self._hot.changes_of(each for each in left if each < self._lost)
            await self._hot.drop(stray.values())
            after = changes.last

    async def _rewrite(self, entry: Entry, scrub: Scrub | None) -> set[int]:
        """Make its changes to a file, leave out what is past its time; gives the ids changed."""
        kept: list[Document] = []
        met: dict[int, Document] = {}
        removed = changed = 0
        async for group in self._files.groups(_place(entry)):
            limits = await self._retention.limits({each["chat"] for each in group})
            changes = await self._hot.changes_of(int(each["_id"]) for each in group)
            met.update(changes)
            for each in group:
                key = int(each["_id"])
                if key < limits[each["chat"]]:
                    removed += 1
                    continue
                document = merged(each, changes[key]) if key in changes else each
                document = scrub(document) if scrub is not None else document
                changed += document != each
                kept.append(document)
        if not kept:
            await self._writer.remove(entry)
        elif removed or changed:
            await self._writer.write(kept, entry.bucket, old=entry, open=entry.open, hot=False)
            self.report.written += 1
        await self._hot.drop(met.values())
        self.report.removed += removed
        self.report.changed += changed
        return set(met)


def _place(entry: Entry) -> Place:
    return Place(entry.key, entry.size, entry.footer)
