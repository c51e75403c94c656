"""A real push service on loopback: HTTP/2 or HTTP/1.1 over TLS, with a certificate of a test CA.

It answers as it is told, request by request, faults included, and keeps what it was asked.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import trustme

STREAMS = 100


class Fault(Enum):
    """What a server may do instead of answering."""

    GOAWAY = "ends the connection before it has looked at the request"
    RESET = "resets the stream"
    DROP = "drops the connection"
    HANG = "never answers"


class Request(NamedTuple):
    """A request; names of headers are lower case. `connection` counts from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    version: str


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


Answer = Callable[[Request], Awaitable[Reply | Fault]]


class Authority:
    """A certificate authority, and what trusts it."""

    def __init__(self, folder: Path):
        self._ca = trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    @property
    def env(self) -> dict[str, str]:
        """For a process that shall trust it."""
        return {"SSL_CERT_FILE": str(self.file)}

    def context(self, *names: str, http2: bool = True) -> ssl.SSLContext:
        """What a server of these names needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return context


class PushServer:
    """Use as a context manager. `answer` says what each request gets; 200 unless it is set."""

    def __init__(self, authority: Authority, *names: str, http2: bool = True):
        self._context = authority.context(*(names or ("127.0.0.1", "localhost")), http2=http2)
        self.requests: list[Request] = []
        self.connections = 0
        self.answer: Answer = self._ok
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.port = 0

    @staticmethod
    async def _ok(_: Request) -> Reply:
        return Reply(200)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "PushServer":
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Be gone, with all connections; may be entered again, on the same port."""
        self._server.close()
        for task in list(self._handlers):
            task.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        try:
            if tls.selected_alpn_protocol() == "h2":
                await _Http2(self, reader, writer, self.connections).run()
            else:
                await self._http1(reader, writer, self.connections)
        except (OSError, ssl.SSLError, RuntimeError):
            pass  # the client has gone
        finally:
            writer.transport.abort()

    async def replied(self, request: Request) -> Reply | Fault:
        self.requests.append(request)
        return await self.answer(request)

    async def _http1(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        connection = h11.Connection(h11.SERVER)

        async def event() -> Any:
            while (found := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(65_536))
            return found

        while isinstance(head := await event(), h11.Request):
            body = b""
            while isinstance(part := await event(), h11.Data):
                body += part.data
            headers = {name.decode(): value.decode() for name, value in head.headers}
            path = head.target.decode()
            asked = Request(head.method.decode(), path, headers, body, number, "HTTP/1.1")
            reply = await self.replied(asked)
            if reply is Fault.HANG:
                await asyncio.Event().wait()
            if isinstance(reply, Fault):
                return
            fields = {"content-length": str(len(reply.body)), **reply.headers}
            response = h11.Response(status_code=reply.status, headers=list(fields.items()))
            for each in (response, h11.Data(data=reply.body), h11.EndOfMessage()):
                writer.write(connection.send(each) or b"")
            await writer.drain()
            connection.start_next_cycle()


class _Http2:
    """One HTTP/2 connection: each request is answered by a task of its own."""

    def __init__(
        self,
        server: PushServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ):
        self._server = server
        self._reader = reader
        self._writer = writer
        self._number = number
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config=config)
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS})
        self._send()
        try:
            while data := await self._reader.read(65_536):
                for event in self._h2.receive_data(data):
                    self._on(event)
                self._send()
        except h2.exceptions.ProtocolError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _send(self) -> None:
        self._writer.write(self._h2.data_to_send())

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                assert event.stream_id is not None
                self._heads[event.stream_id] = {str(n): str(v) for n, v in event.headers or ()}
                self._bodies[event.stream_id] = b""
            case h2.events.DataReceived():
                assert event.stream_id is not None
                self._bodies[event.stream_id] += event.data or b""
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                assert event.stream_id is not None
                task = asyncio.create_task(self._answer(event.stream_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, stream: int) -> None:
        head = self._heads.pop(stream)
        body = self._bodies.pop(stream)
        headers = {name: value for name, value in head.items() if not name.startswith(":")}
        asked = Request(head[":method"], head[":path"], headers, body, self._number, "HTTP/2")
        reply = await self._server.replied(asked)
        with suppress(h2.exceptions.ProtocolError):
            match reply:
                case Fault.HANG:
                    await asyncio.Event().wait()
                case Fault.DROP:
                    self._writer.transport.abort()
                case Fault.RESET:
                    self._h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
                case Fault.GOAWAY:
                    self._h2.close_connection(last_stream_id=max(0, stream - 2))
                    self._send()
                    self._writer.close()
                case Reply():
                    fields = [(":status", str(reply.status)), *reply.headers.items()]
                    self._h2.send_headers(stream, fields, end_stream=not reply.body)
                    if reply.body:
                        self._h2.send_data(stream, reply.body, end_stream=True)
            if not self._writer.is_closing():
                self._send()
