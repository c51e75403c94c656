"""The client beside an event loop: connections, deadlines, bounds, and errors as they are."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.proxy import Proxy
from search.config import SearchConfig
from search.documents import document_of
from search.errors import IndexMissing, SearchError, SearchForbidden, SearchUnavailable
from search.filters import Question, expired_filters, from_filter
from search.indexes import Indexes
from search.server import WAITING_FOR_EACH_THREAD, SearchServer, index_of
from tests.search_servers import SearchServer as Search
from tests.searching import config_of, documents_in, opened

from ..ports import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Search]:
    server = Search(tmp_path_factory.mktemp("search"))
    try:
        await server.start()
        yield server
    finally:
        server.process.end(signal.SIGKILL)


@pytest.fixture
async def indexes(server: Search) -> AsyncIterator[Indexes]:
    async with opened(server) as indexes:
        for each in await indexes.numbers():
            await indexes.remove(each)
        await indexes.ensure(1)
        yield indexes


def document(number: int, content: str, *, chat: str = "group.a", by: str = "ann") -> Any:
    return document_of(
        {"_id": number, "chat": chat, "from": by, "at": number, "seq": number, "content": content},
        since_ms=0,
    )


def ask(text: str, *chats: str, **fields: Any) -> Question:
    return Question(text=text, chats=chats or ["group.a"], **fields)


async def test_what_is_written_is_found_and_what_is_removed_is_not(indexes: Indexes) -> None:
    documents = [document(n, f"lunch number {n}") for n in range(1, 6)]
    assert await indexes.write(1, [*documents, document(6, "lunch", chat="group.b")], []) == []
    found = await indexes.find(1, ask("lunch"))
    assert ([hit.id for hit in found.hits], found.total) == (["5", "4", "3", "2", "1"], 5)
    assert found.hits[0].highlight == "\ue000lunch\ue001 number 5"
    assert [hit.id for hit in (await indexes.find(1, ask("lunch", limit=2, offset=1))).hits] == [
        "4",
        "3",
    ]
    assert (await indexes.find(1, ask("lunch", "group.a", "group.b"))).total == 6
    assert (await indexes.find(1, ask("lunch", since=2, until=4))).total == 2
    assert await indexes.write(1, [document(1, "dinner")], ["2", "404"]) == []
    assert {hit.id for hit in (await indexes.find(1, ask("lunch"))).hits} == {"3", "4", "5"}
    assert await indexes.forget(1, from_filter("nobody")) == 0
    assert await indexes.forget(1, from_filter("ann")) == 5
    assert (await indexes.find(1, ask(""))).total == 0
    assert await indexes.count(1) == 0


async def test_what_is_too_old_goes(server: Search, indexes: Indexes) -> None:
    days = 86_400_000
    ages = [1, 7, 20, 40]
    chats = ["group.short", "group.ever", "group.other"]
    documents = [
        {**document(100 * number + age, "x", chat=chat), "at": (100 - age) * days}
        for number, chat in enumerate(chats)
        for age in ages
    ]
    await indexes.write(1, documents, [])
    own = {"group.short": 5.0, "group.ever": 0.0}
    expired = expired_filters(100 * days, days=30, retention_days=10, own=own)
    assert sum([await indexes.forget(1, each) for each in expired]) == 3 + 1 + 2
    found = await documents_in(server, "messages-1")
    assert sorted(found) == [1, 101, 107, 120, 201, 207]


async def test_an_index_is_set_up_once_and_mended(server: Search, indexes: Indexes) -> None:
    async def tasks() -> int:
        return await client.call(lambda c: int(c.get_tasks({"limit": 1}).total))

    async with SearchServer(config_of(server), threads=1) as client:
        before = await tasks()
        await indexes.ensure(1)
        await indexes.ensure(1)
        assert await tasks() == before, "what is right is left alone"
        worse = {"rankingRules": ["words"], "filterableAttributes": []}
        spoiled = await client.call(lambda c: index_of(c, "messages-1").update_settings(worse))
        await client.finished(spoiled.task_uid)
        await indexes.ensure(1)
        settings = await client.call(lambda c: index_of(c, "messages-1").get_settings())
        assert "seq:desc" in settings["rankingRules"]
        assert sorted(settings["filterableAttributes"]) == ["at", "chat", "from", "seq"]
    await asyncio.gather(*(indexes.ensure(2) for _ in range(3)))
    assert await indexes.numbers() == [1, 2]
    await indexes.remove(2)
    await indexes.remove(2)
    assert await indexes.numbers() == [1]


async def test_a_refused_document_holds_up_no_other(server: Search, indexes: Indexes) -> None:
    """And what was there of it before goes."""
    documents = [document(n, f"fine {n}") for n in range(1, 40)]
    bad = [{**document(1, "bad"), "id": f"not an id {n}"} for n in range(2)]
    mixed = [*documents[:20], bad[0], *documents[20:], bad[1]]
    refused = await indexes.write(1, mixed, [])
    assert sorted(each.id for each in refused) == ["not an id 0", "not an id 1"]
    assert all("invalid_document_id" in each.reason for each in refused)
    assert set(await documents_in(server, "messages-1")) == set(range(1, 40))


async def test_other_sites_indexes_are_not_ours(server: Search, indexes: Indexes) -> None:
    async with opened(server, index="messages-2024") as others:
        await others.ensure(1)
        assert await indexes.numbers() == [1]
        assert await others.numbers() == [1]
        await others.remove(1)


async def test_an_index_that_is_not_there(indexes: Indexes) -> None:
    with pytest.raises(IndexMissing):
        await indexes.find(404, ask("x"))
    with pytest.raises(IndexMissing):
        await indexes.count(404)
    with pytest.raises(IndexMissing):
        await indexes.forget(404, from_filter("x"))


async def test_a_wrong_key(server: Search) -> None:
    config = SearchConfig(url=server.url, key="a key that is wrong, and long enough")
    async with SearchServer(config, threads=1) as wrong:
        with pytest.raises(SearchForbidden, match="HIKYAKU_SEARCH_KEY"):
            await Indexes(wrong, config).numbers()


async def test_nobody_there() -> None:
    config = SearchConfig(url=f"http://127.0.0.1:{free_port()}")
    async with SearchServer(config, threads=1) as nobody:
        with pytest.raises(SearchUnavailable, match="no search server answers"):
            await Indexes(nobody, config).numbers()


async def test_something_else_there(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    config = SearchConfig(url=f"http://127.0.0.1:{port}")
    async with other, SearchServer(config, threads=1) as client:
        with pytest.raises(SearchUnavailable, match="does not speak as Meilisearch"):
            await Indexes(client, config).numbers()


async def test_connections_are_kept(server: Search) -> None:
    async with Proxy(int(server.url.rpartition(":")[2])) as proxy:
        config = SearchConfig(url=f"http://127.0.0.1:{proxy.port}", key=server.key)
        async with SearchServer(config, threads=2) as client:
            indexes = Indexes(client, config)
            await indexes.ensure(1)
            for _ in range(20):
                await asyncio.gather(indexes.waiting(), indexes.numbers(), indexes.count(1))
            # One for each thread, and one for making an index, for which the client takes another.
            assert proxy.connections <= 4


async def test_deadlines_and_bounds(server: Search) -> None:
    threads = 2
    async with SearchServer(config_of(server), threads=threads) as client:
        go = threading.Event()

        def slow(_: Any) -> str:
            assert go.wait(20)
            return "done"

        began = time.monotonic()
        with pytest.raises(SearchUnavailable, match="in time"):
            await client.call(slow, timeout_s=0.1)
        assert time.monotonic() - began < 5
        most = threads * (1 + WAITING_FOR_EACH_THREAD)
        calls = [asyncio.create_task(client.call(slow)) for _ in range(most - 1)]
        await asyncio.sleep(0)
        with pytest.raises(SearchUnavailable, match="too many"):
            await client.call(slow)
        go.set()
        assert await asyncio.gather(*calls) == ["done"] * (most - 1)
        assert await client.call(lambda _: "again") == "again"


async def test_cancelled_calls_leave_nothing_behind(server: Search) -> None:
    async with SearchServer(config_of(server), threads=1) as client:
        go = threading.Event()
        first = asyncio.create_task(client.call(lambda _: go.wait(20)))
        others = [asyncio.create_task(client.call(lambda _: True)) for _ in range(5)]
        await asyncio.sleep(0)
        for each in others:
            each.cancel()
        await asyncio.wait(others)
        assert all(each.cancelled() for each in others)
        go.set()
        assert await first
        for _ in range(30):
            assert await client.call(lambda _: True)


async def test_a_server_that_stands_still_is_given_up(server: Search, indexes: Indexes) -> None:
    await indexes.write(1, [document(1, "lunch")], [])
    server.process.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(SearchUnavailable):
            await indexes.find(1, ask("lunch"))
        assert time.monotonic() - began < 8
    finally:
        server.process.send(signal.SIGCONT)
    assert (await indexes.find(1, ask("lunch"))).total == 1


async def test_a_restarted_server_is_found_again(server: Search, indexes: Indexes) -> None:
    await indexes.write(1, [document(1, "lunch")], [])
    server.process.kill()
    with pytest.raises(SearchError):
        await indexes.count(1)
    await server.start()
    assert (await indexes.find(1, ask("lunch"))).total == 1
