"""Questions and answers of the service `query`: history, search, chats, counts, receipts."""

from typing import Any, Literal

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
    """Who wrote a message, and where it stands? May `by`, as an admin, delete it?

    With `emoji` it is refused, as `invalid`, if `by` cannot react so since there are too many.
    """

    chat_id: str
    message_id: str
    by: str
    emoji: str | None = None


class FoundMessage(Struct, kw_only=True):
    """A message that is there; `manager`: the asker is an owner or admin of its group.

    `attached`: it has files, so that it may be without content.
    """

    seq: int
    author: str
    deleted: bool
    manager: bool
    attached: bool = False


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


class Search(Struct, kw_only=True):
    """Messages of the user's chats that have these words; in one chat, or from one sender only.

    `since` and `until` are Unix milliseconds; what was written at `until` is not found.
    """

    user: str
    query: str
    chat_id: str | None = None
    sender: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 20
    offset: int = 0


class Hits(Struct, kw_only=True):
    """Messages as clients see them, each with `highlight`, and about how many there are."""

    hits: list[dict[str, Any]]
    total: int


class Read(Struct, kw_only=True):
    """The user has read a chat up to a message."""

    user: str
    chat_id: str
    message_id: str


class Pointer(Struct, kw_only=True):
    """Up to where a user has a chat: the message's place and name."""

    seq: int
    id: str


class Receipt(Struct, kw_only=True):
    """A user has read a chat up to a message, or a device of the user has stored it.

    `seq` is the message's, 0 when the edge does not know it.
    """

    kind: Literal["read", "delivered"]
    user: str
    chat_id: str
    message_id: str
    seq: int = 0


class Move(Struct, kw_only=True):
    """Move pointers as these receipts say."""

    receipts: list[Receipt]


class Outcome(Struct, kw_only=True):
    """What became of a receipt: where the pointer stands; or an error's `code` and `message`.

    `crowded`: nothing was put down, for the chat has too many members for that.
    """

    pointer: Pointer | None = None
    crowded: bool = False
    code: str = ""
    message: str = ""


class Moved(Struct, kw_only=True):
    """One outcome for each receipt."""

    outcomes: list[Outcome]


class Receipts(Struct, kw_only=True):
    """Up to where has each member of a chat read it, and stored it?"""

    chat_id: str


class ReceiptsFound(Struct, kw_only=True):
    """By user; members of whom nothing is known are left out."""

    receipts: dict[str, dict[str, Any]]
