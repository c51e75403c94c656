"""The Python client and the terminal client. See `docs/client.md`."""

from edge.frames import (
    Ack,
    CaughtUp,
    ChatEvent,
    Event,
    GroupChatEvent,
    GroupUpdated,
    MemberAdded,
    MemberRemoved,
    Missing,
    TypingEvent,
)

from .client import Client
from .cursor_file import FileCursorStore
from .cursor_store import CursorStore, MemoryCursorStore
from .groups import Group, Member, MemberPage
from .inbox import ClientEvent
from .state import ConnectionState
from .tokens import TokenSource

__all__ = [
    "Ack",
    "CaughtUp",
    "ChatEvent",
    "Client",
    "ClientEvent",
    "ConnectionState",
    "CursorStore",
    "Event",
    "FileCursorStore",
    "Group",
    "GroupChatEvent",
    "GroupUpdated",
    "Member",
    "MemberAdded",
    "MemberPage",
    "MemberRemoved",
    "MemoryCursorStore",
    "Missing",
    "TokenSource",
    "TypingEvent",
]
