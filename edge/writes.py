"""What a session writes: messages into the log, typing to whoever is there.

All check what the user may do and act; what has to be asked first goes by the lane of the
connection. The answer comes by callback.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from broker import events, query, subjects
from broker.committer import Committed, OnDone, Outcome
from broker.errors import BrokerError, InvalidName
from broker.files import File
from broker.requests import Failure
from broker.snowflake import unix_ms

from . import attachments, elsewhere, frames

if TYPE_CHECKING:
    from .asker import Asker
    from .session import Session


def chat(asker: "Asker", request: frames.Chat, now: float) -> None:
    """Send a message to one user."""
    try:
        if asker.edge.sites is not None:
            asker.edge.sites.names.check_short(request.to, "to")
        chat_id = subjects.dm(asker.user.user_id, request.to)
    except InvalidName as error:
        asker.error("invalid", str(error), request)
        return
    _send(asker, request, chat_id, now)


def group_chat(asker: "Asker", request: frames.GroupChat, now: float) -> None:
    """Send a message to a group that the user is in."""
    try:
        chat_id = subjects.group(request.group_id)
    except InvalidName as error:
        asker.error("invalid", str(error), request)
        return
    _send(asker, request, chat_id, now)


def own_chat(asker: "Asker", chat_id: str) -> None:
    """Raises `Failure` unless the user is in the chat."""
    kind, tokens = subjects.parse(chat_id)
    user = asker.user
    if kind == "dm" and user.token in tokens:
        return
    if kind == "group" and chat_id in (user.groups or ()):
        return
    raise Failure("not_member", f"you are not in the chat {chat_id!r}")


def change(asker: "Asker", request: frames.Edit | frames.Delete | frames.React, now: float) -> None:
    """Edit, delete, or react: if the user may, an event of the log like any other."""
    try:
        subjects.parse(request.chat_id)
        if isinstance(request, frames.Edit):
            check_content(asker, request.content)
    except (BrokerError, Failure) as error:
        asker.failed(error, request)
        return
    if (wait_s := asker.user.messages.take(now)) > 0:
        asker.refuse_rate(now, wait_s, request)
        return
    asker.lane.put(request, partial(_change, asker, request), partial(_find, asker, request))


async def _find(
    asker: "Asker", request: frames.Edit | frames.Delete | frames.React
) -> query.FoundMessage:
    own_chat(asker, request.chat_id)
    question = query.FindMessage(
        chat_id=request.chat_id,
        message_id=request.message_id,
        by=asker.user.user_id,
        emoji=request.emoji if isinstance(request, frames.React) and not request.remove else None,
    )
    return await asker.edge.ask_query("message", question, query.FoundMessage)


def _change(
    asker: "Asker",
    request: frames.Edit | frames.Delete | frames.React,
    found: query.FoundMessage,
) -> None:
    edge, user = asker.edge, asker.user
    if isinstance(request, frames.Edit) and found.author != user.user_id:
        raise Failure("forbidden", "only its author edits a message")
    if isinstance(request, frames.Edit) and not (request.content or found.attached):
        raise Failure("invalid", "content: must not be empty; delete the message instead")
    if isinstance(request, frames.Delete) and not (found.author == user.user_id or found.manager):
        raise Failure("forbidden", "only its author or an admin of the group deletes a message")
    if found.deleted and not isinstance(request, frames.Delete):
        raise Failure("not_found", "the message was deleted")
    timestamp = unix_ms()
    event = _changed(request, user.user_id, timestamp)
    if (home := elsewhere.home_of(asker, request.chat_id)) is not None:
        edge.hub.elsewhere.submit(asker, request, home, event, timestamp)
        return
    edge.committer.submit(
        request.chat_id,
        events.encode(event),
        msg_id=subjects.message_id_header(user.user_id, request.client_id),
        done=partial(_acked, asker, request, request.message_id, request.chat_id, timestamp),
    )
    asker.lane.writing += 1


def _changed(
    request: frames.Edit | frames.Delete | frames.React, user_id: str, timestamp: int
) -> events.Change:
    common: dict[str, Any] = {
        "id": request.message_id,
        "chat_id": request.chat_id,
        "from_": user_id,
        "client_id": request.client_id,
    }
    match request:
        case frames.Edit():
            return events.MessageEdited(content=request.content, edited_at=timestamp, **common)
        case frames.Delete():
            return events.MessageDeleted(deleted_at=timestamp, **common)
        case frames.React():
            return events.Reaction(
                emoji=request.emoji, removed=request.remove, timestamp=timestamp, **common
            )


def check_content(asker: "Asker", content: str) -> None:
    """Raises `Failure` for content over the limit."""
    limit = asker.edge.config.limits.content_bytes
    if len(content.encode()) > limit:
        raise Failure("too_large", f"content: at most {limit} bytes of UTF-8")


def is_message_id(text: str) -> bool:
    """Whether it may be one: a decimal number of 63 bits, written as edges write it."""
    return text.isdecimal() and str(int(text)) == text and int(text) < 2**63


def own_group(asker: "Asker", group_id: str, request: Any) -> str | None:
    """The subject of a group that the user is in; else answers with an error."""
    try:
        chat_id = subjects.group(group_id)
    except InvalidName as error:
        asker.error("invalid", str(error), request)
        return None
    if chat_id not in (asker.user.groups or ()):
        asker.error("not_member", f"you are not in the group {group_id!r}", request)
        return None
    return chat_id


def _send(
    asker: "Asker", request: frames.Chat | frames.GroupChat, chat_id: str, now: float
) -> None:
    edge = asker.edge
    limit = edge.config.limits.content_bytes
    if len(request.content) * 4 > limit and len(request.content.encode()) > limit:
        asker.error("too_large", f"content: at most {limit} bytes of UTF-8", request)
        return
    if not request.content and not request.attachments:
        asker.error("invalid", "content: must not be empty without attachments", request)
        return
    for name in ("reply_to", "thread"):
        if not is_message_id(getattr(request, name) or "0"):
            asker.error("invalid", f"{name}: is no message id", request)
            return
    if (wait_s := asker.user.messages.take(now)) > 0:
        asker.refuse_rate(now, wait_s, request)
        return
    commit = partial(_commit, asker, request, chat_id)
    if request.attachments:
        check = partial(attachments.check, asker, request.attachments, chat_id)
        asker.lane.put(request, commit, check)
    elif asker.lane.free:
        commit(None)
    else:
        asker.lane.put(request, commit)


def _commit(
    asker: "Asker",
    request: frames.Chat | frames.GroupChat,
    chat_id: str,
    attached: list[File] | None,
) -> None:
    """Put a message into the log. Whether one is in a group is decided here, in its turn."""
    edge = asker.edge
    timestamp = unix_ms()
    try:
        if isinstance(request, frames.GroupChat) and chat_id not in (asker.user.groups or ()):
            raise Failure("not_member", f"you are not in the group {request.group_id!r}")
        message_id = str(edge.ids.next())
        event = _message(
            request, chat_id, message_id, asker.user.user_id, timestamp, attached or []
        )
        if (home := elsewhere.home_of(asker, chat_id)) is not None:
            edge.hub.elsewhere.submit(asker, request, home, event, timestamp)
            return
        done: OnDone = partial(_acked, asker, request, message_id, chat_id, timestamp)
        header = b""
        if edge.following is not None:
            done, header = edge.following.written(message_id, chat_id, done)
        edge.committer.submit(
            chat_id,
            events.encode(event),
            msg_id=subjects.message_id_header(asker.user.user_id, request.client_id),
            done=done,
            expect_seq=request.expect_seq,
            header=header,
        )
        asker.lane.writing += 1
    except (BrokerError, Failure) as error:
        asker.failed(error, request)


def _acked(
    asker: "Asker",
    request: frames.Chat | frames.GroupChat | frames.Edit | frames.Delete | frames.React,
    message_id: str,
    chat_id: str,
    timestamp: int,
    outcome: Outcome,
) -> None:
    if not asker.lost:
        _answer(asker, request, message_id, chat_id, timestamp, outcome)
    asker.written()


def _answer(
    asker: "Asker",
    request: frames.Chat | frames.GroupChat | frames.Edit | frames.Delete | frames.React,
    message_id: str,
    chat_id: str,
    timestamp: int,
    outcome: Outcome,
) -> None:
    if not isinstance(outcome, Committed):
        asker.failed(outcome, request)
        return
    if outcome.first is not None:
        first = events.decode_identity(outcome.first)
        message_id, chat_id, timestamp = first.id, first.chat_id, first.at
    asker.edge.counters.acks += 1
    asker.push(
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


def typing(asker: "Session", request: frames.Typing, now: float) -> None:
    """Tell who is in the chat that the user types, unless the user is invisible.

    More often than allowed is dropped.
    """
    if (request.to is None) == (request.group_id is None):
        asker.error("invalid", "exactly one of `to` and `group_id` must be given", request)
        return
    if request.group_id is not None:
        chat_id = own_group(asker, request.group_id, request)
        if chat_id is None:
            return
    else:
        try:
            chat_id = subjects.dm(asker.user.user_id, str(request.to))
        except InvalidName as error:
            asker.error("invalid", str(error), request)
            return
    if asker.user.may_type(chat_id, now, asker.edge.config.limits.typing_interval_s):
        event = frames.TypingEvent(chat_id=chat_id, from_=asker.user.user_id)
        whisper = partial(asker.edge.whisper, chat_id, asker.user.token, frames.encode(event))
        asker.edge.presence.here.unless_hidden(asker, whisper)


def _message(
    request: frames.Chat | frames.GroupChat,
    chat_id: str,
    message_id: str,
    sender: str,
    timestamp: int,
    attached: list[File],
) -> events.Message:
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
        "files": attached,
        "mentions": request.mentions,
    }
    if isinstance(request, frames.Chat):
        return events.Chat(to=request.to, **common)
    return events.GroupChat(group_id=request.group_id, **common)
