"""`hikyaku backup`: a whole site as files, taken while it serves.

In this order, so that what is restored fits together:

1. how far `persist` is, then the moment of MongoDB: it has everything of the log up to there;
2. the buckets, then the log: it has all that MongoDB had at that moment, and more. What is more is
   written into MongoDB by the restore, as `persist` would have;
3. MongoDB, as it was at that moment;
4. the objects that it names. The archive is at rest from before the moment until they are copied.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from broker import snapshots
from broker.bus import Bus
from broker.consumer import progress
from broker.declared import beside
from broker.errors import BrokerError, Refused
from broker.log import STREAM, Log
from broker.streams import LAYOUT, LEAST
from store.archive_manifest import copy_key
from store.archive_objects import Gone
from store.database import Database, connect
from store.dump import Moment, moment
from store.errors import StoreError
from store.file_objects import FileObjects
from workers.config import WorkerConfig
from workers.persist import CONSUMER

from .archive import Failed
from .backup_format import (
    FORMAT,
    PART,
    CollectionPart,
    LogPart,
    Manifest,
    ObjectLine,
    ObjectsPart,
    StreamPart,
    Writing,
    counted,
    object_path,
    publish,
    write_manifest,
)
from .errors import UserError
from .local_stack import hint, of_local_stack
from .personal import archive_at_rest
from .settings import Settings, worker_config

CONNECT_S = 5.0
VERSION = "0.1.0"


def backup(settings: Settings, to: str, *, objects: bool) -> int:
    """Write a backup into the new folder `to`. Raises `UserError`."""
    folder = Path(to).expanduser().absolute()
    if folder.exists():
        raise UserError(f"{folder} is there already; name a new folder")
    part = folder.with_name(f".{folder.name}{PART}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if part.exists():
            print(f"Removing {part}, which an interrupted backup left.")
            shutil.rmtree(part)
        part.mkdir(mode=0o700)
        begun = time.monotonic()
        try:
            manifest = asyncio.run(_backup(settings, part, objects=objects))
            write_manifest(part, manifest)
            publish(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise Failed(f"cannot write {error.filename or folder}: {error.strerror}") from None
    _show(manifest, folder, time.monotonic() - begun)
    return 0


async def _backup(settings: Settings, folder: Path, *, objects: bool) -> Manifest:
    config = worker_config(of_local_stack(settings))
    try:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(connect(config.store))
            bus = await stack.enter_async_context(Bus(config.broker, name="backup"))
            await bus.wait_connected(CONNECT_S)
            return await _taken(config, database, bus, folder, objects=objects)
    except (BrokerError, StoreError) as error:
        raise Failed(f"{error}{hint(settings) if error.retryable else ''}") from None


async def _taken(
    config: WorkerConfig, database: Database, bus: Bus, folder: Path, *, objects: bool
) -> Manifest:
    async with archive_at_rest(database):
        persisted = await _persisted(bus)
        async with moment(database) as then:
            created_ms = time.time_ns() // 1_000_000
            state = await Log(bus).state()
            names = [*(each.name for each in beside(config.broker)), STREAM]
            streams = [await _stream(bus, name, folder) for name in names]
            collections = [await _collection(then, name, folder) for name in await then.names()]
            keys = {"files": _files(then), "archive": _archived(then)} if objects else {}
            stores = {"files": config.files.url, "archive": config.archive.url}
            copied = [
                await _objects(FileObjects(stores[name]), name, found, folder)
                for name, found in keys.items()
            ]
    log = streams[-1]
    return Manifest(
        format=FORMAT,
        version=VERSION,
        site=config.site,
        layout=LAYOUT,
        layout_least=LEAST,
        created_ms=created_ms,
        finished_ms=time.time_ns() // 1_000_000,
        log=LogPart(
            epoch=state.epoch,
            first_seq=log.state["first_seq"],
            last_seq=log.state["last_seq"],
            persisted_seq=persisted,
        ),
        streams=streams,
        collections=collections,
        objects=copied,
    )


async def _persisted(bus: Bus) -> int:
    """Up to where MongoDB certainly has the log."""
    try:
        return (await progress(bus, CONSUMER)).floor
    except Refused:
        return 0


async def _stream(bus: Bus, name: str, folder: Path) -> StreamPart:
    file = Writing(folder, f"streams/{name}.snapshot")
    taken = await snapshots.save(bus, name, file.write)
    return StreamPart(file=file.close(), config=taken.config, state=taken.state)


async def _collection(then: Moment, name: str, folder: Path) -> CollectionPart:
    indexes = await then.indexes(name)
    file = Writing(folder, f"database/{name}.bson")
    count = await then.write(name, file.write)
    return CollectionPart(name=name, file=file.close(), documents=count, indexes=indexes)


async def _files(then: Moment) -> AsyncIterator[str]:
    async for each in then.values("file_blobs", "key", "thumbnail", "stored"):
        if each.get("stored"):
            for name in ("key", "thumbnail"):
                if each.get(name):
                    yield each[name]


async def _archived(then: Moment) -> AsyncIterator[str]:
    async for each in then.values("archives"):
        yield each["_id"]
        yield copy_key(each["_id"])


async def _objects(
    objects: FileObjects, store: str, keys: AsyncIterator[str], folder: Path
) -> ObjectsPart:
    index = Writing(folder, f"objects/{store}.jsonl")
    count = size = missing = 0
    async for key in keys:
        file = Writing(folder, object_path(store, key))
        try:
            async for piece in objects.whole(key):
                file.write(piece)
        except Gone:
            # Deleted since the moment: then the log has the deletion, or it was nobody's.
            file.close()
            (folder / object_path(store, key)).unlink()
            missing += 1
            continue
        done = file.close()
        line = ObjectLine(key=key, size=done.size, sha256=done.sha256)
        index.write(msgspec.json.encode(line) + b"\n")
        count, size = count + 1, size + done.size
    return ObjectsPart(store=store, index=index.close(), objects=count, bytes=size, missing=missing)


def _show(manifest: Manifest, folder: Path, took_s: float) -> None:
    documents = sum(each.documents for each in manifest.collections)
    log = manifest.log
    print(f"The log from {log.first_seq} to {log.last_seq}, epoch {log.epoch};")
    print(f"{len(manifest.streams) - 1} other streams and buckets;")
    print(f"{documents} documents of MongoDB in {len(manifest.collections)} collections;")
    for each in manifest.objects:
        gone = f" ({each.missing} were deleted meanwhile)" if each.missing else ""
        print(f"{counted(each.objects, 'object')} of the store of {each.store}{gone};")
    if not manifest.objects:
        print("no objects: back up the stores of files and of the archive yourself;")
    print(f"{manifest.size / 1e6:.1f} MB in {took_s:.1f} s: the backup is in {folder}.")
