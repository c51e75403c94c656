"""What one client may do: frames in, decisions, frames out.

A session is handed text frames by its socket and events by the hub. It never waits: writes go by
its lane to the committer with a callback, questions to a bounded number of tasks.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from broker.requests import Failure
from broker.snowflake import unix_ms

from . import channels, frames, groups, past, receipts, writes
from .asker import EXPECTED, Asker
from .close_codes import CloseCode
from .rates import MALFORMED_PER_MINUTE, Strikes, TokenBucket
from .socket import ChatSocket, text_frame

if TYPE_CHECKING:
    from .edge import Edge

MAX_QUESTIONS = 16
FRAMES_PER_MESSAGE = 10
"""A client may send this many frames of any kind for each message that it may send."""

_DEVICE = re.compile(r"[A-Za-z0-9_-]{1,64}")

_log = logging.getLogger("hikyaku.session")


class Session(Asker):
    """One connection of one user. Made when a socket was accepted; `user` is set once it is known.

    Until `live`, events that the hub hands over are held back, for the replay goes first.
    """

    __slots__ = (
        "_expiry",
        "_frames",
        "_greeting",
        "_held",
        "_held_bytes",
        "_leaving",
        "_malformed",
        "_questions",
        "_refused",
        "_socket",
        "attached",
        "device",
        "heard_at",
        "id",
        "live",
        "opened",
        "vip",
    )

    def __init__(self, edge: "Edge", socket: ChatSocket):
        limits = edge.config.limits
        now = edge.now()
        super().__init__(edge)
        self._socket = socket
        self._frames = TokenBucket(
            FRAMES_PER_MESSAGE * limits.messages_per_s,
            FRAMES_PER_MESSAGE * limits.messages_burst,
            now,
        )
        self._malformed: Strikes | None = None
        self._refused: Strikes | None = None
        self._questions = 0
        self._held: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._expiry: Any = None
        self._greeting: Callable[[frames.Connect], None] | None = None
        self.id = uuid4().hex[:16]
        self.device = ""
        self.live = False
        self.vip = False
        self.opened: frozenset[str] = frozenset()
        self.attached = False
        self._leaving = ""
        self.heard_at = now

    # --- from the socket ---

    def on_text(self, data: bytes) -> None:
        """Handle one frame; whatever it holds, the connection lives on or is closed by a code."""
        edge = self.edge
        now = edge.now()
        self.heard_at = now
        edge.counters.frames_in += 1
        try:
            request = frames.decode_request(data)
        except frames.BadFrame as bad:
            self._malformed_frame(bad, now)
            return
        if (wait_s := self._frames.take(now)) > 0:
            self.refuse_rate(now, wait_s, request)
            return
        if self._greeting is not None:
            self._greet(request, self._greeting)
            return
        match request:
            case frames.Chat():
                writes.chat(self, request, now)
            case frames.GroupChat():
                writes.group_chat(self, request, now)
            case frames.Pong():
                pass
            case frames.Typing():
                writes.typing(self, request, now)
            case frames.Edit() | frames.Delete() | frames.React():
                writes.change(self, request, now)
            case frames.ReadReceipt():
                self._at_once(receipts.read, request)
            case frames.DeliveryReceipt():
                self._at_once(receipts.delivered, request)
            case frames.Receipts():
                self.question(request, receipts.of_chat(self, request))
            case frames.History():
                self.question(request, past.history(self, request))
            case frames.Search():
                self.question(request, past.search(self, request))
            case frames.Chats():
                self.question(request, past.chats(self, request))
            case frames.Unread():
                self.question(request, past.unread(self, request))
            case frames.Open() | frames.Close():
                self._at_once(channels.follow, request)
            case frames.PresenceSet() if (wait_s := self.user.messages.take(now)) > 0:
                self.refuse_rate(now, wait_s, request)
            case frames.PresenceSubscribe() | frames.PresenceUnsubscribe() | frames.PresenceSet():
                self.question(request, edge.presence.answer(self, request))
            case frames.Refresh():
                self.question(request, self._refresh(request))
            case frames.Connect():
                self.error("invalid", "this connection has a session already", request)
            case frames.GroupInfo() | frames.GroupMembers():
                self.question(request, groups.answer(self, request))
            case _:
                self.lane.put_alone(request, partial(groups.answer, self, request))

    def on_binary(self) -> None:
        """There are no binary frames in the protocol."""
        self._malformed_frame(
            frames.BadFrame("bad_frame", "frames are text, not binary"), self.edge.now()
        )

    def on_control(self) -> None:
        """A ping or pong of the WebSocket itself is a sign of life too."""
        self.heard_at = self.edge.now()

    def on_lost(self) -> None:
        """The socket is gone."""
        self.lost = True
        self._held.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        self.edge.forget(self)

    # --- to the socket ---

    def deliver(self, seq: int, frame: bytes) -> None:
        """Take an event from the hub: send it, or hold it back until the replay is through."""
        if self.live:
            self._socket.push(frame)
            return
        self._held.append((seq, frame))
        self._held_bytes += len(frame)
        if self._held_bytes > self._socket.outbox_bytes:
            self.close(CloseCode.SLOW_CONSUMER, "too much news while resuming")

    def whisper(self, frame: bytes) -> None:
        """Take something that is not stored; dropped while the replay runs."""
        if self.live:
            self._socket.push(frame)

    def tell(self, frame: bytes) -> None:
        """Take something that belongs to no place in the log, replay or not."""
        self._socket.push(frame)

    def ping(self, frame: bytes) -> None:
        """Ask for a sign of life."""
        self._socket.push(frame)

    def push(self, frame: Any) -> None:
        """Send one frame struct."""
        self._socket.push(text_frame(frames.encode(frame)))

    @property
    def closing(self) -> bool:
        """Whether the connection is about to end."""
        return self._socket.closing

    @property
    def unsure_since(self) -> float | None:
        """From when on the client may have got nothing; None if it took part in the end.

        A slow consumer may still be heard while nothing reaches it.
        """
        code = self._socket.closed_with
        if code == CloseCode.SLOW_CONSUMER:
            return self.edge.now() - self.edge.config.pong_timeout_s
        return self.heard_at if code == CloseCode.NO_PONG or not self._socket.parted else None

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection; idempotent."""
        if not self._socket.closing:
            self.edge.counters.closes[code.name.lower()] += 1
        self._socket.close(code, reason)

    def leave(self, reason: str) -> None:
        """Read no more, and close with 4200 once the writes on their way are answered."""
        if self.lane.writing:
            self._leaving = reason
            self._socket.pause()
        else:
            self.close(CloseCode.DRAINING, reason)

    def written(self) -> None:
        """A write was answered."""
        super().written()
        if self._leaving and not self.lane.writing:
            self.close(CloseCode.DRAINING, self._leaving)

    # --- beginning ---

    def await_greeting(self, then: Callable[[frames.Connect], None]) -> None:
        """Wait for the `connect` frame of a client that gave no token with the upgrade."""
        self._greeting = then
        wait_s = self.edge.config.first_frame_s
        self._expiry = self.edge.later(
            wait_s, partial(self.close, CloseCode.UNAUTHORIZED, "no token came in time")
        )

    def _greet(self, request: frames.Request, then: Callable[[frames.Connect], None]) -> None:
        if not isinstance(request, frames.Connect):
            self.error("unauthorized", "the first frame must be `connect`", request)
            self.close(CloseCode.UNAUTHORIZED, "the first frame must be `connect`")
            return
        self._greeting = None
        self._expiry.cancel()
        then(request)

    def expire_at(self, unix_s: float) -> None:
        """Close with 4002 at this time, unless the token is refreshed before."""
        if self._expiry is not None:
            self._expiry.cancel()
        wait_s = unix_s - unix_ms() / 1000
        self._expiry = self.edge.later(
            max(0.0, wait_s), partial(self.close, CloseCode.TOKEN_EXPIRED, "the token expired")
        )

    def release(self, after: int) -> None:
        """The replay is through up to `after`: send what was held back above it, then live."""
        for seq, frame in self._held:
            if seq > after:
                self._socket.push(frame)
        self._held = []
        self._held_bytes = 0
        self.live = True

    # --- refusals ---

    def _malformed_frame(self, bad: frames.BadFrame, now: float) -> None:
        self.error(bad.code, bad.message, bad)
        if self._malformed is None:
            self._malformed = Strikes(MALFORMED_PER_MINUTE)
        if self._malformed.strike(now):
            self.close(CloseCode.MALFORMED, "too many malformed frames")

    def refuse_rate(self, now: float, wait_s: float, request: Any) -> None:
        """Answer what came too fast; who keeps on is closed."""
        retry_after_ms = int(wait_s * 1000) + 1
        self.error("rate_limited", "too fast", request, retry_after_ms=retry_after_ms)
        if self._refused is None:
            self._refused = Strikes(FRAMES_PER_MESSAGE * self.edge.config.limits.messages_burst)
        if self._refused.strike(now):
            reason = msgspec.json.encode({"retry_after_ms": max(retry_after_ms, 5000)})
            self.close(CloseCode.RATE_LIMITED, reason.decode())

    # --- questions ---

    def question(self, request: Any, answer: Awaitable[None]) -> None:
        """Run `answer` in a task, at most `MAX_QUESTIONS` at once."""
        if self._questions >= MAX_QUESTIONS:
            getattr(answer, "close", lambda: None)()
            self.error("overloaded", "too many questions at once", request, retry_after_ms=500)
            return
        self._questions += 1
        self.edge.spawn(self._answered(request, answer))

    async def _answered(self, request: Any, answer: Awaitable[None]) -> None:
        try:
            await answer
        except EXPECTED as error:
            self.failed(error, request)
        finally:
            self._questions -= 1

    def _at_once(self, action: Callable[["Session", Any], None], request: Any) -> None:
        try:
            action(self, request)
        except EXPECTED as error:
            self.failed(error, request)

    async def _refresh(self, request: frames.Refresh) -> None:
        claims = await self.edge.tokens.verify(request.token)
        if claims.user_id != self.user.user_id:
            raise Failure("forbidden", "the token is another user's")
        self.expire_at(claims.expires_at)
        self.push(frames.Result(id=request.id, expires_at=int(claims.expires_at * 1000)))


def device_name(device: str | None) -> str | None:
    """The device as given, a fresh one if none was, or None if it is not valid."""
    if device is None or device == "":
        return uuid4().hex[:8]
    return device if _DEVICE.fullmatch(device) else None
