"""What a provider of pushes is: it checks an address and sends; the answer is one of four outcomes.

A provider keeps no push and never tries again: `workers.push.delivery` does, from MongoDB.
"""

from typing import Any, NamedTuple, Protocol

from broker.notify import Address


class Unusable(Exception):
    """A configured key cannot be used; the message names the setting and says why."""


class Unfit(Exception):
    """A refused registration: `field` names what is wrong. `retryable`: it may be good later."""

    def __init__(self, field: str, why: str, *, retryable: bool = False):
        super().__init__(f"{field}: {why}")
        self.field = field
        self.retryable = retryable


class Note(NamedTuple):
    """What one device is told of one message; without `content` that is left out."""

    user: str
    device: str
    chat_id: str
    chat_kind: str
    chat_name: str
    message_id: str
    seq: int
    sender: str
    content: str
    content_type: str
    timestamp: int
    mention: bool
    badge: int
    unread: int


class Push(NamedTuple):
    """A note on its way. `key` is the same each time this message is sent to this device.

    `collapse` is the same for all pushes of one chat to one user; `ttl_s` is how long the provider
    may keep it for a device that is off; `registered_ms` says which registration the address is.
    """

    key: str
    collapse: str
    address: Address
    registered_ms: int
    note: Note
    ttl_s: int


class Sent(NamedTuple):
    """The provider has it."""


class Gone(NamedTuple):
    """There is no such device any more; `since_ms`: since when, if the provider says so."""

    reason: str
    since_ms: int | None = None


class Refused(NamedTuple):
    """The provider will never take this push."""

    reason: str


class Later(NamedTuple):
    """Not now. `fault`: something is wrong with the provider, not with this push."""

    reason: str
    after_s: float | None = None
    fault: bool = True


Outcome = Sent | Gone | Refused | Later


class Provider(Protocol):
    """One way to reach devices."""

    name: str
    one_server: bool

    def origin(self, address: Address) -> str:
        """The server that the address leads to; servers fail one by one. Raises `Unfit`."""
        ...

    async def check(self, address: Address) -> None:
        """Raises `Unfit` for an address that cannot be pushed to."""
        ...

    async def send(self, push: Push) -> Outcome:
        """Send once. Raises nothing but `CancelledError`."""
        ...


def text_of(note: Note, without: str) -> tuple[str, str]:
    """Title and body of a notification; `without` stands for content that is left out."""
    body = note.content or without
    if note.chat_kind == "dm":
        return note.sender, body
    return note.chat_name or note.chat_id, f"{note.sender}: {body}"


def data_of(note: Note) -> dict[str, Any]:
    """What an application needs to open the chat."""
    return {
        "chat_id": note.chat_id,
        "message_id": note.message_id,
        "seq": note.seq,
        "from": note.sender,
        "kind": note.chat_kind,
        "mention": note.mention,
        "unread": note.unread,
        "timestamp": note.timestamp,
    }
