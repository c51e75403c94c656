"""One client's WebSocket: bytes to text frames, frames to bytes, and a bounded outbox.

A subclass of uvicorn's sans-I/O WebSocket protocol, given to uvicorn by `ws=`. It offers itself to
the application in the scope's extensions; after the handshake the application takes it over, and
from then on text frames go straight to a synchronous handler and prepared frames straight to the
transport: no queue, no task and no pause of reading per message. The work per turn of the loop is
bounded instead: at most `SLICE_BYTES` of input, and one write for all that a turn pushed.

Relies on private parts of uvicorn 0.54 and websockets 17.4, which are pinned;
`tests/integration/test_socket.py` fails when they change.
"""

import asyncio
import logging
import struct
from typing import Any, Protocol

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as Rfc6455
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from .close_codes import CloseCode

EXTENSION = "hikyaku.socket"
SLICE_BYTES = 16 * 1024
LINGER_S = 5.0
REASON_BYTES = 120

_log = logging.getLogger("hikyaku.socket")
_PARSER_LOG = logging.getLogger("hikyaku.websockets")
_PARSER_LOG.setLevel(logging.WARNING)


def text_frame(payload: bytes) -> bytes:
    """A complete, unmasked WebSocket text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return b"\x81\x7e" + struct.pack("!H", size) + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


class Receiver(Protocol):
    """What a socket tells whoever took it over."""

    def on_text(self, data: bytes) -> None:
        """A complete text frame came in; it may not be valid UTF-8."""

    def on_binary(self) -> None:
        """A binary frame came in; the protocol has none."""

    def on_control(self) -> None:
        """A ping or pong of the WebSocket itself came in."""

    def on_lost(self) -> None:
        """The connection is gone; called once, last."""


class _Closed:
    """Stands in for the event queue of a socket that was taken over; nobody reads it."""

    def put_nowait(self, _: object) -> None:
        """Drop the event."""


class _Server(ServerProtocol):
    """Fails with the codes of the chat protocol where it has its own."""

    def fail(self, code: int, reason: str = "") -> None:
        if code == Rfc6455.MESSAGE_TOO_BIG:
            code, reason = CloseCode.FRAME_TOO_LARGE, "the frame is too large"
        super().fail(code, reason)


_CLOSED: Any = _Closed()
_dirty: list["ChatSocket"] = []


def _flush_dirty() -> None:
    sockets = _dirty.copy()
    _dirty.clear()
    for socket in sockets:
        socket.flush()


class ChatSocket(WebSocketsSansIOProtocol):
    """A WebSocket that can be taken over by a `Receiver`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.conn = _Server(extensions=[], max_size=self.config.ws_max_size, logger=_PARSER_LOG)
        self._receiver: Receiver | None = None
        self._out: list[bytes] = []
        self._early: list[bytes | None] = []
        self._late_input = b""
        self.outbox_bytes = 0
        self.closing = False
        self.closed_with = 0
        self.parted = False

    # --- handshake ---

    async def run_asgi(self) -> None:
        """Run the application until it returns; a socket taken over lives on without it."""
        extensions: Any = self.scope["extensions"]
        extensions[EXTENSION] = self
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            _log.exception("the application failed during a handshake")
            self.send_500_response()
        if self._receiver is None and self.close_timer is None:
            self.transport.close()

    def take_over(self, receiver: Receiver, *, outbox_bytes: int) -> None:
        """From now on frames go to `receiver`; over `outbox_bytes` unsent it is a slow consumer.

        Reading is paused until `resume`; what was received before is handed over by it.
        """
        self._receiver = receiver
        self.outbox_bytes = outbox_bytes
        self.queue = _CLOSED
        del self.scope, self.request, self.response
        self.pause()

    def pause(self) -> None:
        """Stop reading until `resume`; what is in the loop's hands waits with it."""
        self.transport.pause_reading()
        self.read_paused = True

    def resume(self) -> None:
        """Read on."""
        self.read_paused = False
        while self._early and not self.read_paused and not self.closing:
            text = self._early.pop(0)
            if self._receiver is None:
                return
            if text is None:
                self._receiver.on_binary()
            else:
                self._receiver.on_text(text)
        if not self.transport.is_closing():
            self._continue()

    # --- input ---

    def data_received(self, data: bytes) -> None:
        """Take bytes off the wire, at most a slice for each turn of the loop."""
        if self._receiver is None:
            super().data_received(data)
            return
        if self._late_input or len(data) > SLICE_BYTES or self.read_paused:
            self._late_input += data
            if not self.read_paused:
                self.transport.pause_reading()
                self._continue()
            return
        super().data_received(data)

    def _continue(self) -> None:
        if self.read_paused or self.disconnected:
            return
        data, self._late_input = self._late_input[:SLICE_BYTES], self._late_input[SLICE_BYTES:]
        if data:
            super().data_received(data)
        if self._late_input:
            self.loop.call_soon(self._continue)
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        """Hand a complete message to the receiver, or keep it until there is one that reads."""
        frames, self.frames = self.frames, []
        if self.close_sent:
            return
        text: bytes | None = None
        if self.curr_msg_data_type == "text":
            text = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._receiver is None or self.read_paused:
            # It came before the handshake was answered, or behind a frame that paused.
            self._early.append(text)
            if not self.read_paused:
                self.pause()
        elif text is not None:
            self._receiver.on_text(text)
        else:
            self._receiver.on_binary()

    def handle_ping(self) -> None:
        """Answer a ping of the WebSocket itself; whoever never reads the answers is cut off."""
        if self.closing:
            self.conn.data_to_send()
            return
        super().handle_ping()
        if self._receiver is not None:
            self._receiver.on_control()
            self._check_outbox()

    def handle_pong(self, event: Frame) -> None:
        """Take a pong of the WebSocket itself."""
        super().handle_pong(event)
        if self._receiver is not None:
            self._receiver.on_control()

    def handle_cont(self, event: Frame) -> None:
        """Take a part of a message; of empty ones any number would fit into the limit of size."""
        if event.data or event.fin:
            super().handle_cont(event)

    def handle_close(self, event: Frame) -> None:
        """Answer a client's close; what it does not read then is not waited for."""
        if self._receiver is None:
            super().handle_close(event)
            return
        self.parted = True
        if not self.closing:
            self._start_closing(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def handle_parser_exception(self) -> None:
        """Say why and that no more will come, but keep discarding input, so that it arrives."""
        if self._receiver is None:
            # These bytes came before the answer to the handshake: a close frame cannot be sent.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.transport.close()
            return
        if not self.closing:
            self._start_closing(b"".join(self.conn.data_to_send()))
            if self.transport.can_write_eof():
                self.transport.write_eof()

    # --- output ---

    def push(self, frame: bytes) -> None:
        """Send a prepared frame with this turn's other ones."""
        if not self._out:
            if not _dirty:
                self.loop.call_soon(_flush_dirty)
            _dirty.append(self)
        self._out.append(frame)

    def flush(self) -> None:
        """Write what was pushed; over the bound, end the connection as a slow consumer."""
        out, self._out = self._out, []
        if not out or self.disconnected or self.closing or self.transport.is_closing():
            return
        self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._check_outbox()

    def _check_outbox(self) -> None:
        if self.transport.get_write_buffer_size() > self.outbox_bytes:
            self.close(CloseCode.SLOW_CONSUMER, "too much unsent; reconnect with the cursor")

    async def drained(self, timeout_s: float) -> bool:
        """Flush, then wait until most has left; False if it has not after `timeout_s`."""
        self.flush()
        if self.closing:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                await self.writable.wait()
        except TimeoutError:
            return False
        return not (self.disconnected or self.closing)

    def close(self, code: int, reason: str = "") -> None:
        """Send what was pushed and a close frame; idempotent. Aborts after `LINGER_S`."""
        if self.closing or self.disconnected:
            return
        self.flush()
        if self.closing:
            return
        self.closed_with = code
        if self.conn.state is State.OPEN:  # else the client's close was parsed just now
            self.conn.send_close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))
        self._start_closing(b"".join(self.conn.data_to_send()))

    def _start_closing(self, data: bytes) -> None:
        self.closing = True
        self.close_sent = True
        if not self.transport.is_closing():
            self.transport.write(data)
            if self.read_paused:
                self.read_paused = False
                self._continue()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server stops: what is left when the drain is through."""
        if self._receiver is None:
            super().shutdown()
            return
        self.close(CloseCode.SERVICE_RESTART, "this server stops")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, once."""
        super().connection_lost(exc)
        self._out.clear()
        self._early.clear()
        self._late_input = b""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_lost()
