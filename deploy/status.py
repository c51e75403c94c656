"""`hikyaku status`: how the site is now, for people or as JSON; 1 when something is wrong.

Asked are NATS, MongoDB and the search server, with the addresses and passwords of this process. A
site without NATS has nothing to tell: that is an error that names the address.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from msgspec import Struct

from broker import relay, status
from broker.bus import Bus
from broker.errors import BrokerError, Unavailable
from broker.log import STREAM
from broker.requests import Failure, ask
from search.errors import SearchError
from search.indexes import Indexes
from search.server import SearchServer
from store.archive_lease import Lease
from store.database import connect
from store.errors import StoreError
from workers import index, notify, persist
from workers.config import WorkerConfig

from . import status_view
from .errors import UserError
from .local_stack import hint, of_local_stack
from .settings import Settings, worker_config

CONNECT_S = 3.0
PING_S = 5.0
FULL = 0.8
DOWN_S = 10.0
"""A link that is down for longer is a problem; a shorter cut heals by itself."""

OLDEST_S = {"persist": 30.0, "index": 120.0, "notify": 60.0}
"""A consumer with an older event is said to be behind."""

PINGED = ("directory", "persist", "query", "index", "notify", "files", "relay")
"""Workers that answer pings. The archive has no connection to NATS; MongoDB knows its last run."""

ARCHIVE_LATE = 2.0
CONSUMERS = (persist.CONSUMER, index.CONSUMER, notify.CONSUMER)


class ServerStatus(Struct, kw_only=True):
    """A server and how long it took to answer; `error` says why it did not."""

    name: str
    took_ms: float = 0.0
    error: str = ""


class SiteStatus(Struct, kw_only=True):
    """All of it. `archived_s` is how long ago the archive was run, if it ever was.

    With `archived_known` false MongoDB did not say so.
    """

    site: str
    ok: bool
    problems: list[str]
    broker: status.BrokerStatus
    servers: list[ServerStatus]
    archived_s: float | None
    archived_known: bool
    links: list[relay.Link]


def run(settings: Settings, *, as_json: bool) -> int:
    """Print how the site is; gives 1 if something is wrong. Raises `UserError` without NATS."""
    try:
        found = asyncio.run(_site(of_local_stack(settings)))
    except BrokerError as error:
        advice = hint(settings) or "; start it, or set HIKYAKU_NATS_URL to where it is"
        raise UserError(f"{error}{advice if error.retryable else ''}") from None
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    else:
        status_view.show(found)
    return 0 if found.ok else 1


async def _site(settings: Settings) -> SiteStatus:
    config = worker_config(settings)
    async with Bus(config.broker, name="status") as bus:
        await bus.wait_connected(CONNECT_S)
        begin = time.monotonic()
        await bus.request("$JS.API.INFO", timeout_s=PING_S)
        took_ms = (time.monotonic() - begin) * 1e3
        broker = await status.status(bus, config.broker, CONSUMERS, PINGED)
        relays = any(each.worker == relay.SERVICE and not each.waits for each in broker.workers)
        links, unknown = await _links(bus) if relays else ([], [])
    servers = [ServerStatus(name=f"NATS at {bus.address}", took_ms=took_ms)]
    archived_s, mongo = await _mongo(config)
    if mongo.error:
        mongo.error += "; start it or see its log, or set HIKYAKU_MONGO_URL to where it is"
    servers.append(mongo)
    if "index" not in settings.without:
        servers.append(await _search(config))
    problems = [
        *_broker_problems(broker, settings),
        *unknown,
        *_link_problems(links),
        *(each.error for each in servers if each.error),
        *_archive_problems(archived_s, settings),
    ]
    return SiteStatus(
        site=settings.site,
        ok=not problems,
        problems=problems,
        broker=broker,
        servers=servers,
        archived_s=archived_s,
        archived_known=not mongo.error,
        links=links,
    )


async def _links(bus: Bus) -> tuple[list[relay.Link], list[str]]:
    """The links with other sites, and why they are not known."""
    try:
        found = await ask(bus, relay.SERVICE, "links", relay.Links(), relay.LinksFound, PING_S)
    except (Failure, Unavailable) as error:
        return [], [f"the relay does not say how the links are ({error}): see its log"]
    return [each for each in found.links if each.state != "removed"], []


async def _mongo(config: WorkerConfig) -> tuple[float | None, ServerStatus]:
    archived_s: float | None = None
    async with connect(config.store) as database:

        async def ask() -> None:
            nonlocal archived_s
            await database.ping()
            archived_s = await Lease(database).finished_ago_s()

        found = await _timed(f"MongoDB at {database.address}", ask)
    return archived_s, found


async def _search(config: WorkerConfig) -> ServerStatus:
    async with SearchServer(config.search, threads=1) as server:
        indexes = Indexes(server, config.search)
        return await _timed(f"search at {server.address}", indexes.numbers)


async def _timed(name: str, ask: Callable[[], Awaitable[object]]) -> ServerStatus:
    begin = time.monotonic()
    try:
        async with asyncio.timeout(PING_S):
            await ask()
    except (StoreError, SearchError) as error:
        return ServerStatus(name=name, error=str(error))
    except TimeoutError:
        return ServerStatus(name=name, error=f"{name} does not answer within {PING_S:g} s")
    return ServerStatus(name=name, took_ms=(time.monotonic() - begin) * 1e3)


def _broker_problems(broker: status.BrokerStatus, settings: Settings) -> Iterator[str]:
    for stream in broker.streams:
        yield from _stream_problems(stream)
    wanted = [name for name in PINGED if name not in settings.without]
    for consumer in broker.consumers:
        if consumer.name not in wanted:
            continue
        if not consumer.there:
            yield f"{consumer.name} has no place in the log: start `hikyaku worker {consumer.name}`"
        elif consumer.oldest_s > OLDEST_S[consumer.name]:
            yield (
                f"{consumer.name} is {consumer.oldest_s:.0f} s and {consumer.pending} events behind"
                " the log: see its log"
            )
    there = {each.worker for each in broker.workers}
    for name in wanted:
        if name not in there:
            yield f"no {name} answers: start `hikyaku worker {name}`, or see its log"
    for each in broker.workers:
        if each.waits:
            yield f"{each.worker} (process {each.pid}) does not work yet: {each.waits}"
    if not broker.edges:
        yield "no edge holds a lease: start `hikyaku edge`"
    for worker, count in broker.dead_letters.items():
        yield f"{count} dead letters of {worker}: see `hikyaku dead list`"


def _link_problems(links: list[relay.Link]) -> Iterator[str]:
    for link in links:
        if link.connected and link.state == "connected":
            continue
        down_s = link.since_s or 0.0
        if link.connected or down_s > DOWN_S:
            since = "" if link.connected else f" for {down_s:.0f} s"
            yield (
                f"the link to {link.site} is down{since}, {link.waiting} parcels wait for it:"
                f" {link.state}"
            )


def _stream_problems(stream: status.StreamStatus) -> Iterator[str]:
    if not stream.there:
        yield f"the stream {stream.name} is missing: a worker makes it, once MongoDB answers"
        return
    if stream.name == STREAM and stream.max_bytes and stream.bytes > FULL * stream.max_bytes:
        share = f"{100 * stream.bytes / stream.max_bytes:.0f} % full"
        yield f"the log is {share}: raise HIKYAKU_STREAM_MAX_BYTES, or lower …_MAX_AGE_S"
    if stream.copies < stream.replicas:
        few = f"{stream.copies} of {stream.replicas} copies"
        yield f"the stream {stream.name} has {few}: is a NATS server away?"


def _archive_problems(archived_s: float | None, settings: Settings) -> Iterator[str]:
    late_s = ARCHIVE_LATE * settings.archive_interval_s
    if "archive" not in settings.without and archived_s is not None and archived_s > late_s:
        ago = f"{archived_s / 3600:.0f} h"
        yield f"the archive was last run {ago} ago: does `hikyaku worker archive` run?"
