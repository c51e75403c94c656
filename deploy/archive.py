"""`hikyaku archive`: run it now, compare its files with the manifest, make a lost manifest anew."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from store.archive import Archive
from store.archive_check import Check
from store.archive_lease import Busy
from store.archive_objects import Objects
from store.archive_retention import Retention
from store.database import Database, connect
from store.errors import StoreError, StoreUnavailable
from workers.archive import NAMES
from workers.config import WorkerConfig

from .errors import UserError
from .local_stack import hint, of_local_stack
from .settings import Settings, worker_config


class Failed(UserError):
    """The archive cannot do it now."""

    exit_code = 1


def run(settings: Settings) -> int:
    """Archive what is old now. Raises `UserError`."""
    return _do(settings, _run)


def verify(settings: Settings) -> int:
    """Compare every file with the manifest; 1 if anything is wrong. Raises `UserError`."""
    return _do(settings, _verify)


def rebuild(settings: Settings) -> int:
    """List files that the manifest has lost. Raises `UserError`."""
    return _do(settings, _rebuild)


def keep(settings: Settings, group_id: str, days: float | None) -> int:
    """Set how long a group's messages are kept; None: as others. Raises `UserError`."""

    async def work(config: WorkerConfig, database: Database, _: Objects) -> int:
        retention = Retention(database, NAMES, config.archive.retention_days)
        if not await retention.keep(group_id, days):
            raise UserError(f"there is no group {group_id!r}")
        kept = "as others" if days is None else f"for {days:g} days" if days else "for ever"
        print(f"Messages of {group_id!r} are kept {kept}, from the next run on.")
        return 0

    return _do(settings, work)


_Work = Callable[[WorkerConfig, Database, Objects], Awaitable[int]]


def _do(settings: Settings, work: _Work) -> int:
    async def done() -> int:
        async with opened(settings) as (config, database, objects):
            return await work(config, database, objects)

    try:
        return asyncio.run(done())
    except Busy as busy:
        raise Failed(f"{busy}; try again when it has finished") from None
    except StoreUnavailable as error:
        raise Failed(f"{error}{hint(settings)}") from None
    except StoreError as error:
        raise Failed(str(error)) from None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[WorkerConfig, Database, Objects]]:
    """The configuration of a worker, the database, and the object store."""
    config = worker_config(of_local_stack(settings))
    async with connect(config.store) as database:
        yield config, database, Objects(config.archive.url)


async def _run(config: WorkerConfig, database: Database, objects: Objects) -> int:
    archive = Archive(database, objects, config.archive, NAMES)
    begin = time.monotonic()
    await archive.ensure()
    report = await archive.run()
    print(
        f"Archived {report.moved} messages, changed {report.changed}, removed {report.removed};"
        f" {report.written} files written, {report.deleted} objects deleted"
        f" ({time.monotonic() - begin:.1f} s)."
    )
    return 0


async def _verify(_: WorkerConfig, database: Database, objects: Objects) -> int:
    check = Check(database, objects)
    wrong = 0
    async for problem in check.problems():
        wrong += 1
        print(f"{problem.key}: {problem.what}", file=sys.stderr)
    print(f"Files: {check.files}. Messages in them: {check.rows}. Problems: {wrong or 'none'}.")
    if wrong:
        print("Put files back as they were from a backup of the object store, and verify again.")
    return 1 if wrong else 0


async def _rebuild(config: WorkerConfig, database: Database, objects: Objects) -> int:
    await Archive(database, objects, config.archive, NAMES).ensure()
    listed = await Check(database, objects).rebuild()
    print(f"Files listed again: {listed or 'none; MongoDB knew of all'}.")
    return 0
