"""The Python client and the terminal client. See `docs/client.md`."""

from edge.frames import (
    Ack,
    Activity,
    CaughtUp,
    ChatEvent,
    DeliveryReceiptEvent,
    Event,
    File,
    GroupChatEvent,
    GroupUpdated,
    MemberAdded,
    MemberRemoved,
    MessageDeleted,
    MessageEdited,
    Missing,
    PresenceEvent,
    Reaction,
    ReadReceiptEvent,
    TypingEvent,
)

from .chat_ids import dm_chat_id, group_chat_id
from .client import Client
from .cursor_file import FileCursorStore
from .cursor_store import CursorStore, MemoryCursorStore
from .following import Presence
from .groups import Group, Member, MemberPage
from .inbox import ClientEvent
from .messages import (
    ChatPage,
    ChatSummary,
    Hit,
    Message,
    MessagePage,
    Receipt,
    SearchPage,
)
from .state import ConnectionState
from .tokens import TokenSource

__all__ = [
    "Ack",
    "Activity",
    "CaughtUp",
    "ChatEvent",
    "ChatPage",
    "ChatSummary",
    "Client",
    "ClientEvent",
    "ConnectionState",
    "CursorStore",
    "DeliveryReceiptEvent",
    "Event",
    "File",
    "FileCursorStore",
    "Group",
    "GroupChatEvent",
    "GroupUpdated",
    "Hit",
    "Member",
    "MemberAdded",
    "MemberPage",
    "MemberRemoved",
    "MemoryCursorStore",
    "Message",
    "MessageDeleted",
    "MessageEdited",
    "MessagePage",
    "Missing",
    "Presence",
    "PresenceEvent",
    "Reaction",
    "ReadReceiptEvent",
    "Receipt",
    "SearchPage",
    "TokenSource",
    "TypingEvent",
    "dm_chat_id",
    "group_chat_id",
]
