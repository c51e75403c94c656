"""Runs one worker process until it is told to stop (SIGTERM or SIGINT)."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import uvloop

from broker import subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.dead import DeadLetters
from broker.declared import declared
from broker.errors import BrokerError
from broker.log import Log
from broker.streams import ensure
from store.archive import Archive
from store.archive_objects import Objects
from store.archive_reader import Reader
from store.database import Database, connect
from store.directory import Directory
from store.errors import StoreError
from store.history import History
from store.messages import Messages
from store.reads import Reads

from .archive import NAMES, ArchiveWorker
from .config import WorkerConfig
from .directory import DirectoryWorker, events_of
from .metrics import serving
from .persist import CONSUMER, PersistWorker
from .query import QueryWorker

RETRY_S = 1.0
CONNECT_S = 5.0

_log = logging.getLogger("hikyaku.worker")


def run(name: str, config: WorkerConfig) -> None:
    """Run the worker `name` (see `WORKERS`) until SIGTERM or SIGINT. Raises `KeyError`."""
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop.run(_run(WORKERS[name], config))


async def _run(worker: Callable[[WorkerConfig], Awaitable[None]], config: WorkerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    working = asyncio.ensure_future(worker(config))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
    await asyncio.wait([working])
    if not working.cancelled():
        working.result()


async def until_ready(what: str, attempt: Callable[[], Awaitable[None]]) -> None:
    """Repeat `attempt` until the service it needs answers; says each time what is missing."""
    while True:
        try:
            await attempt()
            return
        except (BrokerError, StoreError) as error:
            _log.warning("waiting for %s: %s", what, error)
            await asyncio.sleep(RETRY_S)


async def run_directory(config: WorkerConfig) -> None:
    """Answer `svc.directory.*` until cancelled."""
    async with AsyncExitStack() as stack:
        database, publishing, asking = await _begin("directory", config, stack)
        directory = _directory(config, database)
        await until_ready("MongoDB", directory.ensure)
        committer = await stack.enter_async_context(Committer(publishing, Log(publishing)))
        worker = await stack.enter_async_context(DirectoryWorker(asking, committer, directory))
        stack.enter_context(serving("directory", config.health_port, worker.numbers))
        _log.info("directory is ready")
        await asyncio.Event().wait()


async def run_persist(config: WorkerConfig) -> None:
    """Carry the log into MongoDB until cancelled."""
    async with AsyncExitStack() as stack:
        database, _, reading = await _begin("persist", config, stack)
        messages = Messages(database)
        await until_ready("MongoDB", messages.ensure)
        worker = PersistWorker(reading, messages, Reads(database), DeadLetters(reading))
        stack.enter_context(serving("persist", config.health_port, worker.numbers))
        _log.info("persist is ready")
        await worker.run()


async def run_query(config: WorkerConfig) -> None:
    """Answer `svc.query.*` until cancelled."""
    async with AsyncExitStack() as stack:
        database, publishing, asking = await _begin("query", config, stack)
        archive = Reader(database, Objects(config.archive.url))
        await until_ready("MongoDB", archive.ensure)
        committer = await stack.enter_async_context(Committer(publishing, Log(publishing)))
        worker = QueryWorker(
            asking,
            committer,
            history=History(database, chat_of=subjects.group, archive=archive),
            directory=_directory(config, database),
            reads=Reads(database),
        )
        await until_ready("the read pointers", worker.restore_pointers)
        await stack.enter_async_context(worker)
        stack.enter_context(serving("query", config.health_port, worker.numbers))
        _log.info("query is ready")
        await asyncio.Event().wait()


async def run_archive(config: WorkerConfig) -> None:
    """Archive old messages until cancelled."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connect(config.store))
        archive = Archive(database, Objects(config.archive.url), config.archive, NAMES)
        await until_ready("MongoDB", archive.ensure)
        worker = ArchiveWorker(database, archive, interval_s=config.archive_interval_s)
        stack.enter_context(serving("archive", config.health_port, worker.numbers))
        _log.info("archive is ready")
        await worker.run()


async def _begin(
    name: str, config: WorkerConfig, stack: AsyncExitStack
) -> tuple[Database, Bus, Bus]:
    """The database, and two connections to NATS: one publishes, one receives and asks."""
    database = await stack.enter_async_context(connect(config.store))
    publishing = await stack.enter_async_context(Bus(config.broker, name=f"{name} publish"))
    asking = await stack.enter_async_context(Bus(config.broker, name=name))

    async def streams_ready() -> None:
        await publishing.wait_connected(CONNECT_S)
        await asking.wait_connected(CONNECT_S)
        await ensure(publishing, declared(config.broker), [CONSUMER])

    await until_ready("NATS", streams_ready)
    return database, publishing, asking


def _directory(config: WorkerConfig, database: Database) -> Directory:
    return Directory(
        database, site=config.site, max_members=config.group_members, events_of=events_of
    )


WORKERS: dict[str, Callable[[WorkerConfig], Awaitable[None]]] = {
    "directory": run_directory,
    "persist": run_persist,
    "query": run_query,
    "archive": run_archive,
}
