"""What a message is as a document, and what each event makes of it: pure functions.

`store.messages` does the same inside MongoDB, guarded by the same sequences; a test holds the two
together. Readers use these functions for events that are in the log but not yet in MongoDB.
"""

from typing import Any, NamedTuple

import msgspec
from bson.int64 import Int64

from broker import events

Document = dict[str, Any]

REACTIONS = 1000
REACTIONS_KEPT = 5000
"""With those that were taken back, which an older event must not bring back."""

REACTIONS_OF_ONE = 20
EMOJI = 50
"""Different ones of a message."""

CONTENT = ("content", "content_type", "attachments", "files", "mentions")


class Entry(NamedTuple):
    """An event of the log with its sequence."""

    seq: int
    event: events.Message | events.Change


def number(message_id: str) -> Int64:
    """A message id as MongoDB keeps it. Raises `ValueError` for what no edge makes."""
    if not message_id.isdecimal() or str(value := int(message_id)) != message_id:
        raise ValueError(f"{message_id[:100]!r} is no message id")
    if value >= 2**63:
        raise ValueError(f"{message_id[:100]} is too large for a message id")
    return Int64(value)


def check(event: events.Message | events.Change) -> None:
    """Raises `ValueError` for an event that cannot be a document."""
    number(event.id)
    if isinstance(event, events.Message) and event.thread is not None:
        number(event.thread)


def new(entry: Entry) -> Document:
    """The document of a message that nothing has changed yet."""
    event = entry.event
    assert isinstance(event, events.Message)
    document: Document = {
        "_id": number(event.id),
        "chat": event.chat_id,
        "seq": Int64(entry.seq),
        "at": Int64(event.timestamp),
        "from": event.from_,
        "client_id": event.client_id,
        "content": event.content,
        "content_type": event.content_type,
    }
    if isinstance(event, events.Chat):
        document["to"] = event.to
    else:
        document["group_id"] = event.group_id
    if event.reply_to is not None:
        document["reply_to"] = event.reply_to
    if event.thread is not None:
        document["thread"] = number(event.thread)
    if event.attachments:
        document["attachments"] = event.attachments
    if event.files:
        document["files"] = msgspec.to_builtins(event.files)
    if event.mentions:
        document["mentions"] = event.mentions
    return document


def reaction_key(event: events.Reaction) -> str:
    """Where a user's reaction is kept in the document; safe as a name of a field."""
    return f"{event.emoji.encode().hex()}_{event.from_.encode().hex()}"


def why_not_react(document: Document, user: str, emoji: str) -> str:
    """Why the user cannot react so, or empty. A page of history has to hold any message."""
    kept = document.get("reactions", {})
    mine = [each for each in kept.values() if each["user"] == user]
    if any(each["emoji"] == emoji for each in mine):
        return ""  # It is there, or was.
    if len(mine) >= REACTIONS_OF_ONE:
        return f"one user has at most {REACTIONS_OF_ONE} different ones on a message"
    shown = [each["emoji"] for each in kept.values() if each["on"]]
    if len(shown) >= REACTIONS or len(kept) >= REACTIONS_KEPT:
        return f"a message has at most {REACTIONS}"
    if emoji not in shown and len(set(shown)) >= EMOJI:
        return f"a message has at most {EMOJI} different ones"
    return ""


def apply(document: Document, seq: int, event: events.Change) -> None:
    """What a change makes of a document; the same change again makes nothing of it."""
    match event:
        case events.MessageEdited():
            if document.get("edited_seq", 0) < seq and "deleted_seq" not in document:
                document.update(content=event.content, edited_at=event.edited_at, edited_seq=seq)
        case events.MessageDeleted():
            if seq < document.get("deleted_seq", 2**63 - 1):
                document.update(
                    deleted_at=event.deleted_at, deleted_by=event.from_, deleted_seq=seq
                )
            for name in (*CONTENT, "reactions", "edited_at", "edited_seq"):
                document.pop(name, None)
        case events.Reaction():
            if "deleted_seq" in document:
                return
            reactions = document.setdefault("reactions", {})
            key = reaction_key(event)
            if reactions.get(key, {"seq": 0})["seq"] < seq:
                reactions[key] = {
                    "emoji": event.emoji,
                    "user": event.from_,
                    "seq": seq,
                    "on": not event.removed,
                }


def view(document: Document, replies: int = 0) -> Document:
    """A message as clients see it in `history`."""
    seen: Document = {
        "type": "chat" if "to" in document else "group_chat",
        "id": str(document["_id"]),
        "seq": int(document["seq"]),
        "chat_id": document["chat"],
        "from": document["from"],
        "content": document.get("content", ""),
        "content_type": document.get("content_type", "text"),
        "timestamp": int(document["at"]),
        "client_id": document["client_id"],
    }
    for name in ("to", "group_id", "reply_to", "attachments", "files", "mentions"):
        if name in document:
            seen[name] = document[name]
    if "thread" in document:
        seen["thread"] = str(document["thread"])
    if "edited_at" in document:
        seen["edited_at"] = int(document["edited_at"])
    if "deleted_at" in document:
        seen["deleted"] = True
    reactions: dict[str, list[str]] = {}
    for each in sorted(document.get("reactions", {}).values(), key=lambda each: each["seq"]):
        if each["on"]:
            reactions.setdefault(each["emoji"], []).append(each["user"])
    if reactions:
        seen["reactions"] = reactions
    if replies:
        seen["replies"] = replies
    return seen
