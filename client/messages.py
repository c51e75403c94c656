"""Messages and chats as the server describes them when it is asked."""

from typing import Literal

from msgspec import Struct, field


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
    mentions: list[str] = []
    edited_at: int | None = None
    deleted: bool = False
    reactions: dict[str, list[str]] = {}
    replies: int = 0


class MessagePage(Struct, kw_only=True):
    """Some messages of a chat, newest first; `more`: there are others in that direction."""

    messages: list[Message]
    more: bool = False


class ChatSummary(Struct, kw_only=True):
    """A chat of the user. `unread` goes up to 1,000; `members` is how many there are.

    The content of `last_message` may be cut. `last_read_msg_id` is up to where the user has read.
    """

    chat_id: str
    kind: Literal["dm", "group", "channel"]
    name: str | None = None
    last_message: Message | None = None
    unread: int = 0
    last_read_msg_id: str | None = None
    members: int = 0


class ChatPage(Struct, kw_only=True):
    """Some chats, that of the newest message first; if `more`, ask again after the last one."""

    chats: list[ChatSummary]
    more: bool = False
