"""Messages and chats as the server describes them when it is asked."""

from typing import Literal, NamedTuple

from msgspec import Struct, field

from edge.frames import File

MARK, UNMARK = "\ue000", "\ue001"


class Message(Struct, kw_only=True):
    """A message as it is now. `to` or `group_id` is given; `replies` counts on a thread's root.

    A deleted message has no content any more. `reactions` are emoji with the users who put them.
    """

    id: str
    seq: int
    chat_id: str
    from_: str = field(name="from")
    content: str
    content_type: str
    timestamp: int
    client_id: str
    to: str | None = None
    group_id: str | None = None
    reply_to: str | None = None
    thread: str | None = None
    attachments: list[str] = []
    files: list[File] = []
    mentions: list[str] = []
    edited_at: int | None = None
    deleted: bool = False
    reactions: dict[str, list[str]] = {}
    replies: int = 0


class Part(NamedTuple):
    """A piece of a text, and whether it is what was looked for."""

    text: str
    found: bool


class Hit(Message, kw_only=True):
    """A message that was found.

    `highlight` is what surrounds the words that fit, each of them between U+E000 and U+E001; None
    if the message was edited so lately that it is not known.
    """

    highlight: str | None = None

    @property
    def parts(self) -> list[Part]:
        """The highlight taken apart; the whole content, if there is none."""
        if self.highlight is None:
            return [Part(self.content, found=False)]
        return parts_of(self.highlight)


def parts_of(marked: str) -> list[Part]:
    """Take a text with marks apart; a mark without its other one marks nothing."""
    first, *pieces = marked.split(MARK)
    parts = [Part(first.replace(UNMARK, ""), found=False)]
    for piece in pieces:
        found, unmark, rest = piece.partition(UNMARK)
        parts += [Part(found, found=bool(unmark)), Part(rest.replace(UNMARK, ""), found=False)]
    return [part for part in parts if part.text]


class SearchPage(Struct, kw_only=True):
    """The messages that fit best, and about how many there are."""

    hits: list[Hit]
    total: int = 0


class MessagePage(Struct, kw_only=True):
    """Some messages of a chat, newest first; `more`: there are others in that direction."""

    messages: list[Message]
    more: bool = False


class Receipt(Struct, kw_only=True):
    """Up to where a user has read a chat, and up to where a device of the user has it."""

    last_read_msg_id: str | None = None
    read_seq: int = 0
    last_delivered_msg_id: str | None = None
    delivered_seq: int = 0


class ChatSummary(Struct, kw_only=True):
    """A chat of the user. `unread` goes up to 1,000; `members` is how many there are.

    The content of `last_message` may be cut. `last_read_msg_id` is up to where the user has read;
    in a conversation of two `receipts` says up to where the other one has.
    """

    chat_id: str
    kind: Literal["dm", "group", "channel"]
    name: str | None = None
    last_message: Message | None = None
    unread: int = 0
    last_read_msg_id: str | None = None
    members: int = 0
    receipts: dict[str, Receipt] = {}


class ChatPage(Struct, kw_only=True):
    """Some chats, that of the newest message first; if `more`, ask again after the last one."""

    chats: list[ChatSummary]
    more: bool = False
