"""kill -9 of the embedded search server at any moment: nothing that was acknowledged is lost."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from meilisearch import Client
from meilisearch.errors import (
    MeilisearchApiError,
    MeilisearchCommunicationError,
    MeilisearchTimeoutError,
)
from meilisearch.index import Index

from ..search_servers import SearchServer
from ..servers import eventually

pytestmark = pytest.mark.anyio

KILLS = 6
UID = "messages"
LOST = (
    MeilisearchCommunicationError,
    MeilisearchTimeoutError,
    requests.exceptions.RequestException,
)

Document = dict[str, Any]
State = dict[int, Document]
Change = tuple[Callable[[Client], Any], Callable[[State], State]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SearchServer]:
    server = SearchServer(tmp_path)
    yield server
    server.stop()


def changes(chance: random.Random) -> Iterator[Change]:
    """Requests, and what each makes of the documents."""
    number = 0
    while True:
        number += 1
        ids = [chance.randrange(40) for _ in range(chance.randint(1, 30))]
        match chance.choice(("add", "add", "update", "delete", "filter", "settings", "clear")):
            case "add":
                yield _add([{"id": key, "n": number, "t": f"word{number}"} for key in ids])
            case "update":
                yield _update([{"id": key, "u": f"other{number}"} for key in ids])
            case "delete":
                yield _delete(ids)
            case "filter":
                yield _filter(number - chance.randint(1, 10))
            case "settings":
                yield _settings(["n"] if number % 2 else ["n", "u"])
            case "clear" if number % 5 == 0:
                yield (lambda client: client.index(UID).delete_all_documents()), lambda _: {}


def _add(documents: list[Document]) -> Change:
    def after(state: State) -> State:
        return {**state, **{document["id"]: document for document in documents}}

    return lambda client: client.index(UID).add_documents(documents), after


def _update(documents: list[Document]) -> Change:
    def after(state: State) -> State:
        state = dict(state)
        for document in documents:
            state[document["id"]] = {**state.get(document["id"], {}), **document}
        return state

    return lambda client: client.index(UID).update_documents(documents), after


def _delete(ids: list[int]) -> Change:
    def request(client: Client) -> Any:
        path = f"indexes/{UID}/documents/delete-batch"
        return client.http.post(path, [str(key) for key in ids])

    return request, lambda state: {key: doc for key, doc in state.items() if key not in ids}


def _filter(number: int) -> Change:
    def after(state: State) -> State:
        return {key: doc for key, doc in state.items() if doc.get("n") != number}

    return lambda client: client.index(UID).delete_documents(filter=f"n = {number}"), after


def _settings(names: list[str]) -> Change:
    settings = {"filterableAttributes": names, "rankingRules": ["words", "n:desc"]}
    return lambda client: client.index(UID).update_settings(settings), lambda state: state


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_acknowledged_is_lost(server: SearchServer, seed: int) -> None:
    chance = random.Random(seed)
    await server.start()
    client = Client(server.url, server.key, timeout=20)
    state: State = {}
    acknowledged = 2
    made = client.create_index(UID, {"primaryKey": "id"})
    assert made.task_uid == 0
    client.index(UID).update_settings({"filterableAttributes": ["n"]})
    source = changes(chance)
    for _ in range(KILLS):
        killer = threading.Timer(chance.uniform(0.02, 0.8), server.process.kill)
        killer.start()
        try:
            while True:
                request, after = next(source)
                request(client)
                acknowledged += 1
                state = after(state)
        except LOST:
            pass
        killer.join()
        await server.start()
        known = newest(client) + 1
        assert known - acknowledged in (0, 1), "a task that was acknowledged is gone"
        if known > acknowledged:  # it was on disk when its answer got lost
            acknowledged, state = known, after(state)
    await finish(client)
    check(client, state)
    assert known > 3


def newest(client: Client) -> int:
    uid: int = client.http.get("tasks?limit=1")["results"][0]["uid"]
    return uid


async def finish(client: Client) -> None:
    """Wait until all is done; none failed, and all are there."""
    waiting = "tasks?statuses=enqueued,processing&limit=1"
    await eventually(lambda: client.http.get(waiting)["total"] == 0, within_s=60)
    failed = client.http.get("tasks?statuses=failed&limit=5")["results"]
    assert not failed, [
        (task["uid"], task["batchUid"], task["type"], task["error"]) for task in failed
    ]
    listed = client.http.get("tasks?limit=100000")["results"]
    assert [task["uid"] for task in listed] == list(range(len(listed)))[::-1]


def check(client: Client, state: State) -> None:
    """The documents are as they should be, and the text index knows just them."""
    found = client.http.get(f"indexes/{UID}/documents?limit=1000")
    assert {document["id"]: document for document in found["results"]} == state
    assert client.http.get(f"indexes/{UID}/stats")["numberOfDocuments"] == len(state)
    index = client.index(UID)
    everything = index.search("", {"limit": 1000})
    assert everything["estimatedTotalHits"] == len(state)
    assert {hit["id"] for hit in everything["hits"]} == set(state)
    for word in {doc[name] for doc in state.values() for name in ("t", "u") if name in doc}:
        hits = index.search(f'"{word}"', {"limit": 1000})["hits"]
        wanted = {key for key, doc in state.items() if word in (doc.get("t"), doc.get("u"))}
        assert {hit["id"] for hit in hits} == wanted
    for number in {doc["n"] for doc in state.values() if "n" in doc}:
        hits = index.search("", {"filter": f"n = {number}", "limit": 1000})["hits"]
        assert {hit["id"] for hit in hits} == {i for i, d in state.items() if d.get("n") == number}


async def test_keys_and_settings_survive(server: SearchServer) -> None:
    await server.start()
    client = Client(server.url, server.key)
    key = client.http.post("keys", {"actions": ["*"], "indexes": ["*"], "expiresAt": None})
    keys = client.http.get("keys")
    task = client.index(UID).update_settings({"stopWords": ["the"]})
    client.wait_for_task(task.task_uid, interval_in_ms=5)
    server.process.kill()
    await server.start()
    assert client.http.get("keys") == keys
    again = Client(server.url, key["key"])
    assert again.index(UID).get_stop_words() == ["the"]


async def test_a_text_index_that_is_lost_or_broken_is_made_anew(server: SearchServer) -> None:
    await server.start()
    client = Client(server.url, server.key)
    index = client.index(UID)
    task = index.add_documents([{"id": n, "t": f"text {n}"} for n in range(50)])
    client.wait_for_task(task.task_uid, interval_in_ms=5)
    for harm in (_remove, _truncate, _scribble):
        server.process.kill()
        (folder,) = (server.folder / "search" / "indexes").iterdir()
        harm(folder)
        await server.start()
        await eventually(lambda: _found(index) == 50, within_s=20, what=harm.__name__)
        assert index.search('"text 7"')["hits"] == [{"id": 7, "t": "text 7"}]


def _found(index: Index) -> int:
    with suppress(MeilisearchApiError):  # until there is an index again
        return int(index.search("text")["estimatedTotalHits"])
    return 0


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _truncate(folder: Path) -> None:
    (folder / "meta.json").write_bytes(b"")


def _scribble(folder: Path) -> None:
    (folder / "meta.json").write_text('{"index_settings": {}, "segments": [], "schema": []}')


async def test_a_stop_loses_nothing_either(server: SearchServer) -> None:
    await server.start()
    client = Client(server.url, server.key)
    for number in range(30):
        client.index(UID).add_documents([{"id": number}])
    server.process.end()
    await server.start()
    await finish(client)
    assert client.index(UID).get_stats().number_of_documents == 30


async def test_two_do_not_share_a_folder(server: SearchServer, tmp_path: Path) -> None:
    await server.start()
    other = SearchServer(tmp_path)
    other.process.start()
    await eventually(lambda: not other.process.running, within_s=20)
    assert "another process uses" in other.process.log.read_text()
    assert Client(server.url, server.key).health() == {"status": "available"}
