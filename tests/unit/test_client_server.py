"""A scripted server for the tests of the client: a real WebSocket server on loopback.

The test plays the server: `link = await server.accept()`, `await link.welcome()`, then
`frame = await link.receive(Chat)`, `await link.ack(frame, seq=7)`, `await link.close(4208)`. Every
wait ends after `WITHIN_S`. Nothing is answered that the test does not answer.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

from edge.frames import (
    Ack,
    CaughtUp,
    Chat,
    ChatEvent,
    Error,
    Limits,
    Missing,
    Request,
    ServerInfo,
    Welcome,
    decode_request,
    encode,
)

WITHIN_S = 10.0
T = TypeVar("T")


async def eventually(check: Callable[[], object], what: str = "") -> None:
    """Poll until `check` holds."""
    deadline = time.monotonic() + WITHIN_S
    while not check():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        await asyncio.sleep(0.005)


def message(seq: int, content: str = "", *, id: str | None = None, **fields: str) -> ChatEvent:
    """A message from bob to alice, or as the fields say."""
    plain = ChatEvent(
        seq=seq,
        id=id or str(1000 + seq),
        chat_id="dm.alice.bob",
        from_="bob",
        to="alice",
        content=content or f"message {seq}",
        content_type="text",
        timestamp=int(time.time() * 1000),
        client_id=f"c{seq}",
    )
    return msgspec.structs.replace(plain, **fields)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect twenty times as fast as outside of tests."""
    monkeypatch.setattr("client.policy.BACKOFF_FIRST_S", 0.05)


class Link:
    """One connection of a client, seen from the server."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        self.parameters = {name: values[-1] for name, values in query.items()}
        self.authorization = socket.request.headers.get("Authorization", "")
        self.path = socket.request.path
        self.socket = socket
        self.ignored: tuple[type, ...] = ()

    @property
    def cursor(self) -> str | None:
        """The cursor that the client came with."""
        return self.parameters.get("cursor")

    async def welcome(
        self,
        cursor: str = "e1:0",
        *,
        limits: Limits | None = None,
        heartbeat_s: int = 30,
        user: str = "alice",
    ) -> None:
        """Send `welcome`."""
        await self.send(
            Welcome(
                user_id=user,
                device="test",
                session="s1",
                epoch=cursor.rpartition(":")[0],
                cursor=cursor,
                heartbeat_s=heartbeat_s,
                limits=limits or Limits(),
                server=ServerInfo(name="scripted", version="0", site="test"),
            )
        )

    async def caught_up(
        self, cursor: str, *, recovered: bool = True, missing: list[Missing] | None = None
    ) -> None:
        """Send `caught_up`."""
        await self.send(CaughtUp(cursor=cursor, recovered=recovered, missing=missing or []))

    async def send(self, *frames: msgspec.Struct) -> None:
        """Send any frames."""
        for frame in frames:
            await self.socket.send(encode(frame), text=True)

    async def send_raw(self, text: str) -> None:
        """Send text that need not be a frame."""
        await self.socket.send(text)

    async def receive(self, kind: type[T]) -> T:
        """Wait for the next frame of the client, which must be a `kind`; passes over `ignored`."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                frame: Request = decode_request(await self.socket.recv(decode=False))
                if isinstance(frame, kind) or not isinstance(frame, self.ignored):
                    break
        assert isinstance(frame, kind), f"{frame} instead of a {kind.__name__}"
        return frame

    async def ack(self, frame: object, *, seq: int, duplicate: bool = False) -> None:
        """Answer a `chat` or `group_chat` with `ack`."""
        await self.send(
            Ack(
                id=getattr(frame, "id", None),
                client_id=getattr(frame, "client_id", ""),
                message_id=str(1000 + seq),
                chat_id="dm.alice.bob",
                seq=seq,
                timestamp=int(time.time() * 1000),
                duplicate=duplicate,
            )
        )

    async def refuse(
        self,
        frame: object,
        code: str,
        *,
        retry_after_ms: int | None = None,
        seq: int | None = None,
    ) -> None:
        """Answer a request with `error`."""
        await self.send(
            Error(
                code=code,
                message="because",
                id=getattr(frame, "id", None),
                client_id=getattr(frame, "client_id", None),
                retry_after_ms=retry_after_ms,
                seq=seq,
            )
        )

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code."""
        await self.socket.close(code, reason)

    def cut(self) -> None:
        """End the connection without a word, as a killed process does."""
        self.socket.transport.abort()

    async def closed(self) -> int | None:
        """Wait until the client has closed; its close code."""
        async with asyncio.timeout(WITHIN_S):
            await self.socket.wait_closed()
        return self.socket.close_code


class ScriptedServer:
    """Listens on a free loopback port and hands each connection to the test."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self._arrived: asyncio.Queue[Link] = asyncio.Queue(maxsize=100)
        self._server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "ScriptedServer":
        self._server = await serve(
            self._serve, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=1
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        for link in self.links:
            link.cut()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        link = Link(socket)
        self.links.append(link)
        self._arrived.put_nowait(link)
        await socket.wait_closed()

    async def accept(self) -> Link:
        """Wait for the next connection."""
        async with asyncio.timeout(WITHIN_S):
            return await self._arrived.get()

    async def online(self, cursor: str = "e1:0") -> Link:
        """Wait for the next connection and welcome it; if it resumes, it has missed nothing."""
        link = await self.accept()
        await link.welcome(cursor)
        if link.cursor is not None:
            await link.caught_up(cursor)
        return link


@pytest.mark.anyio
async def test_a_wrong_frame_fails_the_test() -> None:
    async with ScriptedServer() as server, connect(server.url, compression=None) as socket:
        link = await server.accept()
        await socket.send('{"type":"pong"}')
        with pytest.raises(AssertionError, match="instead of a Chat"):
            await link.receive(Chat)
