"""One connection from its welcome to its end: reads frames, and lets the sender send.

When the application is behind by a full inbox, nothing is read any more, so that the server sees a
slow client and closes with 4208 once its own buffer is full; until then a `pong` now and then says
that we live. If an answer to a request is awaited meanwhile (an application that sends from within
its event loop would wait for ever), events are read past and dropped instead, to find the answer.
Once the application has caught up half-way, the connection is made anew from the last event kept.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from edge.frames import (
    Ack,
    Activity,
    CaughtUp,
    DeliveryReceiptEvent,
    Error,
    Event,
    Ping,
    Pong,
    PresenceEvent,
    Provisional,
    ReadReceiptEvent,
    Result,
    ServerFrame,
    TypingEvent,
    Welcome,
    decode_server_frame,
    encode,
)

from .inbox import Inbox
from .policy import LOST, Ended
from .sender import Sender
from .tracker import Tracker

log = logging.getLogger("hikyaku.client")

WELCOME_WITHIN_S = 10.0
TICK_S = 5.0
ANSWER_GRACE_S = 1.0
"""An answer outstanding for longer than this is looked for behind a full inbox."""

SILENCE_S = 10.0
"""Silence while an answer is awaited, after which the connection is tested by a ping."""

PROBE_S = 10.0
PROTOCOL_ERROR = 1002
PONG = encode(Pong())


class Resync(Exception):
    """The application has caught up; what was dropped is to be fetched again."""


class Silent(Exception):
    """Nothing comes from the other side any more, not even the answer to a ping."""


class Garbled(Exception):
    """The server says something that makes no sense."""


class Connection:
    """One open WebSocket with everything it feeds. `run` may be called once."""

    def __init__(
        self,
        socket: ClientConnection,
        *,
        sender: Sender,
        inbox: Inbox,
        tracker: Tracker,
        on_welcome: Callable[[Welcome], None],
    ) -> None:
        self.welcomed_at: float | None = None
        self._socket = socket
        self._sender = sender
        self._inbox = inbox
        self._tracker = tracker
        self._on_welcome = on_welcome
        self._heartbeat_s = 30.0
        self._heard = self._pong_at = time.monotonic()
        self._probe: tuple[asyncio.Future[float], float] | None = None
        self._shedding = False

    def lived_s(self) -> float:
        """Say how long ago the server welcomed us; 0 if it did not."""
        return 0.0 if self.welcomed_at is None else time.monotonic() - self.welcomed_at

    async def run(self) -> Ended | None:
        """Serve the connection; how it ended, or None if it is to be made anew at once."""
        ended: Ended | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._begin()
                tasks.create_task(self._sender.pump(self._socket))
                while True:
                    await self._take(await self._receive())
        except* ConnectionClosed:
            code = self._socket.close_code
            ended = Ended(LOST if code is None else code, self._socket.close_reason or "")
        except* Silent:
            self._socket.transport.abort()
            ended = Ended(LOST, "the server does not answer")
        except* Garbled as group:
            ended = Ended(PROTOCOL_ERROR, str(group.exceptions[0]))
        except* Resync:
            ended = None
        finally:
            self._sender.disconnected()
        _heed_cancellation()
        return ended

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(WELCOME_WITHIN_S):
                while not isinstance(frame := await self._next_frame(), Welcome):
                    if isinstance(frame, Ping | Error):
                        await self._take(frame)
        except TimeoutError:
            raise Silent from None
        with _cursor_from_server():
            self._tracker.welcome(frame)
        self._inbox.begin_at(self._tracker.position)
        self._sender.outbox.limits = frame.limits
        self._heartbeat_s = max(float(frame.heartbeat_s), 1.0)
        self.welcomed_at = time.monotonic()
        self._on_welcome(frame)

    async def _next_frame(self) -> ServerFrame | None:
        data = await self._socket.recv(decode=False)
        self._heard = time.monotonic()
        self._probe = None
        return _decode(data)

    async def _receive(self) -> ServerFrame | None:
        while True:
            self._check_shedding()
            try:
                async with asyncio.timeout(ANSWER_GRACE_S if self._shedding else TICK_S):
                    return await self._next_frame()
            except TimeoutError:
                await self._check_silence(time.monotonic())

    def _check_shedding(self) -> None:
        if self._shedding and len(self._inbox) <= self._inbox.size // 2:
            raise Resync

    async def _check_silence(self, now: float) -> None:
        if self._probe is not None:
            pong, deadline = self._probe
            if pong.done():
                self._heard, self._probe = now, None
            elif now >= deadline:
                raise Silent
            return
        asked = self._sender.outbox.unanswered_since()
        waiting = asked is not None and now - asked >= SILENCE_S
        if now - self._heard >= (SILENCE_S if waiting else self._heartbeat_s * 1.5):
            self._probe = (await self._patiently_ping(), now + PROBE_S)

    async def _patiently_ping(self) -> asyncio.Future[float]:
        try:
            async with asyncio.timeout(PROBE_S):
                return asyncio.ensure_future(await self._socket.ping())
        except TimeoutError:
            raise Silent from None

    async def _take(self, frame: ServerFrame | None) -> None:
        match frame:
            case Ping():
                await self._pong()
            case Ack() | Result():
                self._sender.answered(frame)
            case Error():
                self._sender.refused(frame)
            case Event() | ReadReceiptEvent(seq=int()):
                if await self._room() and self._tracker.admit(frame):
                    self._inbox.put(frame, self._tracker.position)
            case (
                ReadReceiptEvent()
                | DeliveryReceiptEvent()
                | PresenceEvent()
                | Activity()
                | Provisional()
            ):
                if await self._room():
                    self._inbox.put(frame, None)
            case CaughtUp():
                if await self._room():
                    with _cursor_from_server():
                        frame = self._tracker.caught_up(frame)
                    self._inbox.put(frame, self._tracker.position)
            case TypingEvent():
                if not self._shedding and not self._inbox.full:
                    self._inbox.put(frame, None)

    async def _room(self) -> bool:
        """Wait for a place in the inbox. False: read on, and drop what would have gone there."""
        while self._inbox.full and not self._shedding:
            now = time.monotonic()
            asked = self._sender.outbox.unanswered_since()
            if asked is not None and now - asked >= ANSWER_GRACE_S:
                self._shedding = True
                break
            if now - self._pong_at >= self._heartbeat_s:
                await self._pong()
            await self._pause()
            self._heard = time.monotonic()
        return not self._shedding

    async def _pong(self) -> None:
        self._pong_at = time.monotonic()
        await self._socket.send(PONG, text=True)

    async def _pause(self) -> None:
        self._inbox.room.clear()
        try:
            async with asyncio.timeout(ANSWER_GRACE_S):
                await self._inbox.room.wait()
        except TimeoutError:
            return


def _heed_cancellation() -> None:
    """Raise the cancellation that a task group forgets when it comes together with an error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def _cursor_from_server() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Garbled(str(error)) from None


def _decode(data: bytes) -> ServerFrame | None:
    try:
        frame: ServerFrame = decode_server_frame(data)
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.type`"):
            log.debug("skipping a frame of a type unknown here: %.200r", data)
        else:
            log.warning("skipping a frame with wrong fields (%s): %.200r", error, data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Garbled(f"the server sent what is not JSON: {error}") from None
    else:
        return frame
    return None
