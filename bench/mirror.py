"""MongoDB compared with the log, event by event: what each document must be, by pure functions."""

import itertools
import time
from collections.abc import Iterable
from typing import Any

from broker import events, subjects
from broker.bus import Bus
from broker.log import Log
from store import documents
from store.database import Database
from store.documents import Document, Entry

from .scenario import BenchError

_numbers = itertools.count(time.time_ns() % 2**50 * 1000)


def new_id() -> str:
    """A message id that no other has."""
    return str(next(_numbers))


def message(sender: str, to: str, content: str, **fields: Any) -> events.Chat:
    """A message as an edge stores it."""
    number = new_id()
    return events.Chat(
        id=number,
        chat_id=subjects.dm(sender, to),
        from_=sender,
        to=to,
        content=content,
        content_type="text",
        timestamp=time.time_ns() // 1_000_000,
        client_id=fields.pop("client_id", f"client {number}"),
        **fields,
    )


def edited(original: events.Chat, content: str) -> events.MessageEdited:
    """An edit of a message."""
    return events.MessageEdited(
        id=original.id,
        chat_id=original.chat_id,
        from_=original.from_,
        content=content,
        edited_at=original.timestamp + 1,
        client_id=f"edit {new_id()}",
    )


def deleted(original: events.Chat) -> events.MessageDeleted:
    """Its deletion by its author."""
    return events.MessageDeleted(
        id=original.id,
        chat_id=original.chat_id,
        from_=original.from_,
        deleted_at=original.timestamp + 2,
        client_id=f"delete {new_id()}",
    )


def reaction(
    original: events.Chat, by: str, emoji: str, *, removed: bool = False
) -> events.Reaction:
    """An emoji on it, or taken back."""
    return events.Reaction(
        id=original.id,
        chat_id=original.chat_id,
        from_=by,
        emoji=emoji,
        removed=removed,
        timestamp=original.timestamp + 3,
        client_id=f"react {new_id()}",
    )


async def log_entries(bus: Bus, since: int = 1) -> list[Entry]:
    """Every message and change in the log from `since` on that can be read."""
    found: list[Entry] = []
    seq, pending = since, 1
    while pending:
        page = await Log(bus).read(">", seq)
        for stored in page.events:
            try:
                event = events.decode(stored.data)
            except ValueError:
                continue
            if isinstance(event, events.Message | events.Change):
                found.append(Entry(stored.seq, event))
        pending = page.pending
        seq = page.events[-1].seq + 1 if page.events else seq
    return found


def expected(entries: Iterable[Entry]) -> dict[int, Document]:
    """The documents that these events make, applied once and in order."""
    made: dict[int, Document] = {}
    for entry in entries:
        if isinstance(entry.event, events.Message):
            made.setdefault(int(entry.event.id), documents.new(entry))
        else:
            documents.apply(made[int(entry.event.id)], entry.seq, entry.event)
    return made


def without_emptiness(document: Document) -> Document:
    """MongoDB may leave an empty `reactions` where a late reaction came to nothing."""
    return {name: value for name, value in document.items() if (name, value) != ("reactions", {})}


async def stored_documents(
    database: Database, chats: list[str] | None = None
) -> dict[int, Document]:
    """What MongoDB has of these chats, or of all."""
    wanted: Document = {} if chats is None else {"chat": {"$in": chats}}
    found = database["messages"].find(wanted)
    return {int(each["_id"]): without_emptiness(each) async for each in found}


async def compare(
    bus: Bus, database: Database, *, since: int = 1, chats: list[str] | None = None
) -> int:
    """MongoDB is what the log says: each message with all its changes, each chat's last seq.

    Of these chats, or of all. Returns how many events were compared; raises `BenchError`.
    """
    entries = await log_entries(bus, since)
    if chats is not None:
        entries = [each for each in entries if each.event.chat_id in set(chats)]
    wanted = expected(entries)
    found = await stored_documents(database, chats)
    missing, surplus = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing:
        raise BenchError(f"{len(missing)} of {len(wanted)} are missing: {sorted(missing)[:5]}")
    if surplus:
        raise BenchError(f"{len(surplus)} are not in the log: {sorted(surplus)[:5]}")
    wrong = [key for key, each in wanted.items() if without_emptiness(each) != found[key]]
    if wrong:
        raise BenchError(f"{len(wrong)} differ: {wanted[wrong[0]]} {found[wrong[0]]}")
    last = {each["chat"]: each["seq"] for each in sorted(wanted.values(), key=lambda d: d["seq"])}
    query: Document = {} if chats is None else {"_id": {"$in": chats}}
    told = {each["_id"]: each["seq"] async for each in database["chats"].find(query)}
    if told != last:
        raise BenchError("the chats' last messages are not those of the log")
    return len(entries)
