"""What a session writes: messages into the log, typing to whoever is there.

`chat`, `group_chat` and `typing` check what the user may do and act; the answer comes by callback.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from broker import events, subjects
from broker.committer import Committed, Outcome
from broker.errors import BrokerError, InvalidName
from broker.snowflake import unix_ms

from . import frames

if TYPE_CHECKING:
    from .session import Session


def chat(session: "Session", request: frames.Chat, now: float) -> None:
    """Send a message to one user."""
    try:
        chat_id = subjects.dm(session.user.user_id, request.to)
    except InvalidName as error:
        session.error("invalid", str(error), request)
        return
    _send(session, request, chat_id, now)


def group_chat(session: "Session", request: frames.GroupChat, now: float) -> None:
    """Send a message to a group that the user is in."""
    chat_id = own_group(session, request.group_id, request)
    if chat_id is not None:
        _send(session, request, chat_id, now)


def own_group(session: "Session", group_id: str, request: Any) -> str | None:
    """The subject of a group that the user is in; else answers with an error."""
    try:
        chat_id = subjects.group(group_id)
    except InvalidName as error:
        session.error("invalid", str(error), request)
        return None
    if chat_id not in (session.user.groups or ()):
        session.error("not_member", f"you are not in the group {group_id!r}", request)
        return None
    return chat_id


def _send(
    session: "Session", request: frames.Chat | frames.GroupChat, chat_id: str, now: float
) -> None:
    edge = session.edge
    limit = edge.config.limits.content_bytes
    if len(request.content) * 4 > limit and len(request.content.encode()) > limit:
        session.error("too_large", f"content: at most {limit} bytes of UTF-8", request)
        return
    if not request.content and not request.attachments:
        session.error("invalid", "content: must not be empty without attachments", request)
        return
    if (wait_s := session.user.messages.take(now)) > 0:
        session.refuse_rate(now, wait_s, request)
        return
    timestamp = unix_ms()
    try:
        message_id = str(edge.ids.next())
        edge.committer.submit(
            chat_id,
            _stored(request, chat_id, message_id, session.user.user_id, timestamp),
            msg_id=subjects.message_id_header(session.user.user_id, request.client_id),
            done=partial(_acked, session, request, message_id, chat_id, timestamp),
            expect_seq=request.expect_seq,
        )
    except BrokerError as error:
        session.broker_error(error, request)


def _acked(
    session: "Session",
    request: frames.Chat | frames.GroupChat,
    message_id: str,
    chat_id: str,
    timestamp: int,
    outcome: Outcome,
) -> None:
    if session.lost:
        return
    if not isinstance(outcome, Committed):
        session.broker_error(outcome, request)
        return
    if outcome.first is not None:
        first = events.decode_identity(outcome.first)
        message_id, chat_id, timestamp = first.id, first.chat_id, first.at
    session.edge.counters.acks += 1
    session.push(
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


def typing(session: "Session", request: frames.Typing, now: float) -> None:
    """Tell who is in the chat that the user types; more often than allowed is dropped."""
    if (request.to is None) == (request.group_id is None):
        session.error("invalid", "exactly one of `to` and `group_id` must be given", request)
        return
    if request.group_id is not None:
        chat_id = own_group(session, request.group_id, request)
        if chat_id is None:
            return
    else:
        try:
            chat_id = subjects.dm(session.user.user_id, str(request.to))
        except InvalidName as error:
            session.error("invalid", str(error), request)
            return
    if session.user.may_type(chat_id, now, session.edge.config.limits.typing_interval_s):
        event = frames.TypingEvent(chat_id=chat_id, from_=session.user.user_id)
        session.edge.whisper(chat_id, session.user.token, frames.encode(event))


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
