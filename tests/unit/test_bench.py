"""The scenarios against a scripted server on real sockets: two edges in one process, one log."""

import asyncio
import contextlib
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bench import campaign, dm, faults, groups, idle, load, resume, runner
from bench.cli import main
from bench.client import Client, Closed, Refused
from bench.faults import Fault, under_fire
from bench.scenario import BenchError, Context, Target, check_alive
from bench.stack import Stack

SECRET = "a secret of at least thirty-two bytes"
Hook = Callable[["Scripted", dict[str, Any]], dict[str, Any] | None]


class Scripted:
    """One log, any number of edges. `hook` may answer a frame in place of the log."""

    def __init__(self) -> None:
        self.log: list[tuple[set[str], dict[str, Any]]] = []
        self.groups: dict[str, set[str]] = {}
        self.done: dict[tuple[str, str], dict[str, Any]] = {}
        self.online: dict[str, set[ServerConnection]] = defaultdict(set)
        self.hook: Hook = lambda _server, _fields: None
        self.servers: list[Server] = []

    @property
    def target(self) -> Target:
        ports = [next(iter(server.sockets)).getsockname()[1] for server in self.servers]
        edges = tuple(f"127.0.0.1:{port}" for port in ports)
        return Target(edges=edges, secret=SECRET, supervisor=os.getpid())

    async def start_edge(self) -> None:
        edge = await serve(
            self.serve_one, "127.0.0.1", 0, process_request=self.http, compression=None
        )
        self.servers.append(edge)

    def http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/readyz":
            return connection.respond(HTTPStatus.OK, "ready\n")
        return None

    async def serve_one(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        token = socket.request.headers["Authorization"].removeprefix("Bearer ")
        user = str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])
        _, _, cursor = socket.request.path.partition("cursor=e%3A")
        welcome = {"type": "welcome", "user_id": user, "cursor": f"e:{len(self.log)}"}
        await socket.send(json.dumps(welcome))
        if cursor:
            for members, event in self.log[int(cursor) :]:
                if user in members:
                    await socket.send(json.dumps(event, separators=(",", ":")))
            await socket.send('{"type":"caught_up","recovered":true}')
        self.online[user].add(socket)
        await socket.send('{"type":"ping"}')
        try:
            async for text in socket:
                await self.handle(socket, user, json.loads(text))
        except ConnectionClosed:
            return
        finally:
            self.online[user].discard(socket)

    async def handle(self, socket: ServerConnection, user: str, fields: dict[str, Any]) -> None:
        answer = self.hook(self, fields)
        if answer is None and fields["type"] == "group_create":
            self.groups[fields["group_id"]] = {user, *fields["members"]}
            answer = {"type": "result", "group": {"group_id": fields["group_id"]}}
        elif answer is None and fields["type"] in ("chat", "group_chat"):
            answer = await self.store(user, fields)
        if answer is not None:
            names = {key: fields[key] for key in ("id", "client_id") if key in fields}
            await socket.send(json.dumps(answer | names, separators=(",", ":")))

    async def store(self, user: str, fields: dict[str, Any]) -> dict[str, Any]:
        name = (user, fields["client_id"])
        if name in self.done:
            return self.done[name]
        members = {user, fields["to"]} if "to" in fields else self.groups[fields["group_id"]]
        seq = len(self.log) + 1
        event = {**fields, "seq": seq, "id": str(seq), "from": user}
        self.log.append((members, event))
        self.done[name] = {"type": "ack", "seq": seq}
        frame = json.dumps(event, separators=(",", ":"))
        for member in members:
            for socket in list(self.online[member]):
                with contextlib.suppress(ConnectionClosed):
                    await socket.send(frame)
        return self.done[name]


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    await server.start_edge()
    await server.start_edge()
    try:
        yield server
    finally:
        for edge in server.servers:
            edge.close()
            await edge.wait_closed()


def with_server(body: Callable[[Scripted, Context], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), scripted() as server:
            await body(server, Context(server.target, quick=True))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenarios at a size that a scripted server in the same process can carry."""
    monkeypatch.setattr(Context, "scaled", lambda _self, _full, quick: quick / 4)
    for module, name, value in [
        (dm, "RATE", 40),
        (dm, "PAIRS", 3),
        (dm, "LATENCY_PAIRS", 3),
        (groups, "SMALL", 6),
        (groups, "LARGE", 8),
        (groups, "RATE", 20),
        (groups, "SENDERS", 2),
        (idle, "WARM", 4),
        (idle, "SETTLE_S", 0.01),
        (resume, "MISSED", 100),
        (load, "RETRY_S", 0.01),
    ]:
        monkeypatch.setattr(module, name, value)


def test_dm_latency() -> None:
    async def body(_server: Scripted, context: Context) -> None:
        outcome = await dm.latency(context)
        assert 0 < outcome.metrics["dm_p50_ms"] <= outcome.metrics["dm_p99_ms"] < 1000
        assert len(outcome.curves["dm_ms"]) == 100

    with_server(body)


def test_dm_saturation() -> None:
    async def body(server: Scripted, context: Context) -> None:
        outcome = await dm.saturation(context)
        assert outcome.metrics["dm_per_s"] > 10
        assert outcome.metrics["dm_cpu_ms"] > 0
        assert outcome.cpu_us["supervisor"] > 0
        assert len(server.log) >= outcome.notes["deliveries"]  # type: ignore[operator]

    with_server(body)


def test_groups() -> None:
    async def body(_server: Scripted, context: Context) -> None:
        outcome = await groups.saturation(Context(context.target), 6)
        assert outcome.metrics["group6_per_s"] > 10
        assert (await groups.latency(context)).metrics["group500_p99_ms"] > 0

    with_server(body)


def test_idle_and_resume() -> None:
    async def body(_server: Scripted, context: Context) -> None:
        with pytest.raises(BenchError, match="no edge process"):
            await idle.idle(context)
        outcome = await resume.resume(Context(context.target))
        assert 0 < outcome.metrics["resume_ms"] <= outcome.metrics["resume_max_ms"]

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(Context, "scaled", lambda _self, _full, _quick: 1)
    try:
        with_server(body)
    finally:
        monkeypatch.undo()


def test_a_message_that_does_not_arrive_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "DRAIN_TIMEOUT_S", 0.2)

    def drop(server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        lost = fields["type"] == "chat" and len(server.log) > 20
        return {"type": "ack", "seq": 0} if lost else None

    async def body(server: Scripted, context: Context) -> None:
        server.hook = drop
        with pytest.raises(BenchError, match="missing"):
            await dm.saturation(context)

    with_server(body)


def test_refused_messages_are_retried_or_end_the_run() -> None:
    refusals = [0]

    def refuse(_server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        refusals[0] += fields["type"] == "chat"
        if fields["type"] == "chat" and refusals[0] % 10 == 0:
            return {"type": "error", "code": "overloaded", "retryable": refusals[0] < 1 << 30}
        return None

    async def body(server: Scripted, context: Context) -> None:
        server.hook = refuse
        outcome = await dm.saturation(context)
        assert outcome.notes["refused_and_retried"] > 0  # type: ignore[operator]
        refusals[0] = 1 << 30
        with pytest.raises(BenchError, match="overloaded"):
            await dm.saturation(Context(context.target, quick=True))

    with_server(body)


def test_client_tells_why_it_ended() -> None:
    def close(server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        if fields["type"] != "leave":
            return None
        for socket in [one for sockets in server.online.values() for one in sockets]:
            socket.loop.create_task(socket.close(4200, "draining"))
        return {}

    async def body(server: Scripted, context: Context) -> None:
        server.hook = close
        client = Client("alice")
        await context.open(client, 0)
        with pytest.raises(Closed, match="4200 draining"):
            await client.request({"type": "leave"})
        with pytest.raises(BenchError, match="4200"):
            check_alive([client])
        server.hook = lambda _server, _fields: {"type": "error", "code": "invalid"}
        again = Client("alice")
        await context.open(again, 1)
        with pytest.raises(Refused, match="invalid"):
            await again.request({"type": "x"})
        again.close()
        assert (await again.closed).code in (1000, 1006)
        with pytest.raises(ConnectionRefusedError):
            await Client("bob").open("127.0.0.1:9", SECRET)

    with_server(body)


def fault(server: Scripted, strike: Callable[[], None]) -> Fault:
    async def healed() -> bool:
        return bool(server.servers)

    return Fault(name="test", strike=strike, healed=healed)


def cut_all(server: Scripted) -> None:
    for sockets in server.online.values():
        for socket in sockets:
            socket.transport.abort()


def fire(strike: Callable[[Scripted], None], *, hook: Hook | None = None) -> faults.FaultReport:
    found: list[faults.FaultReport] = []

    async def body(server: Scripted, context: Context) -> None:
        server.hook = hook or server.hook
        plan = [fault(server, lambda: strike(server))] * 2
        found.append(
            await under_fire(
                context.target, plan, run=context.run, rate=100, pairs=4, quiet_s=0.4, heal_s=3
            )
        )

    with_server(body)
    return found[0]


def test_nothing_is_lost_when_connections_are_cut() -> None:
    report = fire(cut_all)
    assert report.sent == report.acked == report.delivered > 50
    assert (report.lost, report.doubled, report.out_of_order, report.without_ack) == (0, 0, 0, 0)
    assert len(report.faults) == 2
    assert report.closes.keys() == {"1006"}
    assert 8 < report.closes["1006"] <= 16, "on a slow machine some are not back at the second cut"
    assert 0.04 < report.longest_wait_s < 3


def test_lost_messages_are_counted() -> None:
    def lose(server: Scripted) -> None:
        server.log[-10:] = [(set(), event) for _, event in server.log[-10:]]
        cut_all(server)

    def acked_only(server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        lost = fields["type"] == "chat" and fields["client_id"].endswith("-000000005")
        return {"type": "ack", "seq": 0} if lost else None

    report = fire(lose, hook=acked_only)
    assert report.lost == 4
    assert report.sent == report.acked


def test_doubles_repeats_and_wrong_order_are_counted() -> None:
    def mangle(server: Scripted) -> None:
        """Say an old event again under its id, under a new one, and under an old seq."""
        members, event = server.log[0]
        server.log.append((members, event))
        server.log.append((members, {**event, "id": "new", "seq": 1}))
        cut_all(server)

    report = fire(mangle)
    assert report.doubled == 1
    assert report.repeats >= 2
    assert report.out_of_order == 1
    assert report.overtaken == 1


def test_retryable_errors_are_retried_in_order() -> None:
    count = [0]

    def flaky(_server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        count[0] += 1
        if 20 < count[0] < 40 and fields["type"] == "chat":
            return {"type": "error", "code": "unavailable", "retryable": True}
        return None

    report = fire(lambda _server: None, hook=flaky)
    assert report.sent == report.acked == report.delivered
    assert report.lost == report.doubled == 0


def test_final_errors_are_told() -> None:
    def never(_server: Scripted, fields: dict[str, Any]) -> dict[str, Any] | None:
        if fields.get("client_id", "").endswith("-000000003"):
            return {"type": "error", "code": "forbidden", "message": "no", "retryable": False}
        return None

    report = fire(lambda _server: None, hook=never)
    assert report.refused == ["forbidden: no"] * 4
    assert report.sent == report.acked + 4


def test_runner_process_and_cli_against_a_running_stack(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def command(server: Scripted, *arguments: str) -> int:
        urls = [f"--url=http://{edge}" for edge in server.target.edges]
        given = [*arguments, "--quick", "--out", str(tmp_path), f"--secret={SECRET}", *urls]
        return await asyncio.to_thread(main, given)

    async def body(server: Scripted, context: Context) -> None:
        said: list[str] = []
        job = runner.Job(scenario="resume", target=context.target, quick=True)
        outcome = await runner.supervise(job, said.append, timeout_s=50)
        assert outcome.metrics["resume_ms"] > 0
        assert said[0] == "return 1 of 3"
        assert await command(server, "idle") == 1

    with_server(body)
    (written,) = tmp_path.glob("*.json")
    assert "supervisor's pid" in json.loads(written.read_bytes())["failures"]["idle"][0]
    assert "idle failed: memory and CPU" in capfd.readouterr().out.replace("\n", " ")


def test_runner_ends_what_takes_too_long() -> None:
    async def body(_server: Scripted, context: Context) -> None:
        job = runner.Job(scenario="dm-latency", target=context.target, quick=True)
        with pytest.raises(BenchError, match="not finished"):
            await runner.supervise(job, lambda _: None, timeout_s=1.5)

    with_server(body)


def test_a_stack_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def run() -> None:
        async with Stack(tmp_path, ("-c", "print('no port for me')")):
            pass

    with pytest.raises(BenchError, match="no port for me"):
        asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


SERVER = """
import http.server, os, pathlib, threading
log = pathlib.Path(os.environ["HIKYAKU_HOME"], "log")
log.mkdir(parents=True)
(log / "edge-1.log").write_text("why it failed")
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
port = int(os.environ["HIKYAKU_EDGE_PORT"])
for n in (0, 1):
    server = http.server.HTTPServer(("127.0.0.1", port + n), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("Hikyaku is ready", flush=True)
threading.Event().wait()
"""


def test_a_stack_is_started_and_stopped(tmp_path: Path) -> None:
    async def run() -> Target:
        async with Stack(tmp_path, ("-c", SERVER)) as target:
            return target

    target = asyncio.run(run())
    assert len(target.edges) == 2
    assert not Path(f"/proc/{target.supervisor}").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "Stack", lambda folder, without: Stack(folder, ("-c", SERVER)))
    monkeypatch.setattr(campaign, "QUIET_S", 1)
    given = ["resume", "dm-latency", "--quick", "--patience", "0.03", "--out", str(tmp_path)]
    assert main(given) == 1
    (written,) = tmp_path.glob("*.json")
    failures = json.loads(written.read_bytes())["failures"]
    assert sorted(failures) == ["dm-latency", "resume"]
    assert "upgrade refused" in failures["resume"][0]
    assert {log.read_text() for log in tmp_path.glob("*-logs-*/edge-1.log")} == {"why it failed"}
    assert not list(tmp_path.glob("stack-*"))


def test_a_stack_that_does_not_start_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        campaign, "Stack", lambda folder, without: Stack(folder, ("-c", "print('no')"))
    )
    assert main(["resume", "idle", "--quick", "--out", str(tmp_path)]) == 1
    (written,) = tmp_path.glob("*.json")
    assert set(json.loads(written.read_bytes())["failures"]) == {"resume", "idle"}
