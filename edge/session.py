"""What one client may do: frames in, decisions, frames out.

A session is handed text frames by its socket and events by the hub. It never waits: writes go to
the committer with a callback, questions to a bounded number of tasks.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from broker import directory, events, subjects
from broker.committer import Committed, Outcome
from broker.errors import BrokerError, Conflict, InvalidName, Overloaded, Unavailable
from broker.requests import Failure
from broker.snowflake import unix_ms

from . import frames
from .close_codes import CloseCode
from .rates import MALFORMED_PER_MINUTE, Strikes, TokenBucket
from .socket import ChatSocket, text_frame
from .tokens import KeysUnavailable, Unauthorized

if TYPE_CHECKING:
    from .edge import Edge
    from .hub import User

MAX_QUESTIONS = 16
FRAMES_PER_MESSAGE = 10
"""A client may send this many frames of any kind for each message that it may send."""

_DEVICE = re.compile(r"[A-Za-z0-9_-]{1,64}")

_log = logging.getLogger("hikyaku.session")


class Session:
    """One connection of one user. Made when a socket was accepted; `user` is set once it is known.

    Until `live`, events that the hub hands over are held back, for the replay goes first.
    """

    __slots__ = (
        "_edge",
        "_expiry",
        "_frames",
        "_greeting",
        "_held",
        "_held_bytes",
        "_malformed",
        "_questions",
        "_refused",
        "_socket",
        "attached",
        "device",
        "heard_at",
        "id",
        "live",
        "lost",
        "user",
    )

    def __init__(self, edge: "Edge", socket: ChatSocket):
        limits = edge.config.limits
        now = edge.now()
        self._edge = edge
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
        self.user: User  # set by `edge.opening`
        self.id = uuid4().hex[:16]
        self.device = ""
        self.live = False
        self.attached = False
        self.lost = False
        self.heard_at = now

    # --- from the socket ---

    def on_text(self, data: bytes) -> None:
        """Handle one frame; whatever it holds, the connection lives on or is closed by a code."""
        edge = self._edge
        now = edge.now()
        self.heard_at = now
        edge.counters.frames_in += 1
        if (wait_s := self._frames.take(now)) > 0:
            self._refuse_rate(now, wait_s, None)
            return
        try:
            request = frames.decode_request(data)
        except frames.BadFrame as bad:
            self._malformed_frame(bad, now)
            return
        if self._greeting is not None:
            self._greet(request, self._greeting)
            return
        match request:
            case frames.Chat():
                self._chat(request, now)
            case frames.GroupChat():
                self._group_chat(request, now)
            case frames.Pong():
                pass
            case frames.Typing():
                self._typing(request, now)
            case frames.Refresh():
                self._question(request, self._refresh(request))
            case frames.Connect():
                self.error("invalid", "this connection has a session already", request)
            case _:
                self._question(request, self._directory(request))

    def on_binary(self) -> None:
        """There are no binary frames in the protocol."""
        self._malformed_frame(
            frames.BadFrame("bad_frame", "frames are text, not binary"), self._edge.now()
        )

    def on_control(self) -> None:
        """A ping or pong of the WebSocket itself is a sign of life too."""
        self.heard_at = self._edge.now()

    def on_lost(self) -> None:
        """The socket is gone."""
        self.lost = True
        self._held.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        self._edge.forget(self)

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

    def ping(self, frame: bytes) -> None:
        """Ask for a sign of life."""
        self._socket.push(frame)

    def push(self, frame: Any) -> None:
        """Send one frame struct."""
        self._socket.push(text_frame(frames.encode(frame)))

    def error(self, code: str, message: str, request: Any = None, **fields: Any) -> None:
        """Answer a request with an error."""
        self._edge.counters.errors[code] += 1
        self.push(
            frames.Error(
                code=code,
                message=message,
                retryable=code in frames.RETRYABLE,
                id=getattr(request, "id", None),
                client_id=getattr(request, "client_id", None),
                **fields,
            )
        )

    @property
    def closing(self) -> bool:
        """Whether the client was told to go, or is gone."""
        return self.lost or self._socket.closing

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection; idempotent."""
        if not self._socket.closing:
            self._edge.counters.closes[code.name.lower()] += 1
        self._socket.close(code, reason)

    # --- beginning ---

    def await_greeting(self, then: Callable[[frames.Connect], None]) -> None:
        """Wait for the `connect` frame of a client that gave no token with the upgrade."""
        self._greeting = then
        wait_s = self._edge.config.first_frame_s
        self._expiry = self._edge.later(
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
        self._expiry = self._edge.later(
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

    def _refuse_rate(self, now: float, wait_s: float, request: Any) -> None:
        retry_after_ms = int(wait_s * 1000) + 1
        self.error("rate_limited", "too fast", request, retry_after_ms=retry_after_ms)
        if self._refused is None:
            self._refused = Strikes(FRAMES_PER_MESSAGE * self._edge.config.limits.messages_burst)
        if self._refused.strike(now):
            reason = msgspec.json.encode({"retry_after_ms": max(retry_after_ms, 5000)})
            self.close(CloseCode.RATE_LIMITED, reason.decode())

    # --- messages ---

    def _chat(self, request: frames.Chat, now: float) -> None:
        try:
            chat_id = subjects.dm(self.user.user_id, request.to)
        except InvalidName as error:
            self.error("invalid", str(error), request)
            return
        self._send(request, chat_id, now)

    def _group_chat(self, request: frames.GroupChat, now: float) -> None:
        chat_id = self._own_group(request.group_id, request)
        if chat_id is not None:
            self._send(request, chat_id, now)

    def _own_group(self, group_id: str, request: Any) -> str | None:
        """The subject of a group that the user is in; else answers with an error."""
        try:
            chat_id = subjects.group(group_id)
        except InvalidName as error:
            self.error("invalid", str(error), request)
            return None
        if chat_id not in (self.user.groups or ()):
            self.error("not_member", f"you are not in the group {group_id!r}", request)
            return None
        return chat_id

    def _send(self, request: frames.Chat | frames.GroupChat, chat_id: str, now: float) -> None:
        edge = self._edge
        limit = edge.config.limits.content_bytes
        if len(request.content) * 4 > limit and len(request.content.encode()) > limit:
            self.error("too_large", f"content: at most {limit} bytes of UTF-8", request)
            return
        if not request.content and not request.attachments:
            self.error("invalid", "content: must not be empty without attachments", request)
            return
        if (wait_s := self.user.messages.take(now)) > 0:
            self._refuse_rate(now, wait_s, request)
            return
        timestamp = unix_ms()
        try:
            message_id = str(edge.ids.next())
            edge.committer.submit(
                chat_id,
                _stored(request, chat_id, message_id, self.user.user_id, timestamp),
                msg_id=subjects.message_id_header(self.user.user_id, request.client_id),
                done=partial(self._acked, request, message_id, chat_id, timestamp),
                expect_seq=request.expect_seq,
            )
        except BrokerError as error:
            self._broker_error(error, request)

    def _acked(
        self,
        request: frames.Chat | frames.GroupChat,
        message_id: str,
        chat_id: str,
        timestamp: int,
        outcome: Outcome,
    ) -> None:
        if self.lost:
            return
        if not isinstance(outcome, Committed):
            self._broker_error(outcome, request)
            return
        if outcome.first is not None:
            first = events.decode_identity(outcome.first)
            message_id, chat_id, timestamp = first.id, first.chat_id, first.timestamp
        self._edge.counters.acks += 1
        self.push(
            frames.Ack(
                id=request.id,
                client_id=request.client_id,
                message_id=message_id,
                chat_id=chat_id,
                seq=outcome.seq,
                timestamp=timestamp,
                duplicate=outcome.first is not None,
            )
        )

    def _broker_error(self, error: BrokerError, request: Any) -> None:
        match error:
            case Conflict():
                self.error("conflict", str(error), request, seq=error.seq)
            case Overloaded():
                self.error("overloaded", str(error), request, retry_after_ms=1000)
            case Unavailable():
                _log.info("session %s: %s", self.id, error)
                self.error(
                    "unavailable", "not stored now; send it again", request, retry_after_ms=1000
                )
            case InvalidName():
                self.error("invalid", str(error), request)
            case _:
                _log.error("session %s: %s", self.id, error)
                self.error("internal", "the server failed; it was logged", request)

    # --- typing ---

    def _typing(self, request: frames.Typing, now: float) -> None:
        if (request.to is None) == (request.group_id is None):
            self.error("invalid", "exactly one of `to` and `group_id` must be given", request)
            return
        if request.group_id is not None:
            chat_id = self._own_group(request.group_id, request)
            if chat_id is None:
                return
        else:
            try:
                chat_id = subjects.dm(self.user.user_id, str(request.to))
            except InvalidName as error:
                self.error("invalid", str(error), request)
                return
        if self.user.may_type(chat_id, now, self._edge.config.limits.typing_interval_s):
            event = frames.TypingEvent(chat_id=chat_id, from_=self.user.user_id)
            self._edge.whisper(chat_id, self.user.token, frames.encode(event))

    # --- questions ---

    def _question(self, request: Any, answer: Awaitable[None]) -> None:
        """Run `answer` in a task, at most `MAX_QUESTIONS` at once."""
        if self._questions >= MAX_QUESTIONS:
            getattr(answer, "close", lambda: None)()
            self.error("overloaded", "too many questions at once", request, retry_after_ms=500)
            return
        self._questions += 1
        self._edge.spawn(self._answered(request, answer))

    async def _answered(self, request: Any, answer: Awaitable[None]) -> None:
        try:
            await answer
        except Failure as failure:
            self.error(failure.code, failure.message, request)
        except BrokerError as error:
            self._broker_error(error, request)
        except TimeoutError:
            self.error("timeout", "no answer in time; ask again", request)
        except Unauthorized as error:
            self.error("unauthorized", str(error), request)
        except KeysUnavailable as error:
            self.error("unavailable", str(error), request, retry_after_ms=10_000)
        finally:
            self._questions -= 1

    async def _refresh(self, request: frames.Refresh) -> None:
        claims = await self._edge.tokens.verify(request.token)
        if claims.user_id != self.user.user_id:
            raise Failure("forbidden", "the token is another user's")
        self.expire_at(claims.expires_at)
        self.push(frames.Result(id=request.id, expires_at=int(claims.expires_at * 1000)))

    async def _directory(self, request: Any) -> None:
        by = self.user.user_id
        verb, question = _directory_question(by, request)
        if isinstance(question, directory.Members):
            page = await self._edge.ask_directory(verb, question, directory.MemberPage)
            members = msgspec.to_builtins(page.members)
            self.push(frames.Result(id=request.id, members=members, more=page.more))
            return
        changed = await self._edge.ask_directory(verb, question, directory.Changed)
        await self._edge.reached(changed.seq)
        self.push(frames.Result(id=request.id, group=msgspec.to_builtins(changed.group)))


def _stored(
    request: frames.Chat | frames.GroupChat,
    chat_id: str,
    message_id: str,
    sender: str,
    timestamp: int,
) -> bytes:
    common: dict[str, Any] = {
        "id": message_id,
        "chat_id": chat_id,
        "from_": sender,
        "content": request.content,
        "content_type": request.content_type,
        "timestamp": timestamp,
        "client_id": request.client_id,
        "reply_to": request.reply_to,
        "thread": request.thread,
        "attachments": request.attachments,
        "mentions": request.mentions,
    }
    if isinstance(request, frames.Chat):
        return events.encode(events.Chat(to=request.to, **common))
    return events.encode(events.GroupChat(group_id=request.group_id, **common))


def _directory_question(by: str, request: Any) -> tuple[str, Any]:
    """Verb and question of a group frame. Raises `InvalidName` for an id that can be none."""
    group_id = request.group_id
    if group_id is not None:
        subjects.encode(group_id, "group_id")
    for field in ("users", "members", "roles"):
        for user in getattr(request, field, None) or ():
            subjects.encode(user, field)
    match request:
        case frames.GroupCreate():
            return "create", directory.Create(
                by=by,
                client_id=request.client_id,
                name=request.name,
                members=request.members,
                kind=request.kind,
                group_id=group_id,
            )
        case frames.GroupAdd():
            return "add", directory.Add(by=by, group_id=group_id, users=request.users)
        case frames.GroupRemove():
            return "remove", directory.Remove(by=by, group_id=group_id, users=request.users)
        case frames.GroupJoin():
            return "join", directory.Join(by=by, group_id=group_id)
        case frames.GroupLeave():
            return "leave", directory.Leave(by=by, group_id=group_id)
        case frames.GroupInfo():
            return "info", directory.Info(by=by, group_id=group_id)
        case frames.GroupMembers():
            return "members", directory.Members(
                by=by, group_id=group_id, after=request.after, limit=request.limit
            )
        case frames.GroupUpdate():
            return "update", directory.Update(
                by=by,
                group_id=group_id,
                name=request.name,
                roles=request.roles,
                mute=request.mute,
            )
        case _:
            raise AssertionError(f"no directory question for {type(request).__name__}")


def device_name(device: str | None) -> str | None:
    """The device as given, a fresh one if none was, or None if it is not valid."""
    if device is None or device == "":
        return uuid4().hex[:8]
    return device if _DEVICE.fullmatch(device) else None
