"""What clients send, as tagged structs."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from .fields import (
    ChatId,
    ClientId,
    ContentType,
    Emoji,
    FileId,
    GroupId,
    GroupKind,
    GroupName,
    MessageId,
    RequestId,
    Role,
    Seq,
    StatusText,
    UnixMs,
    UserId,
)


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


class DeliveryReceipt(Struct, tag="delivery_receipt", kw_only=True):
    """A device of the user has stored a chat up to this message."""

    chat_id: ChatId
    last_delivered_msg_id: MessageId
    id: RequestId | None = None


class Receipts(Struct, tag="receipts", kw_only=True):
    """How far each member of a chat has read it, and got it."""

    chat_id: ChatId
    id: RequestId | None = None


class History(Struct, tag="history", kw_only=True):
    """Messages of a chat, newest first, between two messages of it."""

    chat_id: ChatId
    before: MessageId | None = None
    after: MessageId | None = None
    thread: MessageId | None = None
    limit: Annotated[int, Meta(ge=1)] = 50
    id: RequestId | None = None


class Search(Struct, tag="search", kw_only=True):
    """Messages that have these words, in all chats of the user or in one."""

    query: Annotated[str, Meta(max_length=1000)]
    chat_id: ChatId | None = None
    from_: UserId | None = field(name="from", default=None)
    since: UnixMs | None = None
    until: UnixMs | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    offset: Annotated[int, Meta(ge=0, le=1000)] = 0
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


class Open(Struct, tag="open", kw_only=True):
    """Follow a large channel live."""

    chat_id: ChatId
    id: RequestId | None = None


class Close(Struct, tag="close", kw_only=True):
    """Follow it no longer."""

    chat_id: ChatId
    id: RequestId | None = None


class PresenceSubscribe(Struct, tag="presence_subscribe", kw_only=True):
    """Watch users, as far as they share a chat with the asker."""

    users: Annotated[list[UserId], Meta(min_length=1, max_length=500)]
    id: RequestId | None = None


class PresenceUnsubscribe(Struct, tag="presence_unsubscribe", kw_only=True):
    """Watch them no longer."""

    users: Annotated[list[UserId], Meta(min_length=1, max_length=500)]
    id: RequestId | None = None


class PresenceSet(Struct, tag="presence_set", kw_only=True):
    """What the user wants to be; without `text` that stays as it was."""

    status: Literal["online", "away", "dnd", "invisible"]
    text: StatusText | None = None
    id: RequestId | None = None


PresenceRequest = PresenceSubscribe | PresenceUnsubscribe | PresenceSet


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
    | DeliveryReceipt
    | Receipts
    | History
    | Search
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
    | Open
    | Close
    | PresenceSubscribe
    | PresenceUnsubscribe
    | PresenceSet
    | Refresh
    | Pong
)
