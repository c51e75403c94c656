"""`hikyaku restore`: a site from a backup, into servers that have nothing yet.

Everything is compared with its checksum before anything is written. The log comes last, for without
it no edge is ready: it gets a new epoch and goes on beyond every sequence that can have been given
since the backup. A restore that was interrupted leaves servers that are not empty, which the next
one refuses: empty them and begin again.

With `keep_log` only MongoDB was lost: the log stays as it is, and MongoDB is brought up to its end.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from broker import events, renewal, snapshots
from broker.bus import Bus
from broker.declared import beside
from broker.errors import BrokerError, NewerLayout, Refused
from broker.log import STREAM, Log, Stored
from broker.snapshots import Taken
from broker.streams import LAYOUT, names
from store import dump
from store.database import Database, connect
from store.documents import Entry
from store.errors import StoreError
from store.file_objects import FileObjects
from store.log_floor import LogFloor
from store.messages import Messages
from store.reads import Reads
from workers import persist
from workers.config import WorkerConfig

from .archive import Failed
from .backup_format import (
    Manifest,
    ObjectsPart,
    StreamPart,
    counted,
    object_lines,
    object_path,
    pieces,
    read_manifest,
    verify,
)
from .errors import UserError
from .local_stack import hint, of_local_stack
from .settings import Settings, worker_config

CONNECT_S = 5.0
RESTORE_FAILED = 10062
SLOW = (
    ". A server with `sync_interval: always` syncs every message and gives up when a piece takes it"
    " over 5 s: empty NATS and MongoDB, run NATS with `sync_interval: 2m` for the time of the"
    " restore, and begin again"
)
AFTER = "Start the site, then make the search anew: hikyaku search rebuild"
PING_S = 60
"""While the server stores what a piece has, some seconds, it answers no ping."""


class Restoring(NamedTuple):
    """What a step needs."""

    folder: Path
    manifest: Manifest
    config: WorkerConfig
    database: Database
    bus: Bus
    keep_log: bool


def restore(settings: Settings, source: str, *, keep_log: bool) -> int:
    """Restore the backup in the folder `source`. Raises `UserError`."""
    folder = Path(source).expanduser().absolute()
    manifest = read_manifest(folder)
    if manifest.layout_least > LAYOUT:
        newer = NewerLayout(STREAM, manifest.layout, manifest.layout_least, LAYOUT)
        raise UserError(str(newer))
    if manifest.site != settings.site:
        raise UserError(
            f"the backup is of the site {manifest.site!r}, and this is {settings.site!r}: ids and"
            f" chats have its name in them. Set HIKYAKU_SITE={manifest.site}"
        )
    age_s = time.time() - manifest.created_ms / 1000
    if age_s < 0:
        raise UserError(
            f"the clock of this machine is wrong: the backup was made {-age_s:.0f} s later than"
            " now, and ids made with this clock could be given twice. Set the clock"
        )
    print("Comparing every file with its checksum ...")
    verify(folder, manifest)
    asyncio.run(_restore(settings, folder, manifest, keep_log=keep_log))
    return 0


async def _restore(settings: Settings, folder: Path, manifest: Manifest, *, keep_log: bool) -> None:
    config = worker_config(of_local_stack(settings))
    try:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(connect(config.store))
            bus = await stack.enter_async_context(
                Bus(config.broker, name="restore", ping_interval_s=PING_S)
            )
            await bus.wait_connected(CONNECT_S)
            await _restored(Restoring(folder, manifest, config, database, bus, keep_log))
    except Refused as error:
        raise Failed(f"{error}{SLOW if error.err_code == RESTORE_FAILED else ''}") from None
    except (BrokerError, StoreError) as error:
        raise Failed(f"{error}{hint(settings) if error.retryable else ''}") from None


async def _restored(it: Restoring) -> None:
    if it.keep_log:
        await _check_log(it)
    if there := await _there(it):
        raise UserError(
            f"this is not empty: {'; '.join(there)}. A backup is restored into empty servers only,"
            " while no edge and no worker runs"
        )
    for collection in it.manifest.collections:
        with (it.folder / collection.file.path).open("rb") as file:
            await dump.load(it.database, collection.name, file, collection.indexes)
        print(f"{collection.name}: {counted(collection.documents, 'document')}")
    for part in it.manifest.objects:
        if it.keep_log and await _first(it, part):
            print(f"store of {part.store}: left as it is")
            continue
        await _objects(it, part)
        print(f"store of {part.store}: {counted(part.objects, 'object')}")
    if it.keep_log:
        brought = await _bring_up(it, sys.maxsize)
        print(f"{STREAM}: MongoDB was given {brought} events that it had not yet")
        print(f"{AFTER}; changes to groups since the backup are lost")
        return
    for stream in it.manifest.streams:
        if stream.config["name"] != STREAM:
            config = {**stream.config, "num_replicas": it.config.broker.replicas}
            await snapshots.load(it.bus, config, stream.state, _pieces(it.folder, stream))
            print(f"{stream.config['name']}: {counted(stream.state['messages'], 'message')}")
    await _log(it)


async def _log(it: Restoring) -> None:
    log = next(each for each in it.manifest.streams if each.config["name"] == STREAM)
    taken = Taken(log.config, log.state)
    age_s = time.time() - it.manifest.created_ms / 1000
    place = renewal.jump_to(it.manifest.log.last_seq, age_s)
    print(f"{STREAM}: restoring {log.state['messages']} messages ...", flush=True)
    await renewal.restore_log(it.bus, taken, _pieces(it.folder, log), place=place)
    brought = await _bring_up(it, place)
    epoch = await renewal.renew(it.bus, it.config.broker, taken, place=place)
    print(f"{STREAM}: MongoDB was given {brought} events that it had not yet")
    print(f"The log has the epoch {epoch} and goes on from {place + 1}.")
    print(AFTER)


async def _there(it: Restoring) -> list[str]:
    """What the servers have already."""
    ours = {STREAM, renewal.JUMP, *(each.name for each in beside(it.config.broker))}
    streams = sorted(ours & await names(it.bus))
    collections = await dump.filled(it.database)
    found = [f"MongoDB has {', '.join(collections)}"] if collections else []
    if it.keep_log:
        return found
    found += [f"NATS has {', '.join(streams)}"] if streams else []
    for part in it.manifest.objects:
        if key := await _first(it, part):
            found.append(f"{_store(it, part).url} has {key} (and perhaps others)")
    return found


async def _first(it: Restoring, part: ObjectsPart) -> str:
    """An object that a store has; empty if it has none. Hidden files are no objects of ours."""
    async for key in _store(it, part).list(""):
        if not key.startswith("."):
            return key
    return ""


async def _check_log(it: Restoring) -> None:
    """The log that is there has everything since the backup. Raises `UserError`."""
    backed_up, now = it.manifest.log, await Log(it.bus).state()
    shared = now.last_seq if now.epoch == backed_up.epoch else now.ancestors.get(backed_up.epoch, 0)
    if shared < backed_up.last_seq:
        why = (
            f"it is not the one of the backup (epoch {backed_up.epoch}) or one that goes on from it"
        )
    elif now.first_seq > backed_up.persisted_seq + 1:
        why = f"it begins at {now.first_seq}, and the backup's MongoDB ends at"
        why += f" {backed_up.persisted_seq}: what lies between is in neither"
    else:
        return
    raise UserError(
        f"the log cannot be kept: {why}. Empty NATS too, and restore without --keep-log"
    )


def _store(it: Restoring, part: ObjectsPart) -> FileObjects:
    urls = {"files": it.config.files.url, "archive": it.config.archive.url}
    return FileObjects(urls[part.store])


async def _objects(it: Restoring, part: ObjectsPart) -> None:
    objects = _store(it, part)
    for line in object_lines(it.folder, part):
        path = it.folder / object_path(part.store, line.key)
        await objects.put_stream(line.key, _read(path))


def _pieces(folder: Path, stream: StreamPart) -> AsyncIterator[bytes]:
    return _read(folder / stream.file.path, snapshots.CHUNK_BYTES)


async def _read(path: Path, size: int = 1024 * 1024) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        for piece in pieces(file, size):
            yield piece


async def _bring_up(it: Restoring, place: int) -> int:
    """Write into MongoDB what the log has more; how many events that were."""
    messages, reads, floor = Messages(it.database), Reads(it.database), LogFloor(it.database)
    await messages.ensure()
    log = Log(it.bus)
    seq, pending, count = it.manifest.log.persisted_seq + 1, 1, 0
    while pending:
        page = await log.read(">", seq)
        if not page.events:
            break
        entries, receipts = _sorted_out(page.events, place)
        await floor.cover(page.events[-1].seq)
        await persist.store(entries, receipts, messages, reads)
        count += len(entries) + len(receipts)
        seq, pending = page.events[-1].seq + 1, page.pending
    return count


def _sorted_out(found: list[Stored], place: int) -> tuple[list[Entry], list[persist.Receipt]]:
    entries: list[Entry] = []
    receipts: list[persist.Receipt] = []
    for each in found:
        if each.seq >= place:
            continue
        try:
            event = persist.decoded(each.subject, each.data)
        except ValueError:
            # `persist` meets it too, and buries it.
            continue
        if isinstance(event, events.ReadReceipt):
            receipts.append((each.seq, event))
        elif isinstance(event, events.Message | events.Change):
            entries.append(Entry(each.seq, event))
    return entries, receipts
