"""The socket under uvicorn as it is: what is private there and relied on, and what is built on it.

When a test here fails after an upgrade of uvicorn or websockets, read `edge/socket.py` and
`edge/http_protocol.py` beside the new sources before anything else.
"""

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol

from edge import http_protocol
from edge import socket as edge_socket
from edge.http_protocol import HttpProtocol
from edge.server import EdgeServer
from edge.socket import EXTENSION, REASON_BYTES, SLICE_BYTES, ChatSocket, text_frame
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, frame, handshake
from tests.servers import Hikyaku, eventually

from ..ports import free_port

pytestmark = pytest.mark.anyio

MAX_SIZE = 64 * 1024
OUTBOX_BYTES = 256 * 1024


class Log:
    """A receiver that keeps what it is told, with the turn of the loop in which it was."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.turns: list[tuple[int, int]] = []
        self.turn = 0
        self.then: Callable[[bytes], None] = lambda _: None
        self.lost = 0

    def on_text(self, data: bytes) -> None:
        self.events.append(bytes(data))
        self.turns.append((self.turn, len(data)))
        self.then(data)

    def on_binary(self) -> None:
        self.events.append("binary")

    def on_control(self) -> None:
        self.events.append("control")

    def on_lost(self) -> None:
        self.lost += 1


class Server:
    """uvicorn in this loop with an application that waits for `may_accept`, then takes over."""

    def __init__(self) -> None:
        self.port = free_port()
        self.may_accept = asyncio.Event()
        self.may_accept.set()
        self.sockets: list[ChatSocket] = []
        self.logs: list[Log] = []
        self.resumes = True
        self.client = Hikyaku.__new__(Hikyaku)
        self.client.port = self.port

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await self.may_accept.wait()
        await send({"type": "websocket.accept"})
        socket: ChatSocket = scope["extensions"][EXTENSION]
        log = Log()
        self.sockets.append(socket)
        self.logs.append(log)
        socket.take_over(log, outbox_bytes=OUTBOX_BYTES)
        if self.resumes:
            socket.resume()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = EdgeServer(
            uvicorn.Config(
                self.app,
                port=self.port,
                http=HttpProtocol,
                ws=ChatSocket,
                ws_max_size=MAX_SIZE,
                ws_ping_interval=None,
                ws_per_message_deflate=False,
                lifespan="off",
                interface="asgi3",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        try:
            yield
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with made.running():
        yield made


@asynccontextmanager
async def connected(server: Server, **how: Any) -> AsyncIterator[tuple[Raw, ChatSocket, Log]]:
    """A client, and the socket and its receiver on the server's side."""
    async with Raw(server.client, **how) as raw:
        assert b" 101 " in await raw.upgrade(handshake(server.client))
        yield raw, server.sockets[-1], server.logs[-1]


# --- what is relied on ---


def test_the_versions_are_those_that_were_read() -> None:
    assert (uvicorn.__version__, version("websockets")) == ("0.54.0", "17.4")


def test_the_private_parts_are_there() -> None:
    made = WebSocketsSansIOProtocol.__init__
    state = inspect.getsource(made)
    for name in (
        "config", "app", "loop", "transport", "queue", "close_sent", "disconnected", "close_timer",
        "conn", "read_paused", "writable", "frames", "curr_msg_data_type", "handshake_complete",
    ):  # fmt: skip
        assert f"self.{name}" in state, name
    for owner, expected in (
        (
            WebSocketsSansIOProtocol,
            {
                "run_asgi": ["self"],
                "data_received": ["self", "data"],
                "handle_cont": ["self", "event"],
                "handle_ping": ["self"],
                "handle_pong": ["self", "event"],
                "handle_close": ["self", "event"],
                "handle_parser_exception": ["self"],
                "send_receive_event_to_app": ["self"],
                "send_500_response": ["self"],
                "shutdown": ["self"],
                "connection_lost": ["self", "exc"],
            },
        ),
        (
            HttpToolsProtocol,
            {
                "data_received": ["self", "data"],
                "handle_websocket_upgrade": ["self"],
                "on_message_begin": ["self"],
                "on_headers_complete": ["self"],
            },
        ),
        (ServerProtocol, {"fail": ["self", "code", "reason"], "data_to_send": ["self"]}),
    ):
        for name, parameters in expected.items():
            found = getattr(owner, name)
            assert list(inspect.signature(found).parameters) == parameters, name
    handler = inspect.getsource(HttpToolsProtocol.data_received)
    assert "except httptools.HttpParserUpgrade:" in handler
    assert ServerProtocol().state is State.CONNECTING


async def test_frames_go_straight_to_the_receiver(server: Server) -> None:
    async with connected(server) as (raw, socket, log):
        await raw.write(frame(b"one") + frame(b"\xff", opcode=BINARY) + frame(b"x", opcode=PING))
        await raw.write(frame(b"tw", fin=False) + frame(b"o", opcode=0) + frame(b"", opcode=PONG))
        await eventually(lambda: len(log.events) == 5)
        assert log.events == [b"one", "binary", "control", b"two", "control"]
        assert await raw.read_frame() == (PONG, b"x")
        assert socket.queue is edge_socket._CLOSED
        assert log.lost == 0
    await eventually(lambda: log.lost == 1)


async def test_what_the_protocol_has_no_code_for_keeps_the_librarys(server: Server) -> None:
    for sent, code in (
        (frame(b"x" * (MAX_SIZE + 1)), 4013),
        (frame(b"x" * MAX_SIZE, fin=False) + frame(b"x", opcode=0), 4013),
        (frame(b"x", masked=False), 1002),
        (frame(b"x", opcode=3), 1002),
    ):
        async with connected(server) as (raw, _, log):
            await raw.write(sent)
            assert await raw.closed() == code
            await raw.ended(2)
            assert log.events == []
        await eventually(lambda log=log: log.lost == 1)  # type: ignore[misc]


# --- before the application has answered ---


async def test_frames_right_behind_the_handshake_wait_for_the_application(server: Server) -> None:
    """uvicorn forgets what came in the same packet as the request."""
    server.may_accept.clear()
    server.resumes = False
    async with Raw(server.client) as raw:
        first = b"".join(frame(b"early %d" % number) for number in range(3))
        await raw.write(handshake(server.client) + first + frame(b"cut")[:4])
        await raw.write(frame(b"cut")[4:] + frame(b"late"))
        server.may_accept.set()
        await raw.reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: bool(server.sockets))
        assert server.logs[0].events == []
        server.sockets[0].resume()
        await eventually(lambda: len(server.logs[0].events) == 5)
        expected = [b"early 0", b"early 1", b"early 2", b"cut", b"late"]
        assert server.logs[0].events == expected


@pytest.mark.parametrize(
    "bad",
    [
        frame(b"x", masked=False),
        frame(b"x" * (MAX_SIZE + 1)),
        frame(b"\xff"),
        frame(b"\x03\xe8", opcode=CLOSE),
        frame(b"x", opcode=BINARY) + frame(b"x", opcode=PING),
    ],
    ids=["unmasked", "too large", "no utf-8", "close", "binary and ping"],
)
async def test_bad_frames_right_behind_the_handshake_harm_nobody(
    server: Server, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.may_accept.clear()
    async with Raw(server.client) as raw:
        await raw.write(handshake(server.client) + bad)
        async with connected_after(server) as log:
            assert log.events == [b"fine"]
    assert [each for each in caplog.records if each.levelname in ("ERROR", "CRITICAL")] == []


async def test_a_handshake_leaves_no_garbage_behind(server: Server) -> None:
    """uvicorn's parser and protocol kept each other, 3 kB for each connection, until a search."""
    gc.collect()
    gc.disable()
    try:
        async with connected(server):
            left = [each for each in gc.get_objects() if isinstance(each, HttpProtocol)]
            assert left == []
    finally:
        gc.enable()


@asynccontextmanager
async def connected_after(server: Server) -> AsyncIterator[Log]:
    """Another client that is served, with the first one's handshake answered."""
    server.may_accept.set()
    async with connected(server) as (raw, _, log):
        await raw.write(frame(b"fine"))
        await eventually(lambda: bool(log.events))
        yield log


async def test_a_client_may_go_before_the_application_answers(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.may_accept.clear()
    for _ in range(3):
        async with Raw(server.client) as raw:
            await raw.write(handshake(server.client))
    async with connected_after(server):
        pass
    assert [each for each in caplog.records if each.levelname in ("ERROR", "CRITICAL")] == []


async def test_a_request_must_be_complete_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
    request = handshake(server.client)
    for sent in (b"", request[:1], request[:-1]):
        async with Raw(server.client) as raw:
            await raw.write(sent)
            await raw.ended(5)
    async with connected(server) as (raw, _, log):
        async with Raw(server.client) as late:
            await late.ended(5)
        await raw.write(frame(b"in time"))
        await eventually(lambda: log.events == [b"in time"])


async def test_a_request_must_not_be_larger_than_any_is(server: Server) -> None:
    async with Raw(server.client) as raw:
        await raw.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        line = b"x-filler: %b\r\n" % (b"x" * 1000)
        ended = asyncio.create_task(raw.ended())
        written = 0
        while not ended.done():
            await raw.write(line)
            written += len(line)
            await asyncio.sleep(0)
        assert written < 50 * http_protocol.HEAD_BYTES


# --- input ---


async def test_a_turn_of_the_loop_takes_a_slice_of_one_client(server: Server) -> None:
    async with connected(server) as (raw, _, log):
        loop = asyncio.get_running_loop()
        ticking = True

        def tick() -> None:
            log.turn += 1
            if ticking:
                loop.call_soon(tick)

        tick()
        try:
            await raw.write(b"".join(frame(b"%0500d" % number) for number in range(2000)))
            await eventually(lambda: len(log.events) == 2000)
        finally:
            ticking = False
        assert [int(event) for event in log.events] == list(range(2000))
        by_turn: dict[int, int] = {}
        for turn, size in log.turns:
            by_turn[turn] = by_turn.get(turn, 0) + size
        # The rest of one read, and the first of the next, may fall into the same turn.
        assert max(by_turn.values()) <= 2 * SLICE_BYTES
        assert len(by_turn) >= 2000 * 500 // (2 * SLICE_BYTES)


async def test_a_paused_socket_hands_over_nothing_until_it_is_resumed(server: Server) -> None:
    async with connected(server) as (raw, socket, log):
        log.then = lambda data: socket.pause() if data == b"pause" else None
        sent = [b"a", b"pause", b"b", b"pause", b"x" * 40_000, b"c"]
        await raw.write(b"".join(map(frame, sent[:3])) + frame(b"", opcode=BINARY))
        await raw.write(b"".join(map(frame, sent[3:])))
        await eventually(lambda: len(log.events) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert log.events == [b"a", b"pause"]
        socket.resume()
        await eventually(lambda: len(log.events) == 5)
        assert log.events[2:] == [b"b", "binary", b"pause"]
        socket.resume()
        await eventually(lambda: len(log.events) == 7)
        assert log.events[5:] == [b"x" * 40_000, b"c"]


# --- output ---


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_frames_of_every_size_arrive(server: Server, size: int) -> None:
    async with connected(server) as (raw, socket, _):
        socket.push(text_frame(b"x" * size))
        assert await raw.read_frame() == (TEXT, b"x" * size)


async def test_what_one_turn_pushes_is_one_write(server: Server) -> None:
    async with connected(server) as (raw, socket, _):
        writes: list[int] = []
        transport = socket.transport

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                transport.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

        socket.transport = Counting()  # type: ignore[assignment]
        for number in range(100):
            socket.push(text_frame(b"%03d" % number))
        assert writes == []
        received = [await raw.read_frame() for _ in range(100)]
        assert received == [(TEXT, b"%03d" % number) for number in range(100)]
        assert writes == [500]


async def test_who_does_not_read_is_told_4208_and_let_go(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_socket, "LINGER_S", 0.2)
    async with connected(server, receive_buffer=4096) as (raw, socket, log):
        pushed = 0
        while not socket.closing:
            socket.push(text_frame(b"x" * 50_000))
            pushed += 50_000
            await asyncio.sleep(0)
            assert pushed < 100_000_000
        unsent = socket.transport.get_write_buffer_size()
        assert OUTBOX_BYTES < unsent < OUTBOX_BYTES + 60_000
        socket.push(text_frame(b"y" * 50_000))
        await eventually(lambda: log.lost == 1)
    async with connected(server, receive_buffer=4096) as (raw, socket, _):
        monkeypatch.setattr(edge_socket, "LINGER_S", 20)
        while not socket.closing:
            socket.push(text_frame(b"x" * 50_000))
            await asyncio.sleep(0)
        assert await raw.closed() == 4208


async def test_drained_says_whether_the_client_keeps_up(server: Server) -> None:
    async with connected(server, receive_buffer=4096) as (raw, socket, log):
        assert await socket.drained(1) is True
        while await socket.drained(0.05):
            socket.push(text_frame(b"x" * 40_000))
        assert not socket.closing
        reading = asyncio.create_task(raw.ended())
        assert await socket.drained(20) is True
        reading.cancel()
        while await socket.drained(0.05):
            socket.push(text_frame(b"x" * 40_000))
        waiting = asyncio.create_task(socket.drained(20))
        raw.writer.transport.abort()
        assert await waiting is False
        await eventually(lambda: log.lost == 1)
        assert await socket.drained(1) is False


async def test_close_says_everything_pushed_before_and_nothing_after(server: Server) -> None:
    async with connected(server) as (raw, socket, log):
        socket.push(text_frame(b"before"))
        socket.close(4200, "飛" * 60)
        socket.push(text_frame(b"after"))
        socket.close(4001, "again")
        assert await raw.read_frame() == (TEXT, b"before")
        opcode, payload = await raw.read_frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 4200)
        assert payload[2:].decode() == "飛" * (REASON_BYTES // 3)
        await raw.write(frame(b"too late"))
        await raw.write(frame(payload[:2], opcode=CLOSE))
        await raw.ended(2)
        assert log.events == []
    await eventually(lambda: log.lost == 1)
    socket.close(4001)
    socket.push(text_frame(b"gone"))
    await asyncio.sleep(0)


async def test_the_client_may_close(server: Server) -> None:
    async with connected(server) as (raw, socket, log):
        await raw.write(frame(b"last words") + frame(b"\x03\xe8bye", opcode=CLOSE))
        assert await raw.read_frame() == (CLOSE, b"\x03\xe8bye")
        await raw.ended(2)
        await eventually(lambda: log.lost == 1)
        assert log.events == [b"last words"]
        assert socket.closing
