"""What is stored in the log: JSON events without `seq`, which the delivering edge puts in front.

Field names are those of `docs/protocol.md`, so that the stored bytes, with the sequence spliced in,
are the frame that clients receive: decoded never, encoded once.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct, field

from .files import File as File


class _Message(Struct, kw_only=True, omit_defaults=True):
    id: str
    chat_id: str
    from_: str = field(name="from")
    content: str
    content_type: str
    timestamp: int
    client_id: str
    reply_to: str | None = None
    thread: str | None = None
    attachments: list[str] = []
    files: list[File] = []
    mentions: list[str] = []


class Chat(_Message, tag="chat", kw_only=True):
    """A message of a conversation of two."""

    to: str


class GroupChat(_Message, tag="group_chat", kw_only=True):
    """A message in a group."""

    group_id: str


class _Membership(Struct, kw_only=True):
    chat_id: str
    group_id: str
    by: str
    users: list[str]
    name: str
    kind: Literal["group", "channel"]
    size: int = 0


class MemberAdded(_Membership, tag="member_added", kw_only=True):
    """Users joined. On the group's subject for those who were members, on each user's for them."""


class MemberRemoved(_Membership, tag="member_removed", kw_only=True):
    """Users left. On the group's subject for those who stay, on each user's for them."""


class GroupUpdated(Struct, tag="group_updated", kw_only=True, omit_defaults=True):
    """A group's name or its members' roles changed; only what changed is there.

    `large`: a channel came to be one that members open to follow it, or is one no longer.
    """

    chat_id: str
    group_id: str
    by: str
    name: str | None = None
    roles: dict[str, str] | None = None
    large: bool | None = None


class MessageEdited(Struct, tag="message_edited", kw_only=True):
    """The author changed a message's content."""

    id: str
    chat_id: str
    from_: str = field(name="from")
    content: str
    edited_at: int
    client_id: str


class MessageDeleted(Struct, tag="message_deleted", kw_only=True):
    """The author, or an admin of the group, deleted a message."""

    id: str
    chat_id: str
    from_: str = field(name="from")
    deleted_at: int
    client_id: str


class Reaction(Struct, tag="reaction", kw_only=True):
    """A member put an emoji on a message, or took it back."""

    id: str
    chat_id: str
    from_: str = field(name="from")
    emoji: str
    removed: bool
    timestamp: int
    client_id: str


class ReadReceipt(Struct, tag="read_receipt", kw_only=True):
    """A user has read a chat up to a message; on the user's own subject."""

    chat_id: str
    reader_id: str
    last_read_msg_id: str
    read_seq: int


class WriteRefused(Struct, tag="write_refused", kw_only=True):
    """A chat's home at another site did not take a write of this user; on the own subject."""

    id: str
    chat_id: str
    client_id: str
    code: str
    message: str


class DeliveryReceipt(Struct, tag="delivery_receipt", kw_only=True):
    """A device of a user has stored a chat up to a message; told at once, never in the log."""

    chat_id: str
    user_id: str
    last_delivered_msg_id: str
    delivered_seq: int


class Typing(Struct, tag="typing", kw_only=True):
    """Someone is typing; told at once, never in the log."""

    chat_id: str
    from_: str = field(name="from")
    expires_in: int = 5000


class Identity(Struct, kw_only=True):
    """What an acknowledgement says about a stored write."""

    id: str
    chat_id: str
    timestamp: int = 0
    edited_at: int = 0
    deleted_at: int = 0

    @property
    def at(self) -> int:
        """When it was written, in Unix milliseconds."""
        return self.timestamp or self.edited_at or self.deleted_at


Message = Chat | GroupChat
Change = MessageEdited | MessageDeleted | Reaction
Membership = MemberAdded | MemberRemoved | GroupUpdated
Own = MemberAdded | MemberRemoved | ReadReceipt | WriteRefused
Event = Message | Change | Membership | ReadReceipt | WriteRefused


encode = msgspec.json.Encoder().encode
"""Encode an event as it is stored."""

decode_own: Callable[[bytes], Own] = msgspec.json.Decoder(Own).decode
"""Decode an event of a user's own subject."""

decode: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode
"""Decode any event of a chat. Raises `msgspec.ValidationError` for a type unknown here."""

decode_identity = msgspec.json.Decoder(Identity).decode
"""Decode the identity of any stored message."""


decode_update = msgspec.json.Decoder(GroupUpdated).decode
"""Decode a `group_updated`."""

UPDATE = b'{"type":"group_updated"'
"""How a stored `group_updated` begins."""


def with_seq(seq: int, stored: bytes) -> bytes:
    """The event as clients receive it: `seq` spliced in front of the stored object."""
    return b'{"seq":%d,%b' % (seq, stored[1:])


_ID = b'","id":"'
_MESSAGES = (b'{"type":"chat' + _ID, b'{"type":"group_chat' + _ID)


def message_id(stored: bytes) -> bytes | None:
    """The id of a stored message, found without decoding; None for any other event."""
    for beginning in _MESSAGES:
        if stored.startswith(beginning):
            start = len(beginning)
            return stored[start : stored.index(b'"', start)]
    return None
