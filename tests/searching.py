"""The search in tests: a site with it, a stage with index workers, and what the index has."""

import asyncio
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker.bus import Bus
from broker.consumer import progress
from broker.errors import BrokerError
from search.config import SearchConfig
from search.documents import Document, document_of
from search.indexes import Indexes
from search.server import SearchServer, index_of
from store.database import Database
from store.searchable import SearchNumbers
from workers.index import CONSUMER

from .chat import Chat, Frame
from .metrics import sample
from .mirror import until, until_done
from .ports import free_port
from .search_servers import SearchServer as Search
from .servers import Hikyaku, Process, Site
from .stage import ACK_WAIT_S, Stage

SEARCH_WITHIN_S = 30.0
WITHIN_S = 120.0
DAYS = 30


class SearchSite(Site):
    """A site with a search server and the worker `index`."""

    def __init__(self, folder: Path, **settings: str):
        self.search = Search(folder / "search")
        super().__init__(folder, **search_env(self.search), **settings)
        self.folder = folder
        env = self.worker.process._env or {}
        self.index = Hikyaku(folder / "index", ["worker", "index"], env)
        self.query_port = free_port([each.port for each in self.edges])
        env = {**env, "HIKYAKU_WORKER_HEALTH_PORT": str(self.query_port)}
        self.query = Hikyaku(folder / "query", ["worker", "query"], env)

    def query_metric(self, name: str) -> float:
        """A number of the worker `query`."""
        url = f"http://127.0.0.1:{self.query_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return sample(answer.read().decode(), f"query_{name}")

    async def start(self) -> None:
        await asyncio.gather(super().start(), self.search.start())
        await self.index.start()
        async with opened(self.search) as indexes:

            async def there() -> bool:
                return bool(await indexes.numbers())

            await until(there)

    def stop(self) -> None:
        self.index.process.end(signal.SIGKILL)
        super().stop()
        self.search.process.end(signal.SIGKILL)


def search_env(search: Search) -> dict[str, str]:
    return {"HIKYAKU_SEARCH_URL": search.url, "HIKYAKU_SEARCH_KEY": search.key}


def config_of(search: Search, **settings: Any) -> SearchConfig:
    return SearchConfig(url=search.url, key=search.key, **settings)


@asynccontextmanager
async def opened(search: Search, **settings: Any) -> AsyncIterator[Indexes]:
    """The indexes of a server."""
    config = config_of(search, **settings)
    async with SearchServer(config, threads=2) as server:
        yield Indexes(server, config)


class SearchStage(Stage):
    """NATS, MongoDB, a search server, one persist worker, and any number of index workers."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.search = Search(folder / "search")
        self.indexes: Indexes

    def env(self, **settings: str) -> dict[str, str]:
        return super().env(**search_env(self.search), **settings)

    def full_env(self) -> dict[str, str]:
        """For a command that is run beside the workers."""
        return {**os.environ, **self.env()}

    def index(self, *words: str, ack_wait_s: float = ACK_WAIT_S, **settings: str) -> Hikyaku:
        """An index worker with a metrics port, not started; see `tests.indexing`."""
        port = free_port([each.port for each in self.workers])
        env = self.env(HIKYAKU_WORKER_HEALTH_PORT=str(port), **settings)
        worker = Hikyaku(self.folder / f"index{port}", [], env, role="index")
        command = (sys.executable, "-m", "tests.indexing", str(ack_wait_s), *words)
        worker.process = Process(command, worker.process.log.parent, worker.process._env)
        worker.port = port
        self.workers.append(worker)
        return worker

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SearchStage"]:
        try:
            await self.search.start()
            async with super().running(), opened(self.search) as self.indexes:
                yield self
        finally:
            self.search.process.end(signal.SIGKILL)


def index_metric(worker: Hikyaku, name: str, **labels: str) -> float:
    return sample(worker.get("/metrics"), name, **labels)


def index_lag(worker: Hikyaku) -> float:
    """Events that are not in the index."""
    return index_metric(worker, "consumer_pending_events", consumer="index")


def index_oldest_s(worker: Hikyaku) -> float:
    """Age of the oldest of them."""
    return index_metric(worker, "consumer_oldest_seconds", consumer="index")


def index_buried(worker: Hikyaku) -> float:
    """Dead letters of this process."""
    return index_metric(worker, "consumer_dead_letters_total", consumer="index")


def index_retries(worker: Hikyaku) -> float:
    """Attempts of this process that failed."""
    return index_metric(worker, "consumer_retries_total", consumer="index")


async def documents_in(search: Search, uid: str) -> dict[int, Document]:
    """Everything that an index holds, read another way than the code under test does."""

    def read(client: Any) -> dict[int, Document]:
        found: dict[int, Document] = {}
        while True:
            page = index_of(client, uid).get_documents({"limit": 1000, "offset": len(found)})
            found |= {int(each.id): dict(each) for each in page.results}
            if len(found) >= page.total or not page.results:
                return found

    async with SearchServer(config_of(search), threads=1) as server:
        return await server.call(read)


async def wanted(database: Database) -> dict[int, Document]:
    """What the index must hold by MongoDB."""
    since_ms = time.time_ns() // 1_000_000 - DAYS * 86_400_000
    made = [document_of(each, since_ms=since_ms) async for each in database["messages"].find()]
    return {int(each["id"]): each for each in made if each is not None}


async def assert_index_mirrors(stage: "SearchStage | SearchSite", database: Database) -> int:
    """The live index is what MongoDB says, document by document; how many there are."""
    numbers = await SearchNumbers(database).read()
    found = await documents_in(stage.search, f"messages-{numbers.live}")
    right = await wanted(database)
    missing, surplus = right.keys() - found.keys(), found.keys() - right.keys()
    assert not missing, f"{len(missing)} of {len(right)} are missing: {sorted(missing)[:5]}"
    assert not surplus, f"{len(surplus)} are not in MongoDB: {sorted(surplus)[:5]}"
    shown = {"id", "edited", "content"}
    wrong = [
        key
        for key, each in right.items()
        if {name: each[name] for name in shown} != {name: found[key][name] for name in shown}
    ]
    assert not wrong, f"{len(wrong)} differ: {right[wrong[0]]} {found[wrong[0]]}"
    return len(right)


async def not_indexed(bus: Bus) -> int:
    """How many events `index` has not yet acknowledged; -1 when nobody can say."""
    try:
        return (await progress(bus, CONSUMER)).behind
    except BrokerError:
        return -1


async def until_indexed(bus: Bus, *, within_s: float = WITHIN_S) -> None:
    """Wait until `index` has acknowledged all that is in the log now."""
    await until_done(bus, CONSUMER, within_s=within_s)


async def search(client: Chat, query: str, **fields: Any) -> Frame:
    """The result of a search; asks again, as clients do, while the answer is that it may."""
    result: Frame = {}

    async def answered() -> bool:
        nonlocal result
        result = await client.ask("search", query=query, **fields)
        return not result.get("retryable")

    await until(answered, within_s=SEARCH_WITHIN_S)
    assert result["type"] == "result", result
    return result


async def found(client: Chat, query: str, **fields: Any) -> list[str]:
    """The ids of the hits."""
    return [hit["id"] for hit in (await search(client, query, **fields))["hits"]]


async def until_found(client: Chat, query: str, ids: Collection[str], **fields: Any) -> None:
    """Wait until a search finds these messages, and no others."""
    last: list[str] = []

    async def right() -> bool:
        nonlocal last
        last = await found(client, query, **fields)
        return sorted(last) == sorted(ids)

    await until(right, within_s=SEARCH_WITHIN_S)
