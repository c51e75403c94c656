"""Messages and what changed them, as documents that do not care in which order writes come.

A message is inserted once; edits, deletions and reactions are upserts guarded by `seq`, so that
a redelivery changes nothing and a change may come before its message. A change that comes first
leaves a document without `at` and `chat`, which the message completes; no reader sees it before.
A change of an archived message leaves the same, and the archive takes it from there.

Collections: `messages` (`_id` message id; `chat, seq` unique; `from, client_id` unique), `chats`
(`_id` chat id, with the `seq` of its last message).
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import InsertOne, UpdateOne

from broker import events

from . import bulk, documents
from .database import Database, Document
from .documents import Entry
from .file_uses import Uses

_ID = ("_id",)
_PLACE = ("chat", "seq", "from", "deleted_seq")

_log = logging.getLogger("hikyaku.store")


class Rejected(NamedTuple):
    """An event that MongoDB will never take, and why."""

    seq: int
    reason: str


class Messages:
    """Writes and reads messages. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._messages = database["messages"]
        self._chats = database["chats"]
        self._uses = Uses(database)

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            await self._messages.create_index(
                [("chat", 1), ("seq", -1), ("from", 1), ("deleted_seq", 1)],
                unique=True,
                partialFilterExpression={"chat": {"$exists": True}},
                name="by_place",
            )
            await self._messages.create_index(
                [("from", 1), ("client_id", 1)],
                unique=True,
                partialFilterExpression={"client_id": {"$exists": True}},
                name="dedupe",
            )
            await self._messages.create_index(
                [("chat", 1), ("thread", 1), ("seq", -1)],
                partialFilterExpression={"thread": {"$exists": True}},
                name="threads",
            )
            await self._chats.create_index([("users", 1)], sparse=True, name="users")

    async def write(self, entries: list[Entry]) -> list[Rejected]:
        """Store events, in any order, any number of times; returns those that never will be."""
        messages = [each for each in entries if isinstance(each.event, events.Message)]
        changes = [each for each in entries if not isinstance(each.event, events.Message)]
        rejected: list[Rejected] = []
        with_files = await self._uses.add(entries)
        inserts = _made(messages, lambda each: InsertOne(documents.new(each)), rejected)
        refused = await self._bulk(inserts)
        again = [inserts[each.at] for each in refused if each.key]
        rejected += [
            Rejected(inserts[each.at][0].seq, each.reason)
            for each in refused
            if each.key in ((), _PLACE)
        ]
        updates = [(entry, _completion(entry)) for entry, _ in again]
        updates += _made(changes, _change, rejected)
        for each in await self._bulk(updates):
            if not each.key:
                rejected.append(Rejected(updates[each.at][0].seq, each.reason))
        # What was sent twice with one `client_id`, or is in the log twice, is at its first place.
        absent = {inserts[e.at][0].seq for e in refused if e.key != _ID}
        absent |= await self._elsewhere([entry for entry, _ in again])
        stored = [entry for entry, _ in inserts if entry.seq not in absent]
        await self._touch_chats(stored)
        await self._uses.settle(with_files, entries)
        return rejected

    async def _bulk(self, operations: list[tuple[Entry, Any]]) -> list[bulk.Refusal]:
        return await bulk.write(self._database, self._messages, [each for _, each in operations])

    async def _elsewhere(self, entries: list[Entry]) -> set[int]:
        """The places of those whose message is at another one."""
        if not entries:
            return set()
        ids = [documents.number(each.event.id) for each in entries]
        with self._database.errors():
            cursor = self._messages.find({"_id": {"$in": ids}}, {"seq": 1})
            places = {each["_id"]: each.get("seq") async for each in cursor}
        return {
            each.seq
            for each, number in zip(entries, ids, strict=True)
            if places.get(number) not in (None, each.seq)
        }

    async def _touch_chats(self, messages: Iterable[Entry]) -> None:
        """Raise the last sequence of the chats; makes the chat known to its two users."""
        last: dict[str, Entry] = {}
        for each in messages:
            chat = each.event.chat_id
            if chat not in last or each.seq > last[chat].seq:
                last[chat] = each
        updates = []
        for chat, entry in last.items():
            change: Document = {"$max": {"seq": Int64(entry.seq)}}
            if isinstance(entry.event, events.Chat):
                users = sorted({entry.event.from_, entry.event.to})
                change["$setOnInsert"] = {"users": users}
            updates.append(UpdateOne({"_id": chat}, change, upsert=True))
        for refusal in await bulk.write(self._database, self._chats, updates):
            _log.error("chat not updated: %s", refusal.reason)


def _made(
    entries: Iterable[Entry], make: Callable[[Entry], Any], rejected: list[Rejected]
) -> list[tuple[Entry, Any]]:
    """The operation for each entry; an event that cannot be a document is rejected."""
    made: list[tuple[Entry, Any]] = []
    for each in entries:
        try:
            made.append((each, make(each)))
        except ValueError as error:
            rejected.append(Rejected(each.seq, str(error)))
    return made


def _completion(entry: Entry) -> UpdateOne:
    """Complete the document that a change left behind; changes nothing of a complete one."""
    document = documents.new(entry)
    key = document.pop("_id")
    kept: Document = {}
    for name, value in document.items():
        literal = {"$literal": value}
        if name in documents.CONTENT:
            changed = {"$or": ["$deleted_seq", {"$and": ["$edited_seq", name == "content"]}]}
            kept[name] = {"$cond": [changed, f"${name}", literal]}
        else:
            kept[name] = literal
    completed: list[Document] = [{"$set": kept}, {"$unset": "of"}]
    return UpdateOne({"_id": key, "at": {"$exists": False}}, completed)


def _change(entry: Entry) -> UpdateOne:
    event, seq = entry.event, Int64(entry.seq)
    match event:
        case events.MessageEdited():
            newer = {
                "$and": [
                    {"$lt": [{"$ifNull": ["$edited_seq", 0]}, seq]},
                    {"$not": ["$deleted_seq"]},
                ]
            }
            update: list[Document] = [
                {
                    "$set": {
                        "content": {"$cond": [newer, {"$literal": event.content}, "$content"]},
                        "edited_at": {"$cond": [newer, Int64(event.edited_at), "$edited_at"]},
                        "edited_seq": {"$cond": [newer, seq, "$edited_seq"]},
                    }
                }
            ]
        case events.MessageDeleted():
            first = {"$lt": [seq, {"$ifNull": ["$deleted_seq", Int64(2**63 - 1)]}]}
            update = [
                {
                    "$set": {
                        "deleted_at": {"$cond": [first, Int64(event.deleted_at), "$deleted_at"]},
                        "deleted_by": {"$cond": [first, {"$literal": event.from_}, "$deleted_by"]},
                        "deleted_seq": {"$cond": [first, seq, "$deleted_seq"]},
                    }
                },
                {"$unset": [*documents.CONTENT, "reactions", "edited_at", "edited_seq"]},
            ]
        case events.Reaction():
            key = f"reactions.{documents.reaction_key(event)}"
            reaction = {
                "emoji": {"$literal": event.emoji},
                "user": {"$literal": event.from_},
                "seq": seq,
                "on": not event.removed,
            }
            newer = {
                "$and": [
                    {"$lt": [{"$ifNull": [f"${key}.seq", 0]}, seq]},
                    {"$not": ["$deleted_seq"]},
                ]
            }
            update = [{"$set": {key: {"$cond": [newer, reaction, f"${key}"]}}}]
        case _:
            raise AssertionError(f"{type(event).__name__} changes no message")
    # Without the message here, as when it comes later or is archived, its chat is put down.
    absent = {"$cond": [{"$gt": ["$at", None]}, "$$REMOVE", {"$literal": event.chat_id}]}
    update.append({"$set": {"of": absent}})
    return UpdateOne({"_id": documents.number(event.id)}, update, upsert=True)
