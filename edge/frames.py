"""The wire frames of `docs/protocol.md`, as tagged structs, with one decoder for each direction.

A request that does not decode raises `BadFrame`, which says which field is wrong and carries the
`id` and `client_id` that could still be read, so that the client can tell which request failed.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

RequestId = Annotated[str, Meta(max_length=64)] | int
ClientId = Annotated[str, Meta(min_length=1, max_length=64)]
UserId = Annotated[str, Meta(min_length=1, max_length=64)]
GroupId = Annotated[str, Meta(min_length=1, max_length=64)]
ContentType = Annotated[str, Meta(min_length=1, max_length=64)]
MessageId = Annotated[str, Meta(pattern=r"^[0-9]{1,20}$")]
ChatId = Annotated[str, Meta(min_length=1, max_length=400)]
Emoji = Annotated[str, Meta(min_length=1, max_length=64)]
Seq = Annotated[int, Meta(ge=0)]
FileId = Annotated[str, Meta(min_length=1, max_length=128)]
GroupName = Annotated[str, Meta(min_length=1, max_length=128)]
Role = Literal["owner", "admin", "member"]
GroupKind = Literal["group", "channel"]

ErrorCode = Literal[
    "bad_frame",
    "unknown_type",
    "invalid",
    "too_large",
    "unauthorized",
    "forbidden",
    "not_member",
    "not_found",
    "conflict",
    "duplicate_group",
    "group_full",
    "rate_limited",
    "overloaded",
    "unavailable",
    "timeout",
    "internal",
]
RETRYABLE: frozenset[str] = frozenset({"rate_limited", "overloaded", "unavailable", "timeout"})


# --- client to server ---------------------------------------------------------------------------


class Connect(Struct, tag="connect", kw_only=True):
    """First frame of a client that gave no token with the upgrade."""

    token: str
    device: str | None = None
    cursor: str | None = None
    id: RequestId | None = None


class Send(Struct, kw_only=True):
    """What `chat` and `group_chat` have in common."""

    client_id: ClientId
    content: str
    content_type: ContentType = "text"
    reply_to: MessageId | None = None
    thread: MessageId | None = None
    attachments: Annotated[list[FileId], Meta(max_length=20)] = []
    mentions: Annotated[list[UserId], Meta(max_length=50)] = []
    expect_seq: Seq | None = None
    id: RequestId | None = None


class Chat(Send, tag="chat", kw_only=True):
    """A message to one user."""

    to: UserId


class GroupChat(Send, tag="group_chat", kw_only=True):
    """A message to a group."""

    group_id: GroupId


class Edit(Struct, tag="edit", kw_only=True):
    """Change the content of an own message."""

    client_id: ClientId
    chat_id: ChatId
    message_id: MessageId
    content: str
    id: RequestId | None = None


class Delete(Struct, tag="delete", kw_only=True):
    """Delete an own message, or any as an admin of the group."""

    client_id: ClientId
    chat_id: ChatId
    message_id: MessageId
    id: RequestId | None = None


class React(Struct, tag="react", kw_only=True):
    """Put an emoji on a message, or take it back."""

    client_id: ClientId
    chat_id: ChatId
    message_id: MessageId
    emoji: Emoji
    remove: bool = False
    id: RequestId | None = None


class ReadReceipt(Struct, tag="read_receipt", kw_only=True):
    """The user has read a chat up to this message."""

    chat_id: ChatId
    last_read_msg_id: MessageId
    id: RequestId | None = None


class History(Struct, tag="history", kw_only=True):
    """Messages of a chat, newest first, between two messages of it."""

    chat_id: ChatId
    before: MessageId | None = None
    after: MessageId | None = None
    thread: MessageId | None = None
    limit: Annotated[int, Meta(ge=1)] = 50
    id: RequestId | None = None


class Chats(Struct, tag="chats", kw_only=True):
    """The user's chats, that of the last message first."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    after: ChatId | None = None
    id: RequestId | None = None


class Unread(Struct, tag="unread", kw_only=True):
    """How many messages are unread in these chats."""

    chat_ids: Annotated[list[ChatId], Meta(min_length=1, max_length=200)]
    id: RequestId | None = None


class Typing(Struct, tag="typing", kw_only=True):
    """The user is typing to a user or in a group; exactly one of the two is given."""

    to: UserId | None = None
    group_id: GroupId | None = None
    id: RequestId | None = None


class GroupCreate(Struct, tag="group_create", kw_only=True):
    """Create a group; the sender becomes its owner."""

    client_id: ClientId
    name: GroupName
    members: list[UserId] = []
    kind: GroupKind = "group"
    group_id: GroupId | None = None
    id: RequestId | None = None


class GroupAdd(Struct, tag="group_add", kw_only=True):
    """Add users to a group."""

    group_id: GroupId
    users: Annotated[list[UserId], Meta(min_length=1, max_length=500)]
    id: RequestId | None = None


class GroupRemove(Struct, tag="group_remove", kw_only=True):
    """Remove users from a group."""

    group_id: GroupId
    users: Annotated[list[UserId], Meta(min_length=1, max_length=500)]
    id: RequestId | None = None


class GroupJoin(Struct, tag="group_join", kw_only=True):
    """Join a channel."""

    group_id: GroupId
    id: RequestId | None = None


class GroupLeave(Struct, tag="group_leave", kw_only=True):
    """Leave a group or a channel."""

    group_id: GroupId
    id: RequestId | None = None


class GroupMembers(Struct, tag="group_members", kw_only=True):
    """List members in order of user id, after `after`."""

    group_id: GroupId
    after: UserId | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    id: RequestId | None = None


class GroupInfo(Struct, tag="group_info", kw_only=True):
    """Describe a group."""

    group_id: GroupId
    id: RequestId | None = None


class GroupUpdate(Struct, tag="group_update", kw_only=True):
    """Change a group's name, its members' roles, or who may write (`mute`: admins only)."""

    group_id: GroupId
    name: GroupName | None = None
    roles: dict[UserId, Role] | None = None
    mute: bool | None = None
    id: RequestId | None = None


class Refresh(Struct, tag="refresh", kw_only=True):
    """Extend the session with a new token of the same user."""

    token: str
    id: RequestId | None = None


class Pong(Struct, tag="pong"):
    """Answer to `ping`."""


Request = (
    Connect
    | Chat
    | GroupChat
    | Edit
    | Delete
    | React
    | ReadReceipt
    | History
    | Chats
    | Unread
    | Typing
    | GroupCreate
    | GroupAdd
    | GroupRemove
    | GroupJoin
    | GroupLeave
    | GroupMembers
    | GroupInfo
    | GroupUpdate
    | Refresh
    | Pong
)


class BadFrame(Exception):
    """A frame that is no request: `code` is `bad_frame`, `unknown_type` or `invalid`."""

    def __init__(self, code: ErrorCode, message: str, *, id: Any = None, client_id: Any = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.client_id = client_id


class _Named(Struct):
    type: Any = None
    id: Any = None
    client_id: Any = None


_decode: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def decode_request(data: bytes) -> Request:
    """Decode one frame. Raises `BadFrame`; never anything else, whatever the bytes are."""
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise _explain(data, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("bad_frame", f"the frame is not valid JSON in UTF-8: {error}") from None
    except RecursionError:
        raise BadFrame("bad_frame", "the frame is nested too deeply") from None


def _explain(data: bytes, why: str) -> BadFrame:
    try:
        named = _decode_named(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BadFrame("bad_frame", "a frame is one JSON object with a string `type`")
    request_id = named.id if isinstance(named.id, str | int) else None
    client_id = named.client_id if isinstance(named.client_id, str) else None
    if not isinstance(named.type, str):
        return BadFrame("bad_frame", "a frame is one JSON object with a string `type`")
    if why.endswith("`$.type`"):
        code: ErrorCode = "unknown_type"
        why = f"this server knows no frame of type {named.type[:64]!r}"
    else:
        code = "invalid"
    return BadFrame(code, why, id=request_id, client_id=client_id)


# --- server to client ---------------------------------------------------------------------------


class ServerInfo(Struct, kw_only=True):
    """Who answers."""

    name: str
    version: str
    site: str


class Limits(Struct, kw_only=True, frozen=True):
    """What one client may do; announced in `welcome` and set in the configuration."""

    frame_bytes: int = 64 * 1024
    content_bytes: int = 16 * 1024
    group_members: int = 500
    messages_per_s: float = 20.0
    messages_burst: int = 60
    typing_interval_s: float = 3.0
    connections_per_user: int = 8
    history_page: int = 200


class Welcome(Struct, tag="welcome", kw_only=True):
    """First frame of an accepted connection."""

    user_id: str
    device: str
    session: str
    epoch: str
    cursor: str
    heartbeat_s: int
    limits: Limits
    server: ServerInfo


class Missing(Struct, kw_only=True):
    """A range of a chat that was not replayed; both ends belong to it."""

    chat_id: str
    from_seq: int
    to_seq: int


class CaughtUp(Struct, tag="caught_up", kw_only=True):
    """Everything up to `cursor` has been sent, but for `missing`."""

    cursor: str
    recovered: bool
    missing: list[Missing] = []


class Ack(Struct, tag="ack", kw_only=True):
    """The write is on disk."""

    id: RequestId | None
    client_id: str
    message_id: str
    chat_id: str
    seq: int
    timestamp: int
    status: Literal["sent", "accepted"] = "sent"
    duplicate: bool = False


class Error(Struct, tag="error", kw_only=True, omit_defaults=True):
    """A request that failed. `id` and `client_id` are those of the request, if it had them."""

    code: str
    message: str
    retryable: bool = field(default_factory=lambda: False)
    id: RequestId | None = None
    client_id: str | None = None
    retry_after_ms: int | None = None
    seq: int | None = None


class Result(Struct, tag="result", kw_only=True, omit_defaults=True):
    """Answer to a question; which fields are there depends on the question."""

    id: RequestId | None = None
    group: dict[str, Any] | None = None
    members: list[dict[str, Any]] | None = None
    messages: list[dict[str, Any]] | None = None
    chats: list[dict[str, Any]] | None = None
    counts: dict[str, int] | None = None
    more: bool | list[str] | None = None
    chat_id: str | None = None
    last_read_msg_id: str | None = None
    expires_at: int | None = None


class Event(Struct, kw_only=True):
    """What every durable event has."""

    seq: int
    chat_id: str


class ChatEvent(Event, tag="chat", kw_only=True):
    """A message of a conversation of two."""

    id: str
    from_: str = field(name="from")
    to: str
    content: str
    content_type: str
    timestamp: int
    client_id: str
    reply_to: str | None = None
    thread: str | None = None
    attachments: list[str] = []
    mentions: list[str] = []


class GroupChatEvent(Event, tag="group_chat", kw_only=True):
    """A message in a group."""

    id: str
    from_: str = field(name="from")
    group_id: str
    content: str
    content_type: str
    timestamp: int
    client_id: str
    reply_to: str | None = None
    thread: str | None = None
    attachments: list[str] = []
    mentions: list[str] = []


class MessageEdited(Event, tag="message_edited", kw_only=True):
    """A message has new content."""

    id: str
    from_: str = field(name="from")
    content: str
    edited_at: int


class MessageDeleted(Event, tag="message_deleted", kw_only=True):
    """A message is gone."""

    id: str
    from_: str = field(name="from")
    deleted_at: int


class Reaction(Event, tag="reaction", kw_only=True):
    """Someone put an emoji on a message, or took it back."""

    id: str
    from_: str = field(name="from")
    emoji: str
    removed: bool


class ReadReceiptEvent(Struct, tag="read_receipt", kw_only=True):
    """A user has read a chat up to a message. With `seq` when it is about oneself."""

    chat_id: str
    reader_id: str
    last_read_msg_id: str
    seq: int | None = None


class MemberAdded(Event, tag="member_added", kw_only=True):
    """Users joined a group; told to its members and to each of the users."""

    group_id: str
    by: str
    users: list[str]


class MemberRemoved(Event, tag="member_removed", kw_only=True):
    """Users left a group; told to its members and to each of the users."""

    group_id: str
    by: str
    users: list[str]


class GroupUpdated(Event, tag="group_updated", kw_only=True):
    """A group's fields changed; only those that did are there."""

    group_id: str
    by: str
    name: str | None = None
    roles: dict[str, str] | None = None
    mute: bool | None = None


class TypingEvent(Struct, tag="typing", kw_only=True):
    """Someone is typing; forget it after `expires_in` milliseconds."""

    chat_id: str
    from_: str = field(name="from")
    expires_in: int = 5000


class Ping(Struct, tag="ping"):
    """Answer with `pong`."""


ServerFrame = (
    Welcome
    | CaughtUp
    | Ack
    | Error
    | Result
    | ChatEvent
    | GroupChatEvent
    | MessageEdited
    | MessageDeleted
    | Reaction
    | ReadReceiptEvent
    | MemberAdded
    | MemberRemoved
    | GroupUpdated
    | TypingEvent
    | Ping
)

encode = msgspec.json.Encoder().encode
"""Encode any frame above as one JSON object without spaces."""

decode_server_frame = msgspec.json.Decoder(ServerFrame).decode
"""Decode what a server sent. Raises `msgspec.ValidationError` for a type unknown here."""
