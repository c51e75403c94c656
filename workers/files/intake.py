"""From bytes on disk to a file that is there: known, scanned, cleaned, stored once.

Nothing of a file can be seen before the last step, which is one transaction.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from prometheus_client import Metric

from broker.files import PATH, File
from broker.metrics import counter, gauge
from broker.snowflake import unix_ms
from store.file_objects import FileObjects
from store.files import Blob, FileRecord, Files, Lost, QuotaReached, new_id

from ..config import FilesConfig
from .errors import Refused
from .images import Images
from .kinds import IMAGES, kind_of
from .scanner import Scanner
from .spool import Spool
from .turns import Turns

AT_ONCE = 24
AT_ONCE_PER_USER = 8
STORED_AT_ONCE = 4
"""The object store's client holds some megabytes of each."""

RACES = 3
THUMBNAIL_TYPE = "image/webp"

_log = logging.getLogger("hikyaku.files")


class Source(NamedTuple):
    """Whose file it is, for which chat, under which name; `upload`: what it came from.

    `id` is that of a file of another site, which counts for nobody's quota.
    """

    owner: str
    chat: str
    name: str
    upload: str | None = None
    id: str | None = None


class Intake:
    """Takes files in. Raises `Refused` and `StoreError`."""

    def __init__(self, config: FilesConfig, files: Files, objects: FileObjects):
        self._config = config
        self._files = files
        self._objects = objects
        self._images = Images(pixels=config.pixels, file_bytes=config.file_bytes)
        self._scanner = Scanner(config.clamd) if config.clamd else None
        self._uploading: dict[str, int] = {}
        self._storing = Turns(STORED_AT_ONCE, "files")
        self.uploads = 0
        self.bytes = 0
        self.deduplicated = 0

    # --- before a file is there ---

    @contextmanager
    def turn(self, user: str) -> Iterator[None]:
        """One of the uploads that go on at once, while the block runs. Raises `Refused`."""
        mine = self._uploading.get(user, 0)
        if sum(self._uploading.values()) >= AT_ONCE or mine >= AT_ONCE_PER_USER:
            raise Refused("overloaded", "too many uploads at once; try again")
        self._uploading[user] = mine + 1
        try:
            yield
        finally:
            self._uploading[user] -= 1
            if not self._uploading[user]:
                del self._uploading[user]

    def spool(self) -> Spool:
        """A place for a file on its way."""
        return Spool(self._config.spool, self._config.file_bytes)

    async def check_quota(self, owner: str, size: int) -> None:
        """Raises `Refused` when a file of this size does not fit any more."""
        quota = self._config.quota_bytes
        if quota and (used := await self._files.used(owner)) + size > quota:
            raise _quota_reached(used, quota)

    # --- the file ---

    async def take(self, spool: Spool, source: Source) -> File:
        """Make a file of what was written into the spool."""
        await spool.flush()
        if self._scanner is not None:
            await self._scanner.check(spool.read())
        kind = kind_of(spool.head())
        with ExitStack() as stack:
            kept, thumbnail, width, height = spool, None, None, None
            if kind in IMAGES:
                # An image that is turned, or one of few pixels, may take more than it did.
                kept, thumbnail = (
                    stack.enter_context(Spool(self._config.spool, 2 * self._config.file_bytes))
                    for _ in range(2)
                )
                looked = await self._images.look(spool, IMAGES[kind], kept, thumbnail)
                width, height = looked.width, looked.height
            file = await self._keep(kept, thumbnail, kind, source, (width, height))
        self.uploads += 1
        self.bytes += file.size
        return file

    async def _keep(
        self,
        kept: Spool,
        thumbnail: Spool | None,
        kind: str,
        source: Source,
        size: tuple[int | None, int | None],
    ) -> File:
        for _ in range(RACES):
            now = unix_ms()
            blob = await self._files.reserve(kept.sha256, thumbnail=thumbnail is not None, now=now)
            record = FileRecord(
                id=source.id or new_id(),
                chat=source.chat,
                owner=source.owner,
                name=source.name,
                size=kept.size,
                content_type=kind,
                sha256=kept.sha256,
                key=blob.key,
                thumbnail=blob.thumbnail,
                width=size[0],
                height=size[1],
                at=now,
            )
            await self._store(blob, kept, thumbnail)
            try:
                await self._files.commit(
                    record,
                    keep_until=now + int(self._config.orphan_s * 1000),
                    quota=0 if source.id else self._config.quota_bytes,
                    upload=source.upload,
                )
            except QuotaReached as reached:
                raise _quota_reached(reached.used, self._config.quota_bytes) from None
            except Lost as lost:
                _log.info("a file is stored again: %s", lost)
                await self._files.abandon(blob)
                continue
            return described(record)
        raise Refused("unavailable", "the file could not be stored; try again")

    async def _store(self, blob: Blob, kept: Spool, thumbnail: Spool | None) -> None:
        if blob.stored:
            self.deduplicated += 1
            return
        async with self._storing.take():
            await self._objects.put_stream(blob.key, kept.read())
            if thumbnail is not None and blob.thumbnail is not None:
                await self._objects.put_stream(blob.thumbnail, thumbnail.read())

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield counter("hikyaku_files_uploads_total", "Files taken in.", self.uploads)
        yield counter("hikyaku_files_uploaded_bytes_total", "Bytes taken in.", self.bytes)
        text = "Uploads whose content was there already."
        yield counter("hikyaku_files_deduplicated_total", text, self.deduplicated)
        text = "Files that wait to be put into the object store."
        yield gauge("hikyaku_files_storing_waiting", text, self._storing.waiting)
        text = "Uploads on their way."
        yield gauge("hikyaku_files_uploading", text, sum(dict(self._uploading).values()))
        results = {"looked": self._images.looked, "refused": self._images.refused}
        text = "Images looked into, or refused."
        yield counter("hikyaku_files_images_total", text, results, "result")
        text = "Images that wait to be looked into."
        yield gauge("hikyaku_files_images_waiting", text, self._images.turns.waiting)
        if self._scanner is not None:
            text = "Uploads in which the scanner found something."
            yield counter("hikyaku_files_infected_total", text, self._scanner.infected)
            text = "Uploads that the scanner did not judge."
            yield counter("hikyaku_files_scanner_failures_total", text, self._scanner.failures)


def described(record: FileRecord) -> File:
    """A file as clients see it."""
    return File(
        id=record.id,
        name=record.name,
        size=record.size,
        content_type=record.content_type,
        sha256=record.sha256,
        width=record.width,
        height=record.height,
        thumbnail=f"{PATH}/{record.id}/thumbnail" if record.thumbnail else None,
    )


def _quota_reached(used: int, quota: int) -> Refused:
    message = f"file: your files take {used} of {quota} bytes; delete messages with files"
    return Refused("too_large", message)
