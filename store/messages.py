"""Messages and what changed them, as documents that do not care in which order writes come.

A message is inserted once; edits, deletions and reactions are upserts guarded by `seq`, so that
a redelivery changes nothing and a change may come before its message. A change that comes first
leaves a document without `at`, which the message completes; no reader sees it before.

Collections: `messages` (`_id` message id; `chat, seq` unique; `from, client_id` unique), `chats`
(`_id` chat id, with the `seq` of its last message).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from broker import events

from . import documents
from .database import Database, Document
from .documents import Entry

DUPLICATE_KEY = 11000


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

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            await self._messages.create_index(
                [("chat", 1), ("seq", -1), ("from", 1)],
                unique=True,
                partialFilterExpression={"at": {"$exists": True}},
                name="history",
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
        present = await self._bulk([InsertOne(documents.new(each)) for each in messages], messages)
        again = [entry for entry, code, _ in present if code == DUPLICATE_KEY]
        rejected += [Rejected(e.seq, why) for e, code, why in present if code != DUPLICATE_KEY]
        updates = [(each, _completion(each)) for each in again]
        updates += [(each, _change(each)) for each in changes]
        for entry, code, why in await self._bulk(
            [update for _, update in updates], [entry for entry, _ in updates]
        ):
            # A second message with the same `client_id`, or a race of two upserts: the first stays.
            if code != DUPLICATE_KEY:
                rejected.append(Rejected(entry.seq, why))
        await self._touch_chats(messages)
        return rejected

    async def _bulk(
        self, operations: list[Any], entries: list[Entry]
    ) -> list[tuple[Entry, int, str]]:
        if not operations:
            return []
        try:
            with self._database.errors():
                await self._messages.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            return [
                (entries[each["index"]], each["code"], each["errmsg"][:500])
                for each in error.details["writeErrors"]
            ]
        return []

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
        if updates:
            with self._database.errors():
                await self._chats.bulk_write(updates, ordered=False)


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
    return UpdateOne({"_id": key, "at": {"$exists": False}}, [{"$set": kept}])


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
    return UpdateOne({"_id": Int64(event.id)}, update, upsert=True)
