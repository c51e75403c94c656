"""Runs one worker process until it is told to stop (SIGTERM or SIGINT).

What only some workers need is imported where they run: with everything, each took twice as long to
start, and 80 MB more.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import msgspec
import uvloop

from broker import subjects
from broker.alive import Alive
from broker.bus import Bus
from broker.committer import Committer
from broker.dead import DeadLetters
from broker.doubt import Doubts
from broker.errors import BrokerError, OlderLog
from broker.following import following
from broker.log import Log
from broker.roles import POSTMAN
from broker.streams import Consumer
from store.database import Database, connect
from store.directory import Directory
from store.errors import StoreError
from store.log_floor import LogFloor
from store.messages import Messages
from store.reads import Reads

from .bus_keeper import MAKERS, BusKeeper
from .config import WorkerConfig
from .directory import DirectoryWorker, events_of
from .metrics import serving
from .persist import CONSUMER, PersistWorker

INDEX_THREADS = 2
QUERY_THREADS = 8
RETRY_S = 1.0
CONNECT_S = 5.0

_log = logging.getLogger("hikyaku.worker")


def run(name: str, config: WorkerConfig) -> None:
    """Run the worker `name` (see `WORKERS`) until SIGTERM or SIGINT.

    Raises `KeyError`, and `OlderLog` when NATS' data is older than MongoDB's.
    """
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
        if (older := _older_log(working.exception())) is not None:
            raise older
        working.result()


def _older_log(error: BaseException | None) -> OlderLog | None:
    """The one among what ended a worker's tasks."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _older_log(each))), None)
    return error if isinstance(error, OlderLog) else None


async def until_ready(
    what: str, attempt: Callable[[], Awaitable[None]], alive: Alive | None = None
) -> None:
    """Repeat `attempt` until the service it needs answers; says what is missing, once for each.

    Who pings is told as well, by `alive`.
    """
    said = ""
    while True:
        try:
            await attempt()
            break
        except (BrokerError, StoreError) as error:
            if str(error) != said:
                _log.warning("waiting for %s: %s", what, error)
            said = str(error)
            if alive is not None:
                alive.waits(said)
            await asyncio.sleep(RETRY_S)
    if alive is not None:
        alive.waits("")


async def run_directory(config: WorkerConfig) -> None:
    """Answer `svc.directory.*` until cancelled."""
    async with AsyncExitStack() as stack:
        database, publishing, asking, keeper = await _begin("directory", config, stack)
        directory = _directory(config, database)
        await until_ready("MongoDB", directory.ensure)
        committer = await stack.enter_async_context(Committer(publishing, Log(publishing)))
        worker = await stack.enter_async_context(DirectoryWorker(asking, committer, directory))
        stack.enter_context(serving(config, worker.metrics))
        _log.info("directory is ready")
        await keeper.run()


async def run_persist(config: WorkerConfig) -> None:
    """Carry the log into MongoDB until cancelled."""
    async with AsyncExitStack() as stack:
        database, _, reading, keeper = await _begin("persist", config, stack)
        messages = Messages(database)
        await until_ready("MongoDB", messages.ensure)
        worker = PersistWorker(
            reading,
            messages,
            Reads(database),
            DeadLetters(reading),
            LogFloor(database),
            following(config.follow, "persist"),
        )
        stack.enter_context(serving(config, worker.metrics))
        _log.info("persist is ready")
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run())
            group.create_task(worker.run())


async def run_query(config: WorkerConfig) -> None:
    """Answer `svc.query.*` until cancelled."""
    from search.indexes import Indexes
    from search.server import SearchServer
    from store.archive_objects import Objects
    from store.archive_reader import Reader
    from store.history import History
    from store.searchable import SearchNumbers

    from .query import QueryWorker

    async with AsyncExitStack() as stack:
        database, publishing, asking, keeper = await _begin("query", config, stack)
        archive = Reader(database, Objects(config.archive.url))
        await until_ready("MongoDB", database.ping)
        search = SearchServer(config.search, threads=QUERY_THREADS)
        await stack.enter_async_context(search)
        committer = await stack.enter_async_context(Committer(publishing, Log(publishing)))
        worker = QueryWorker(
            asking,
            committer,
            history=History(database, chat_of=subjects.group, archive=archive),
            directory=_directory(config, database),
            reads=Reads(database),
            indexes=Indexes(search, config.search),
            search_numbers=SearchNumbers(database),
        )
        await until_ready("the read pointers", worker.receipts.restore)
        await stack.enter_async_context(worker)
        stack.enter_context(serving(config, worker.metrics))
        _log.info("query is ready")
        await keeper.run(also=worker.receipts.restore)


async def run_index(config: WorkerConfig) -> None:
    """Carry the log into the search index until cancelled."""
    from search.indexes import Indexes
    from search.server import SearchServer
    from store.searchable import Searchable, SearchNumbers

    from . import index
    from .index_house import IndexHouse
    from .settle import Settler

    async with AsyncExitStack() as stack:
        database, _, reading, keeper = await _begin("index", config, stack, [index.CONSUMER])
        search = SearchServer(config.search, threads=INDEX_THREADS)
        indexes = Indexes(await stack.enter_async_context(search), config.search)
        messages, numbers = Searchable(database), SearchNumbers(database)
        worker = index.IndexWorker(
            reading,
            Settler(messages, indexes, days=config.search.days),
            indexes=indexes,
            numbers=numbers,
            house=IndexHouse(
                indexes,
                messages,
                numbers,
                days=config.search.days,
                retention_days=config.archive.retention_days,
            ),
            dead=DeadLetters(reading),
            following=following(config.follow, index.NAME),
        )
        stack.enter_context(serving(config, worker.metrics))
        _log.info("index is ready")
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run())
            group.create_task(worker.run())


async def run_archive(config: WorkerConfig) -> None:
    """Archive old messages until cancelled."""
    from store.archive import Archive
    from store.archive_objects import Objects
    from store.archive_reader import Reader

    from .archive import NAMES, ArchiveWorker

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connect(config.store))
        objects = Objects(config.archive.url)
        archive = Archive(database, objects, config.archive, NAMES)
        # Indexes of those who read the archive too: `query` may write nothing.
        await until_ready("MongoDB", Reader(database, objects).ensure)
        worker = ArchiveWorker(database, archive, interval_s=config.archive_interval_s)
        stack.enter_context(serving(config, worker.metrics))
        _log.info("archive is ready")
        await worker.run()


async def run_notify(config: WorkerConfig) -> None:
    """Push to members who are not here until cancelled."""
    from .notify_parts import NotifyParts

    async with AsyncExitStack() as stack:
        database, live, asking, keeper = await _begin("notify", config, stack)
        parts = NotifyParts(config, database, live, asking)
        await until_ready("MongoDB", parts.ensure)

        async def begun() -> None:
            await stack.enter_async_context(parts)

        await until_ready("NATS", begun)
        stack.enter_context(serving(config, parts.metrics))
        _log.info("notify is ready")
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run())
            group.create_task(parts.worker.run())


async def run_files(config: WorkerConfig) -> None:
    """Take files in and give them out until cancelled."""
    if not config.files.port or not config.files.secret:
        raise SystemExit("files: set HIKYAKU_FILES_PORT and HIKYAKU_INTERNAL_SECRET")
    from .files.service import FilesWorker

    async with AsyncExitStack() as stack:
        database, _, asking, keeper = await _begin("files", config, stack)
        worker = FilesWorker(config, asking, database, _directory(config, database))
        await until_ready("MongoDB", worker.files.ensure)
        stack.enter_context(serving(config, worker.metrics))
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run())
            group.create_task(worker.run())


async def run_relay(config: WorkerConfig) -> None:
    """Link this site with others until cancelled."""
    from store.mirrored import Mirrored

    from .relay.leading import Lead
    from .relay.worker import Relay, RelayWorker

    async with AsyncExitStack() as stack:
        database, _, asking, keeper = await _begin("relay", config, stack)
        directory = _directory(config, database)
        mirrored = Mirrored(database)
        for each in (directory.ensure, mirrored.guests.ensure):
            await until_ready("MongoDB", each)
        outside = msgspec.structs.replace(config.broker, role=POSTMAN)
        federation = await stack.enter_async_context(Bus(outside, name="relay federation"))
        await until_ready("NATS", lambda: federation.wait_connected(CONNECT_S))
        lead = Lead(asking)

        def make() -> RelayWorker:
            return RelayWorker(
                config.site,
                asking,
                federation,
                directory,
                mirrored,
                presence_lease_s=config.presence_lease_s,
                machines=config.broker.machines,
                parcels_per_s=config.link_parcels_per_s,
                check=lead.check,
            )

        relay = Relay(make)
        stack.enter_context(serving(config, relay.metrics))
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run())
            group.create_task(lead.run(relay.run))


async def _begin(
    name: str, config: WorkerConfig, stack: AsyncExitStack, own: Sequence[Consumer] = ()
) -> tuple[Database, Bus, Bus, BusKeeper]:
    """The database, two connections to NATS (one publishes, one receives and asks), the keeper.

    `own` are the worker's own consumers.
    """
    database = await stack.enter_async_context(connect(config.store))
    doubts = Doubts()
    publishing = await stack.enter_async_context(
        Bus(config.broker, name=f"{name} publish", doubts=doubts)
    )
    asking = await stack.enter_async_context(Bus(config.broker, name=name, doubts=doubts))

    makes = name in MAKERS
    # Others ask how far `persist` is.
    consumers = [CONSUMER, *own] if makes else list(own)
    floor = LogFloor(database)
    keeper = BusKeeper(
        *(publishing, config.broker, floor, consumers),
        makes=makes,
        remembers=name == "persist",
        others=[asking],
    )

    async def connected() -> None:
        await publishing.wait_connected(CONNECT_S)
        await asking.wait_connected(CONNECT_S)

    await until_ready("NATS", connected)
    alive = await stack.enter_async_context(Alive(asking, name))
    await until_ready("the log", keeper.make, alive)
    return database, publishing, asking, keeper


def _directory(config: WorkerConfig, database: Database) -> Directory:
    return Directory(
        database,
        site=config.site,
        max_members=config.group_members,
        events_of=events_of,
        chat_of=subjects.group,
    )


WORKERS: dict[str, Callable[[WorkerConfig], Awaitable[None]]] = {
    "directory": run_directory,
    "persist": run_persist,
    "query": run_query,
    "index": run_index,
    "archive": run_archive,
    "notify": run_notify,
    "files": run_files,
    "relay": run_relay,
}
