"""A WebSocket chat client as light as Python allows: one protocol object, no task, no queue.

`Client.text` sees each text frame as a range of the bytes received. A scenario overrides it, takes
what it knows by `bytes.find`, and passes the rest to `Client.control`, which decodes. What a
callback sends is joined and written once, when the bytes received are used up.
"""

import asyncio
import functools
import itertools
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

import jwt
import msgspec

from . import wire

CONNECT_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 20.0
TOKEN_LIFE_S = 6 * 3600
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_PONG = wire.frame(b'{"type":"pong"}')
_TEXT = wire.TEXT
T = TypeVar("T")


class Closed(Exception):
    """The connection ended: `code` as the server gave it, 1006 when it gave none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Refused(Exception):
    """A request was answered with an `error` frame."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer.get('code')}: {answer.get('message')}")
        self.answer = answer


@functools.cache
def token(secret: str, user: str) -> str:
    """A token for `user`, signed with the stack's shared secret."""
    claims = {"sub": user, "exp": int(time.time()) + TOKEN_LIFE_S}
    return jwt.encode(claims, secret, algorithm="HS256")


class Client(asyncio.Protocol):
    """One connection of one user. Make it, `await open(…)`, send; `closed` is done at the end."""

    def __init__(self, user: str, *, device: str = "bench", cursor: str | None = None) -> None:
        self.user = user
        self.welcome: dict[str, Any] = {}
        self.errors: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Closed] = loop.create_future()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._device = device
        self._cursor = cursor
        self._accept = b""
        self._upgraded = False
        self._rest = b""
        self._out: list[bytes] = []
        self._reading = False
        self._ended: Closed | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self, address: str, secret: str) -> None:
        """Connect to `host:port`, wait for `welcome`. Raises `Closed`, `OSError`, `WireError`."""
        request, self._accept = wire.opening(
            address, token(secret, self.user), device=self._device, cursor=self._cursor
        )
        host, port = address.rsplit(":", 1)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, _ = await loop.create_connection(lambda: self, host, int(port))
            transport.write(request)
            try:
                await self._opened
            except BaseException:
                transport.abort()
                raise

    def send(self, frame: bytes) -> None:
        """Send a prepared frame: at once, or with the others of this turn while reading."""
        if self._reading:
            self._out.append(frame)
        elif self._transport is not None:
            self._transport.write(frame)

    async def request(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Send a frame that is answered by its `id` and return the answer. Raises `Refused`."""
        name = str(len(self._answers))
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        self.send(wire.frame(_encode({**fields, "id": name})))
        return await self.until(answer, timeout_s=REQUEST_TIMEOUT_S)

    async def until(self, future: asyncio.Future[T], *, timeout_s: float) -> T:
        """The future's result. Raises `Closed` when the connection ends first."""
        either: set[asyncio.Future[Any]] = {future, self.closed}
        async with asyncio.timeout(timeout_s):
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise self.closed.result()
        return future.result()

    def close(self) -> None:
        """Leave with close code 1000; harmless when already closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.frame((1000).to_bytes(2, "big"), wire.CLOSE))
            self._transport.close()

    # --- what a scenario overrides or calls -------------------------------------------------

    def text(self, data: bytes, start: int, end: int) -> None:
        """One text frame: `data[start:end]`."""
        self.control(data[start:end])

    def control(self, payload: bytes) -> None:
        """Decode a frame that is not hot: `welcome`, `ping`, answers, errors."""
        fields = _decode(payload)
        match fields.get("type"):
            case "ping":
                self.send(_PONG)
            case "welcome":
                self.welcome = fields
                if not self._opened.done():
                    self._opened.set_result(None)
            case "result" | "ack" if fields.get("id") in self._answers:
                self._settle(fields["id"], fields)
            case "error" if fields.get("id") in self._answers:
                self._settle(fields["id"], Refused(fields))
            case "error":
                self.errors.append(fields)
                self.refused(fields)
            case _:
                self.other(fields)

    def refused(self, fields: dict[str, Any]) -> None:
        """An `error` that answers no `request`."""

    def other(self, fields: dict[str, Any]) -> None:
        """Any other decoded frame."""

    def _settle(self, name: str, outcome: dict[str, Any] | Refused) -> None:
        answer = self._answers[name]
        if answer.done():
            return
        if isinstance(outcome, Refused):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle everything that waits; an exchange of close frames has named the reason."""
        ended = self._ended or Closed(1006, str(exc or "connection lost"))
        if not self._opened.done():
            self._opened.set_exception(ended)
        if not self.closed.done():
            self.closed.set_result(ended)

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames; see the module's first lines."""
        if self._rest:
            data = self._rest + data
        self._reading = True
        try:
            position = self._frames(data, 0 if self._upgraded else self._upgrade(data))
        except (wire.WireError, msgspec.MsgspecError) as error:
            self._fail(error)
            return
        finally:
            self._reading = False
        self._rest = data[position:]
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _frames(self, data: bytes, position: int) -> int:
        """Handle the whole frames from `position` on; return where the first partial one begins."""
        total = len(data) if self._upgraded else 0
        while position + 2 <= total:
            size = data[position + 1]
            start = position + 2
            if size == 126:
                if position + 4 > total:
                    break
                size = data[start] << 8 | data[start + 1]
                start += 2
            elif size == 127:
                size = int.from_bytes(data[start : start + 8], "big")
                start += 8
            end = start + size
            if end > total:
                break
            if data[position] == _TEXT:
                self.text(data, start, end)
            else:
                self._control_frame(data[position], data[start:end])
            position = end
        return position

    def _upgrade(self, data: bytes) -> int:
        head, found, _ = data.partition(b"\r\n\r\n")
        if not found:
            return 0
        wire.check_upgrade(head, self._accept)
        self._upgraded = True
        return len(head) + 4

    def _control_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.PING:
            self.send(wire.frame(payload, wire.PONG))
        elif opcode == wire.CLOSE:
            self._ended = Closed(*wire.close_reason(payload))
            if self._transport is not None:
                self._transport.write(wire.frame(payload[:2], wire.CLOSE))
                self._transport.close()
        elif opcode != wire.PONG:
            raise wire.WireError(f"unexpected frame with first byte {opcode:#x}")

    def _fail(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        self._ended = Closed(1006, f"{type(error).__name__}: {error}")
        if self._transport is not None:
            self._transport.abort()


async def in_batches(calls: Iterable[Coroutine[Any, Any, Any]], *, at_once: int = 50) -> None:
    """Run the coroutines, `at_once` at a time; the first failure ends it, as an exception group."""
    waiting = iter(calls)
    while batch := list(itertools.islice(waiting, at_once)):
        async with asyncio.TaskGroup() as group:
            for call in batch:
                group.create_task(call)
