"""The way of an edge to the worker `files`, between a real server and one that misbehaves."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from broker.files import ASKER, Vouching
from edge import files as files_module
from edge import http_protocol
from edge.config import EdgeConfig, EdgeFilesConfig, TokenConfig
from edge.files import FileGate
from edge.http_protocol import HttpProtocol
from edge.tokens import TokenVerifier

from ..filesite import INTERNAL
from ..ports import free_port
from ..servers import SECRET, eventually, token

pytestmark = pytest.mark.anyio

PATH = "/v1/files/xyz"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Worker:
    """Speaks as a test says; what it received is kept."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self.speak: Speak = self.answer

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.lost.set()
        finally:
            writer.close()

    async def end(self) -> None:
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += head
        return head

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Kind: a\r\nServer: s\r\n\r\nok")
        await writer.drain()


@asynccontextmanager
async def gate(worker: Worker) -> AsyncIterator[tuple[int, FileGate]]:
    """The port of a server with nothing but the gate."""
    listening = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    config = EdgeConfig(
        tokens=TokenConfig(secret=SECRET),
        files=EdgeFilesConfig(url=f"http://127.0.0.1:{port}", secret=INTERNAL),
    )
    edge_port = free_port()
    async with FileGate(config, TokenVerifier(config.tokens)) as made:
        server = Server(
            uvicorn.Config(
                Starlette(routes=made.routes),
                port=edge_port,
                http=HttpProtocol,
                lifespan="off",
                server_header=False,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        try:
            yield edge_port, made
        finally:
            server.should_exit = True
            await serving
            await worker.end()
            listening.close()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


def request(method: str, path: str = PATH, **headers: str) -> bytes:
    named = {"Host": "x", "Authorization": f"Bearer {token('alice')}", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        return int(head.split()[1]), head, await reader.readexactly(length)


async def test_only_what_the_worker_needs_is_passed_on() -> None:
    worker = Worker()
    async with gate(worker) as (port, _):
        reader, writer = await connect(port)
        asked = {ASKER: "forged", "Cookie": "c", "X_Forwarded_For": "1.2.3.4", "Range": "bytes=0-"}
        writer.write(request("GET", f"{PATH}?signature=s&token=t", **asked))
        status, head, body = await response(reader)
        assert (status, body) == (200, b"ok")
        assert b"x-kind: a" in head.lower()
        assert b"server:" not in head.lower()
        text = worker.received.decode()
        assert text.startswith(f"GET {PATH} HTTP/1.1")
        for secret in ("Bearer", "forged", "Cookie", "1.2.3.4", "signature", "token"):
            assert secret not in text
        assert "range: bytes=0-" in text.lower()
        given = next(each for each in text.split("\r\n") if each.lower().startswith(ASKER))
        asker = given.partition(": ")[2]
        assert Vouching(INTERNAL).asked(asker, time.time()) == "alice"
        writer.close()


async def test_an_early_refusal_is_told_at_once() -> None:
    """The worker answers before it has read the body: the client need not send all of it."""
    worker = Worker()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        body = b'{"type":"error","code":"not_member","message":"no","retryable":false}'
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        await reader.read()

    worker.speak = refuse
    async with gate(worker) as (port, _):
        reader, writer = await connect(port)
        writer.write(request("POST", "/v1/files", Content_Length="50000000") + bytes(100_000))
        status, _, body = await response(reader)
        assert (status, json.loads(body)["code"]) == (403, "not_member")
        writer.close()


async def test_an_answer_that_breaks_off_is_not_completed() -> None:
    worker = Worker()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
        await writer.drain()

    worker.speak = break_off
    async with gate(worker) as (port, made):
        reader, writer = await connect(port)
        writer.write(request("GET"))
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            try:
                data = await reader.read()
            except ConnectionResetError:
                data = b""
        assert len(data) < 1000
        await eventually(lambda: made.transfers == 0)
        writer.close()


async def test_a_worker_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "ANSWER_S", 0.3)
    worker = Worker()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        await asyncio.sleep(3600)

    worker.speak = hang
    async with gate(worker) as (port, made):
        reader, writer = await connect(port)
        writer.write(request("GET"))
        status, head, body = await response(reader)
        assert (status, json.loads(body)["code"]) == (503, "unavailable")
        assert b"retry-after: 1" in head.lower()
        assert made.failures == 1
        writer.close()


async def test_a_client_that_reads_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "PIECE_S", 0.3)
    worker = Worker()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()

    worker.speak = pour
    async with gate(worker) as (port, made):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", port))
        with raw:
            raw.sendall(request("GET"))
            async with asyncio.timeout(20):
                await worker.lost.wait()
            await eventually(lambda: made.transfers == 0)


async def test_a_client_that_sends_no_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "PIECE_S", 0.3)
    worker = Worker()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        await reader.readexactly(1000)

    worker.speak = read
    async with gate(worker) as (port, made):
        reader, writer = await connect(port)
        writer.write(request("POST", "/v1/files", Content_Length="1000") + b"x" * 500)
        async with asyncio.timeout(20):
            await worker.lost.wait()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        await eventually(lambda: made.transfers == 0)
        assert made.failures == 0, "it is not the worker's fault"
        writer.close()


async def test_a_download_ends_when_its_client_leaves() -> None:
    worker = Worker()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await worker.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()

    worker.speak = pour
    async with gate(worker) as (port, made):
        reader, writer = await connect(port)
        writer.write(request("GET"))
        await reader.readexactly(200_000)
        assert made.transfers == 1
        writer.transport.abort()
        async with asyncio.timeout(20):
            await worker.lost.wait()
        await eventually(lambda: made.transfers == 0)


async def test_so_many_transfers_of_a_user_go_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "TRANSFERS_PER_USER", 2)
    worker = Worker()
    release = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await worker.answer(reader, writer)

    worker.speak = wait
    async with gate(worker) as (port, made):
        clients = [await connect(port) for _ in range(3)]
        for _, writer in clients:
            writer.write(request("GET"))
        done, waiting = await asyncio.wait(
            [asyncio.create_task(response(reader)) for reader, _ in clients],
            return_when=asyncio.FIRST_COMPLETED,
        )
        (refused,) = done
        status, head, body = refused.result()
        assert (status, json.loads(body)["code"]) == (503, "overloaded")
        assert b"retry-after: 1" in head.lower()
        release.set()
        assert [each[0] for each in await asyncio.gather(*waiting)] == [200, 200]
        await eventually(lambda: made.transfers == 0)
        for _, writer in clients:
            writer.close()


async def test_the_rest_of_a_refused_body_is_read_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.5)
    worker = Worker()
    async with gate(worker) as (port, _):
        reader, writer = await connect(port)
        writer.write(request("POST", "/v1/files", Content_Length="999999999"))
        status, _, _ = await response(reader)
        assert status == 413
        with contextlib.suppress(ConnectionError, RuntimeError):  # the latter is uvloop's
            async with asyncio.timeout(20):
                while not reader.at_eof():
                    writer.write(bytes(10_000))
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.transport.abort()
        # One that comes to an end lives on.
        reader, writer = await connect(port)
        writer.write(request("PUT", "/v1/nothing", Content_Length="100000") + bytes(50_000))
        assert (await response(reader))[0] == 404
        writer.write(bytes(50_000) + request("GET"))
        assert (await response(reader))[0] == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 1.0)
        writer.close()
