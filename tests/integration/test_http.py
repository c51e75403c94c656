"""HTTP for operators and developers: health, readiness, metrics, development tokens, clean logs."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.brokers import make_bus
from tests.chat import Clients, Way, names, open_socket
from tests.edges import extra_edge, new_edge
from tests.nats_proxy import NatsProxy
from tests.servers import SECRET, Hikyaku, Mongo, Nats, Site, eventually, token

pytestmark = pytest.mark.anyio


async def fetch(
    edge: Hikyaku,
    path: str,
    body: bytes | None = None,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Status and body."""

    def ask() -> tuple[int, str]:
        url = f"http://127.0.0.1:{edge.port}{path}"
        request = urllib.request.Request(url, body, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def becomes_ready(edge: Hikyaku, status: int, within_s: float = 20) -> dict[str, Any]:
    """Wait until `/readyz` answers with this status; its body."""
    deadline = time.monotonic() + within_s
    while (answer := await fetch(edge, "/readyz"))[0] != status:
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)
    body: dict[str, Any] = json.loads(answer[1])
    return body


async def metric(edge: Hikyaku, name: str, **labels: str) -> float:
    families = text_string_to_metric_families((await fetch(edge, "/metrics"))[1])
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"hikyaku_{name}" and sample.labels == labels
    ]
    assert len(found) <= 1
    return found[0] if found else 0.0


# --- health ---


async def test_a_running_edge_is_alive_and_ready(site: Site) -> None:
    for edge in site.edges:
        assert await fetch(edge, "/healthz") == (200, "ok\n")
        status, body = await fetch(edge, "/readyz")
        assert status == 200
        answer = json.loads(body)
        assert (answer["ready"], answer["missing"]) == (True, [])


async def test_without_nats_it_says_so_and_recovers_by_itself(site: Site) -> None:
    edge = site.edges[0]
    async with Clients() as connect:
        alice, bob = names("alice", "bob")
        one, two = await connect(edge, alice), await connect(site.edges[1], bob)
        await one.say(bob, "before")
        site.nats.process.kill()
        body = await becomes_ready(edge, 503)
        assert body["ready"] is False
        assert site.nats.url in body["missing"][0]
        assert (await fetch(edge, "/healthz"))[0] == 200
        assert (await fetch(edge, "/metrics"))[0] == 200
        await one.send("chat", id=1, client_id="c1", to=bob, content="meanwhile")
        error = await one.until("error", id=1)
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert error["retry_after_ms"] > 0
        assert error["client_id"] == "c1"
        error = await one.ask("group_create", client_id="g1", name="x")
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        await site.nats.start()
        assert (await becomes_ready(edge, 200))["missing"] == []
        await becomes_ready(site.edges[1], 200)
        await one.say(bob, "meanwhile", client_id="c1")
        await two.until("chat", content="meanwhile")
        assert two.contents() == ["before", "meanwhile"]
        # The directory is another process, and comes back by itself.
        async with asyncio.timeout(30):
            while (made := await one.ask("group_create", client_id="g1", name="x"))[
                "type"
            ] != "result":
                assert made["retryable"], made
                await asyncio.sleep(0.1)


async def test_an_edge_may_start_before_nats(site: Site, tmp_path: Path) -> None:
    proxy = NatsProxy(site.nats.port)
    edge = new_edge(site, tmp_path, nats_url=proxy.url)
    edge.process.start()
    try:
        await eventually(lambda: _answers(edge), within_s=20)
        body = await becomes_ready(edge, 503)
        assert proxy.url in body["missing"][0]
        async with Clients() as connect:
            early = await connect(edge, "alice", welcomed=False)
            assert (await early.closed())[0] == 1012
            async with proxy:
                await becomes_ready(edge, 200)
                client = await connect(edge, "alice")
                await client.say("bob", "now")
    finally:
        edge.process.end(9)


def _answers(edge: Hikyaku) -> bool:
    try:
        edge.get("/healthz")
    except OSError:
        return False
    return True


async def test_without_the_directory_nobody_is_let_in_and_told_to_come_back(
    site: Site, tmp_path: Path
) -> None:
    alice, bob = names("alice", "bob")
    hasty = extra_edge(site, tmp_path / "hasty", request_timeout_s="0.5")
    async with hasty as edge, Clients() as connect:
        here = await connect(edge, alice)
        site.worker.process.kill()
        await here.say(bob, "messages go on")
        error = await here.ask("group_create", client_id="g1", name="x")
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        late = await connect(edge, bob, welcomed=False)
        error = await late.until("error")
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert (await late.closed())[0] == 1012
        also = await connect(edge, alice)
        await also.say(bob, "who is known here may come again")
        site.worker.process.start()
        deadline = time.monotonic() + 20
        while True:
            late = await connect(edge, bob, welcomed=False)
            if (await late.receive())["type"] == "welcome":
                break
            assert time.monotonic() < deadline
        assert (await here.ask("group_create", client_id="g1", name="x"))["type"] == "result"


# --- metrics ---


async def test_metrics_count(site: Site) -> None:
    edge = site.edges[0]
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        before = {
            name: await metric(edge, f"edge_{name}")
            for name in ("acks_total", "connects_total", "received_frames_total")
        }
        refused = await metric(edge, "edge_errors_total", code="not_member")
        one, two = await connect(edge, alice), await connect(edge, bob)
        for number in range(5):
            await one.say(bob, str(number))
        await two.until("chat", content="4")
        await one.write("group_chat", group_id="none", content="x")
        assert await metric(edge, "edge_connections") == 2
        assert await metric(edge, "edge_acks_total") == before["acks_total"] + 5
        assert await metric(edge, "edge_connects_total") == before["connects_total"] + 2
        assert (
            await metric(edge, "edge_received_frames_total") == before["received_frames_total"] + 6
        )
        assert await metric(edge, "edge_errors_total", code="not_member") == refused + 1
        assert await metric(edge, "feed_position") >= 5


# --- development tokens ---


async def test_a_development_token_connects(site: Site, tmp_path: Path) -> None:
    settings = {"jwt_audience": "chat", "jwt_issuer": "https://id.example"}
    (alice,) = names("alice 飛脚")
    async with extra_edge(site, tmp_path, **settings) as edge, Clients() as connect:
        body = json.dumps({"user_id": alice}).encode()
        status, text = await fetch(edge, "/v1/dev/token", body)
        assert status == 200
        answer = json.loads(text)
        assert answer.keys() == {"token", "expires_at"}
        assert answer["expires_at"] / 1000 > time.time() + 3600
        client = await connect(edge, alice, jwt=answer["token"])
        assert client.welcome["user_id"] == alice
        claims = jwt.decode(
            answer["token"], SECRET, ["HS256"], audience="chat", issuer="https://id.example"
        )
        assert claims["exp"] * 1000 == answer["expires_at"]
        refused = await connect(edge, alice, welcomed=False)
        assert (await refused.closed())[0] == 4001


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"user_id":7}',
        b'{"user_id":""}',
        b'{"user_id":"a\\nb"}',
        b'{"user_id":"\xff"}',
        b'{"user_id":"\\ud800"}',
        b'{"user_id":"alice","exp":1}',
        b'{"user_id":"' + b"x" * 65 + b'"}',
        b'{"user_id":"' + b"x" * 5000 + b'"}',
        b"[" * 4000,
    ],
)
async def test_what_asks_for_no_token_is_refused(site: Site, body: bytes) -> None:
    status, text = await fetch(site.edges[0], "/v1/dev/token", body)
    assert status == 400
    assert json.loads(text)["code"] == "invalid"


async def test_a_body_without_a_length_is_not_read(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.edges[0].port)
    writer.write(
        b"POST /v1/dev/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'13\r\n{"user_id":"alice"}\r\n0\r\n\r\n'
    )
    async with asyncio.timeout(10):
        assert b" 400 " in await reader.readline()
    writer.close()


async def test_in_production_there_are_neither_development_tokens_nor_tokens_in_urls(
    site: Site, tmp_path: Path
) -> None:
    (alice,) = names("alice")
    production = {"mode": "production", "internal_secret": "x" * 32}
    async with extra_edge(site, tmp_path, **production) as edge, Clients() as connect:
        status, _ = await fetch(edge, "/v1/dev/token", b'{"user_id":"alice"}')
        assert status == 404
        client = await connect(edge, alice, way="query", welcomed=False)
        code, reason = await client.closed()
        assert code == 4001
        assert "URL" in reason
        ways: tuple[Way, ...] = ("header", "subprotocol", "frame")
        for way in ways:
            await connect(edge, alice, way=way)


async def test_without_a_secret_there_are_no_development_tokens(site: Site, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys":[{"kty":"OKP","crv":"Ed25519","x":"' + "A" * 43 + '"}]}')
    async with extra_edge(site, tmp_path / "e", jwt_secret="", jwt_jwks=str(keys)) as edge:
        status, text = await fetch(edge, "/v1/dev/token", b'{"user_id":"alice"}')
        assert (status, json.loads(text)["code"]) == (404, "not_found")


# --- everything else ---


async def test_other_paths_and_methods_are_refused(site: Site) -> None:
    edge = site.edges[0]
    assert (await fetch(edge, "/nowhere"))[0] == 404
    assert (await fetch(edge, "/ws/chat"))[0] in (404, 426)
    status, text = await fetch(edge, "/v1/dev/token")
    assert (status, json.loads(text)["code"]) == (405, "invalid")
    status, text = await fetch(edge, "/v1/nothing/here")
    assert (status, json.loads(text)["type"], json.loads(text)["code"]) == (
        404,
        "error",
        "not_found",
    )
    assert (await fetch(edge, "/healthz", b"", "DELETE"))[0] == 405


async def test_no_token_is_ever_logged(site: Site, tmp_path: Path) -> None:
    edge = new_edge(site, tmp_path, log_level="debug")
    alice, bob = names("alice", "bob")
    ways: tuple[Way, ...] = ("header", "subprotocol", "query", "frame")
    tokens = {way: token(alice, jti=way) for way in ways}
    bad = token(bob, ttl_s=-1)
    try:
        await edge.start()
        async with Clients() as connect:
            for way, good in tokens.items():
                client = await connect(edge, alice, way=way, jwt=good)
                assert (await client.ask("refresh", token=good))["type"] == "result"
                refused = await connect(
                    edge,
                    bob,
                    way=way,
                    jwt=bad,
                    welcomed=False,
                )
                assert (await refused.closed())[0] == 4001
            for query in ({"token": bad, "user_id": alice}, {"token": "x" + bad}):
                async with await open_socket(edge, query=query) as socket:
                    await socket.wait_closed()
            await fetch(edge, f"/nowhere?token={bad}")
            await fetch(edge, f"/ws/chat?token={bad}")
            status, text = await fetch(edge, "/v1/dev/token", b'{"user_id":"alice"}')
            assert status == 200
        made = json.loads(text)["token"]
    finally:
        edge.process.end(15)
    servers: list[Hikyaku | Nats | Mongo] = [edge, *site.edges, site.worker, site.nats, site.mongo]
    logs = {each.process.log: each.process.log.read_text() for each in servers}
    assert all(logs.values())
    for text in [*tokens.values(), bad, made]:
        for part in text.split("."):
            if part != tokens["header"].split(".")[0]:
                assert not [str(log) for log, content in logs.items() if part in content]
    assert not [str(log) for log, content in logs.items() if SECRET in content]


# --- last, because it takes the log away ---


async def test_another_log_begins_anew(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        for number in range(5):
            await one.say(bob, str(number))
        await two.until("chat", content="4")
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await bus.request("$JS.API.STREAM.DELETE.CHAT", timeout_s=10)
        site.worker.process.kill()
        site.worker.process.start()  # makes a new one
        for client in (one, two):
            assert (await client.closed())[0] == 1012
        for edge in site.edges:
            await becomes_ready(edge, 200)
        again = await connect(site.edges[0], alice)
        assert again.welcome["epoch"] != one.welcome["epoch"]
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        assert (await back.until("caught_up"))["recovered"] is False
        for number in range(20):
            await again.say(bob, f"new {number}")
        await back.until("chat", content="new 19")
        assert back.contents() == [f"new {number}" for number in range(20)]
