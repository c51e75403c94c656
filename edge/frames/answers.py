"""What the server sends, as tagged structs, with one encoder and one decoder."""

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field

from .fields import GroupKind, RequestId


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
    file_bytes: int = 100 * 1024 * 1024


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
    """The write is on disk: at `seq` (`sent`), or on its way to its chat's home (`accepted`, 0)."""

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
    hits: list[dict[str, Any]] | None = None
    total: int | None = None
    chats: list[dict[str, Any]] | None = None
    counts: dict[str, int] | None = None
    more: bool | list[str] | None = None
    chat_id: str | None = None
    last_read_msg_id: str | None = None
    receipts: dict[str, dict[str, Any]] | None = None
    presence: dict[str, dict[str, Any]] | None = None
    expires_at: int | None = None


class File(Struct, kw_only=True):
    """What is known of a file; `thumbnail` is a path on the server, of images only."""

    id: str
    name: str
    size: int
    content_type: str
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    thumbnail: str | None = None


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
    files: list[File] = []
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
    files: list[File] = []
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
    read_seq: int = 0
    seq: int | None = None


class DeliveryReceiptEvent(Struct, tag="delivery_receipt", kw_only=True):
    """A device of a user has stored a chat up to a message."""

    chat_id: str
    user_id: str
    last_delivered_msg_id: str
    delivered_seq: int = 0


class WriteRefused(Event, tag="write_refused", kw_only=True):
    """The site where the chat lives does not take an accepted write of this user."""

    id: str
    client_id: str
    code: str
    message: str


class Provisional(Struct, tag="provisional", kw_only=True):
    """A message that is not in its chat's order yet: `event` is like a `chat` without `seq`."""

    chat_id: str
    event: Raw


class MemberAdded(Event, tag="member_added", kw_only=True):
    """Users joined a group; told to its members and to each of the users."""

    group_id: str
    by: str
    users: list[str]
    name: str | None = None
    kind: GroupKind | None = None


class MemberRemoved(Event, tag="member_removed", kw_only=True):
    """Users left a group; told to its members and to each of the users."""

    group_id: str
    by: str
    users: list[str]
    name: str | None = None
    kind: GroupKind | None = None


class GroupUpdated(Event, tag="group_updated", kw_only=True):
    """A group's fields changed; only those that did are there."""

    group_id: str
    by: str
    name: str | None = None
    roles: dict[str, str] | None = None
    mute: bool | None = None
    large: bool | None = None


class TypingEvent(Struct, tag="typing", kw_only=True):
    """Someone is typing; forget it after `expires_in` milliseconds."""

    chat_id: str
    from_: str = field(name="from")
    expires_in: int = 5000


class Activity(Struct, tag="activity", kw_only=True):
    """A large channel that is not open here has news; `seq` is that of the last event."""

    chat_id: str
    seq: int


class PresenceEvent(Struct, tag="presence", kw_only=True):
    """A watched user is another one now; `last_seen` only of one who is offline."""

    user_id: str
    status: str
    text: str
    last_seen: int | None


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
    | DeliveryReceiptEvent
    | WriteRefused
    | Provisional
    | MemberAdded
    | MemberRemoved
    | GroupUpdated
    | TypingEvent
    | PresenceEvent
    | Activity
    | Ping
)

encode = msgspec.json.Encoder().encode
"""Encode any frame above as one JSON object without spaces."""

decode_server_frame = msgspec.json.Decoder(ServerFrame).decode
"""Decode what a server sent. Raises `msgspec.ValidationError` for a type unknown here."""
