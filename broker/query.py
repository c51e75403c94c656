"""Questions and answers of the service `query`: history, chats, unread counts, read pointers."""

from typing import Any

from msgspec import Struct

SERVICE = "query"


class History(Struct, kw_only=True):
    """Messages of a chat, newest first; ids are message ids, both ends excluded."""

    chat_id: str
    before: str | None = None
    after: str | None = None
    thread: str | None = None
    limit: int = 50


class Page(Struct, kw_only=True):
    """Messages as clients see them, and whether there are more beyond them."""

    messages: list[dict[str, Any]]
    more: bool


class FindMessage(Struct, kw_only=True):
    """Who wrote a message, and where it stands? May `by`, as an admin, delete it?"""

    chat_id: str
    message_id: str
    by: str


class FoundMessage(Struct, kw_only=True):
    """A message that is there; `manager`: the asker is an owner or admin of its group."""

    seq: int
    author: str
    deleted: bool
    manager: bool


class Chats(Struct, kw_only=True):
    """The chats of a user, that of the last message first, after the chat `after`."""

    user: str
    limit: int
    after: str | None = None


class ChatsPage(Struct, kw_only=True):
    """Chats as clients see them, and whether there are more."""

    chats: list[dict[str, Any]]
    more: bool


class Unread(Struct, kw_only=True):
    """How many messages of others come after the user's pointer, in each chat?"""

    user: str
    chat_ids: list[str]


class UnreadCounts(Struct, kw_only=True):
    """Counts up to 1,000; the chats in `more` have at least that many."""

    counts: dict[str, int]
    more: list[str]


class Read(Struct, kw_only=True):
    """The user has read a chat up to a message."""

    user: str
    chat_id: str
    message_id: str


class Pointer(Struct, kw_only=True):
    """Up to where a user has read a chat: the message's place and name."""

    seq: int
    id: str
