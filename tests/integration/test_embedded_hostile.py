"""What a hostile or broken client can send to the embedded search server."""

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from meilisearch import Client

from ..search_servers import SearchServer

MB = 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchServer]:
    server = SearchServer(tmp_path_factory.mktemp("search"))
    try:
        asyncio.run(server.start())
        fill(Client(server.url, server.key))
        yield server
    finally:
        server.stop()


def fill(client: Client) -> None:
    index = client.index("messages")
    settings = {"filterableAttributes": ["chat"], "searchableAttributes": ["content"]}
    index.update_settings(settings)
    documents = [
        {"id": n, "chat": f"c{n % 2}", "content": f"secret {n} of c{n % 2}"} for n in range(20)
    ]
    task = index.add_documents(documents)
    assert client.wait_for_task(task.task_uid, interval_in_ms=5).status == "succeeded"


@pytest.fixture(autouse=True)
def _lives(server: SearchServer) -> Iterator[None]:
    """Whatever was sent, it still answers, and has logged no failure."""
    yield
    client = Client(server.url, server.key)
    assert client.health() == {"status": "available"}
    assert client.index("messages").search("secret")["estimatedTotalHits"] == 20
    log = server.process.log.read_text()
    assert "Traceback" not in log
    assert server.key not in log


def send(
    server: SearchServer,
    method: str,
    path: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        all_headers = {"Authorization": f"Bearer {server.key}"}
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, all_headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    finally:
        connection.close()


def search(server: SearchServer, **body: Any) -> tuple[int, Any]:
    return send(server, "POST", "/indexes/messages/search", json.dumps(body).encode())


def memory_kb(server: SearchServer, what: str = "VmHWM") -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1])


# --- queries ---


@pytest.mark.parametrize(
    "query",
    [
        "a" * 10_240,
        "word " * 2000,
        '"' * 10_240,
        "-" * 10_240,
        " -x" * 3000,
        "東京" * 5000,
        "\u0301" * 5000,
        "ﾊﾟ" * 2500,
        "." * 10_240,
        "\x00\x01\x02 \ufeff \u202e",
        "((((((((((",
        "content:secret OR *:*",
        "^~*?:\\/[]{}!|&+-",
        "a" * 250 + " " + "b" * 251,
        "\U0010ffff" * 100,
        "secre" + "t" * 300,
    ],
)
def test_strange_queries(server: SearchServer, query: str) -> None:
    status, answer = search(
        server, q=query, attributesToHighlight=["*"], attributesToCrop=["content"]
    )
    assert status == 200
    assert len(answer["hits"]) <= 20
    assert answer["processingTimeMs"] < 5000


@pytest.mark.parametrize(
    "name",
    [
        "c0' OR chat = 'c1",
        'c0" OR chat = "c1',
        "c0'] OR chat IN ['c1",
        "c0\\' OR chat EXISTS OR chat = \\'",
        "c0\\",
        "c0' --",
        "' OR '1'='1",
        "c0\x00",
        "c0\n OR chat = c1",
        "[c0, c1]",
        "*",
        "c?",
    ],
)
def test_names_in_quotes_reach_nothing_else(server: SearchServer, name: str) -> None:
    """With quotes and backslashes escaped, as the grammar says, a name is only that name."""
    for quote in "'\"":
        escaped = name.replace("\\", "\\\\").replace(quote, f"\\{quote}")
        quoted = f"{quote}{escaped}{quote}"
        for condition in (f"chat = {quoted}", f"chat IN [{quoted}]", f"chat IN [{quoted}, none]"):
            status, answer = search(server, q="", filter=condition)
            assert (status, answer["hits"]) == (200, []), condition


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_filters(server: SearchServer, depth: int) -> None:
    for condition in (
        "(" * depth + "chat = c0" + ")" * depth,
        "NOT " * depth + "chat = c0",
        "chat = c0 AND (" * depth + "chat = c0" + ")" * depth,
    ):
        status, answer = search(server, filter=condition)
        assert (status, answer["code"]) == (400, "invalid_search_filter")


def test_broad_filters(server: SearchServer) -> None:
    listed = ", ".join(f"x{n}" for n in range(100_000))
    status, answer = search(server, q="secret", filter=f"chat IN [c1, {listed}]")
    assert (status, answer["estimatedTotalHits"]) == (200, 10)
    status, answer = search(server, filter=" OR ".join(["chat = c1"] * 5000))
    assert (status, answer["estimatedTotalHits"]) == (200, 10)
    status, answer = search(server, filter=" AND ".join(["NOT chat = c1"] * 5000))
    assert (status, answer["estimatedTotalHits"]) == (200, 10)


def test_large_numbers(server: SearchServer) -> None:
    huge = 10**30
    for name in ("limit", "offset", "page", "hitsPerPage", "cropLength"):
        status, _ = search(server, q="secret", **{name: huge})
        assert status in (200, 400)
    status, answer = search(server, q="secret", limit=2**62)
    assert (status, len(answer["hits"])) == (200, 20)
    for number in ("1e400", "-1e400", "9" * 400, "1e-400"):
        status, _ = search(server, filter=f"chat = {number}")
        assert status == 200


# --- bodies ---


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b'{"q": "\xff"}',
        b'{"q": "\xed\xa0\x80"}',
        b'{"q": "\\ud800"}',
        b'{"q": NaN}',
        b'{"q": "a"} x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00" * 1000,
        b'{"q": "a", "limit": 1e999}',
    ],
)
def test_bodies_that_are_no_json(server: SearchServer, body: bytes) -> None:
    for path in ("/indexes/messages/search", "/indexes/messages/documents", "/multi-search"):
        status, answer = send(server, "POST", path, body)
        assert status == 400, path
        assert answer["code"] in ("malformed_payload", "bad_request")
    assert send(server, "PATCH", "/indexes/messages/settings", body)[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        "/indexes/%ff/search",
        "/indexes/..%2f..%2fetc/search",
        "/indexes/messages/documents/%00",
        "/indexes/messages/documents/..%2f..%2fqueue.db",
        "/indexes/messages/search?q=%ff%fe",
        "/tasks?uids=" + ",".join(["1"] * 3000),
        "/tasks?indexUids=" + "a" * 10_000,
        "/tasks/" + "9" * 1000,
        "/tasks/-1",
        "/keys/%27%20OR%201=1",
        "/" + "a" * 30_000,
        "//",
        "/indexes//documents",
    ],
)
def test_strange_paths(server: SearchServer, path: str) -> None:
    status, answer = send(server, "GET", path)
    assert status in (200, 400, 404)
    if status != 200:
        assert set(answer) == {"message", "code", "type", "link"}


def test_what_is_not_known_is_refused_in_the_same_form(server: SearchServer) -> None:
    for method, path, wanted in (
        ("POST", "/dumps", 404),
        ("POST", "/snapshots", 404),
        ("POST", "/indexes/messages/facet-search", 404),
        ("POST", "/indexes/messages/similar", 404),
        ("GET", "/experimental-features", 404),
        ("GET", "/metrics", 404),
        ("GET", "/batches", 404),
        ("PUT", "/indexes/messages", 405),
        ("DELETE", "/health", 405),
        ("POST", "/tasks/cancel?uids=1", 400),
        ("DELETE", "/tasks?uids=1", 400),
    ):
        status, answer = send(server, method, path, b"{}")
        assert status == wanted, path
        assert set(answer) == {"message", "code", "type", "link"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"facets": ["chat"]}, "invalid_search_facets"),
        ({"distinct": "chat"}, "invalid_search_distinct"),
        ({"vector": [0.5]}, "invalid_search_vector"),
        ({"hybrid": {"embedder": "x"}}, "invalid_search_hybrid_query"),
        ({"showRankingScore": True}, "invalid_search_show_ranking_score"),
        ({"rankingScoreThreshold": 0.5}, "invalid_search_ranking_score_threshold"),
        ({"locales": ["jpn"]}, "invalid_search_locales"),
        ({"filter": "chat CONTAINS c"}, "feature_not_enabled"),
        ({"filter": "chat STARTS WITH c"}, "feature_not_enabled"),
        ({"filter": "_geoRadius(1, 2, 3)"}, "invalid_search_filter"),
        ({"filter": "chat > abc"}, "invalid_search_filter"),
    ],
)
def test_what_it_cannot_do_is_refused(server: SearchServer, body: Any, code: str) -> None:
    status, answer = search(server, **body)
    assert (status, answer["code"]) == (400, code)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"synonyms": {"a": ["b"]}}, "invalid_settings_synonyms"),
        ({"distinctAttribute": "chat"}, "invalid_settings_distinct_attribute"),
        ({"dictionary": ["a.b"]}, "invalid_settings_dictionary"),
        ({"separatorTokens": ["&"]}, "invalid_settings_separator_tokens"),
        ({"embedders": {"a": {}}}, "invalid_settings_embedders"),
        ({"searchCutoffMs": 50}, "invalid_settings_search_cutoff_ms"),
        ({"filterableAttributes": ["c*"]}, "invalid_settings_filterable_attributes"),
        ({"filterableAttributes": ["_geo"]}, "invalid_settings_filterable_attributes"),
        ({"proximityPrecision": "byAttribute"}, "invalid_settings_proximity_precision"),
    ],
)
def test_settings_it_does_not_have_are_refused(
    server: SearchServer, settings: Any, code: str
) -> None:
    status, answer = send(
        server, "PATCH", "/indexes/messages/settings", json.dumps(settings).encode()
    )
    assert (status, answer["code"]) == (400, code)


def test_headers(server: SearchServer) -> None:
    path = "/indexes/messages/search"
    assert send(server, "POST", path, b"{}", Content_Type="text/html")[0] == 415
    assert send(server, "POST", path, b"{}", Content_Encoding="gzip")[0] == 415
    assert send(server, "GET", path, Authorization="Basic abc")[0] == 403
    assert send(server, "GET", path, Authorization="Bearer " + "x" * 8000)[0] == 403
    assert (
        send(server, "POST", path, b"{}", Content_Type="application/json; charset=utf-8")[0] == 200
    )


# --- documents ---


def add(server: SearchServer, uid: str, body: bytes) -> Any:
    status, answer = send(server, "POST", f"/indexes/{uid}/documents?primaryKey=id", body)
    if status != 202:
        return answer["code"]
    client = Client(server.url, server.key)
    task = client.wait_for_task(answer["taskUid"], timeout_in_ms=60_000, interval_in_ms=5)
    return task.status if task.error is None else task.error["code"]


def test_a_huge_document(server: SearchServer) -> None:
    words = [f"word{n}" for n in range(70_000)]
    words[60_000] = "needle"
    document = {"id": 1, "content": " ".join(words), "long": "x" * 5 * MB, "f": "y" * MB}
    assert add(server, "huge", json.dumps([document]).encode()) == "succeeded"
    client = Client(server.url, server.key).index("huge")
    assert client.search("word65534 ")["estimatedTotalHits"] == 1
    assert client.search('"word65600"')["estimatedTotalHits"] == 0
    parameters = {"attributesToCrop": ["content"], "attributesToRetrieve": ["id"]}
    hit = client.search("needle", parameters)["hits"][0]
    assert "needle" in hit["_formatted"]["content"]
    assert len(hit["_formatted"]["content"]) < 200


def test_many_attributes(server: SearchServer) -> None:
    document = {"id": 1} | {f"field{n}": n for n in range(70_000)}
    assert add(server, "wide", json.dumps([document]).encode()) == "max_fields_limit_exceeded"
    deep: Any = "end"
    for _ in range(300):
        deep = {"a": deep}
    assert add(server, "deep", json.dumps([{"id": 1, "deep": deep}]).encode()) == "succeeded"
    names = [{"id": n, f"f{n}\x00 '\".*": "ok"} for n in range(200)]
    assert add(server, "names", json.dumps(names).encode()) == "succeeded"
    assert Client(server.url, server.key).index("names").search("ok")["estimatedTotalHits"] == 200


def test_strange_values(server: SearchServer) -> None:
    values: list[Any] = [
        *("\x00", "\ufeff", "\u202e", "😀" * 1000, "a\u0301" * 1000, "\uffff", "東" * 10_000),
        *(0, -0.0, 1e308, 5e-324, 2**63, -(2**63), True, None, [], {}, [[[[1]]]], [None, {"a": 1}]),
    ]
    documents = [{"id": n, "v": value} for n, value in enumerate(values)]
    index = Client(server.url, server.key).index("values")
    index.update_settings({"filterableAttributes": ["v"], "sortableAttributes": ["v"]})
    assert add(server, "values", json.dumps(documents).encode()) == "succeeded"
    hits = index.search("", {"sort": ["v:desc"], "limit": 100})["hits"]
    assert len(hits) == len(values)
    assert index.search("", {"filter": "v = 0"})["estimatedTotalHits"] == 2
    page = index.http.get("indexes/values/documents?limit=100")["results"]
    assert page == json.loads(json.dumps(documents))


def test_numbers_that_json_cannot_say_well(server: SearchServer) -> None:
    for number in (b"1e999", b"-1e999", b"NaN", b"Infinity", b"01", b"1."):
        body = b'[{"id": 1, "v": ' + number + b"}]"
        assert add(server, "numbers", body) == "malformed_payload"
    assert add(server, "numbers", b'[{"id": 1, "v": ' + b"9" * 400 + b"}]") in (
        "succeeded",
        "malformed_payload",
    )


def chunks(size: int) -> Iterator[bytes]:
    yield b'[{"id": 1, "text": "'
    for _ in range(size):
        yield b"x" * MB
    yield b'"}]'


def test_a_payload_over_the_limit_is_refused_and_not_kept(server: SearchServer) -> None:
    send(server, "POST", "/indexes/large/documents", b'[{"id": 1}]')
    before = memory_kb(server)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    try:
        connection.request(
            "POST", "/indexes/large/documents", chunks(120), headers, encode_chunked=True
        )
    except (BrokenPipeError, ConnectionResetError):
        pass  # it stopped reading
    else:
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["code"]) == (413, "payload_too_large")
    connection.close()
    assert memory_kb(server) - before < 40_000
    payloads = server.folder / "search" / "payloads"
    assert sum(file.stat().st_size for file in payloads.iterdir()) < MB


def test_a_search_over_the_limit_is_refused(server: SearchServer) -> None:
    body = b'{"q": "' + b"x" * 11 * MB + b'"}'
    try:
        status, answer = send(server, "POST", "/indexes/messages/search", body)
    except (BrokenPipeError, ConnectionResetError):
        return
    assert (status, answer["code"]) == (413, "payload_too_large")


def test_a_payload_that_ends_early_is_not_kept(server: SearchServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            b"POST /indexes/early/documents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
            + f"\r\nAuthorization: Bearer {server.key}\r\nContent-Length: 1000\r\n\r\n".encode()
            + b'[{"id": 1},'
        )
    assert send(server, "GET", "/indexes/early")[0] == 404
    payloads = server.folder / "search" / "payloads"
    for _ in range(200):
        if not list(payloads.iterdir()):
            return
        send(server, "GET", "/health")
    pytest.fail("its file is still there")


def test_bytes_that_are_no_http(server: SearchServer) -> None:
    for data in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\n" * 3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(data)


def test_many_at_once(server: SearchServer) -> None:
    async def one(number: int) -> int:
        return (await asyncio.to_thread(search, server, q=f"secret {number}", limit=5))[0]

    async def several() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(200)))

    assert set(asyncio.run(several())) == {200}
