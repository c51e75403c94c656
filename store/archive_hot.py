"""The messages in MongoDB as the archive sees them: which are old, and how they leave.

A message leaves only when a file has exactly it. One that changed meanwhile leaves its change
behind, as if that had come after it was archived.
"""

from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

from bson.int64 import Int64
from pymongo import DeleteOne, UpdateOne

from . import bulk
from .archive_rows import BASE, CHANGING
from .database import Database, Document
from .errors import StoreUnavailable

BATCH = 1000
SLICE = 500_000
CHANGES = 100_000
ROUNDS = 10


class Refs(NamedTuple):
    """Ids of old messages by chat bucket, in order; `last` is the highest, 0 if there are none."""

    ids: "dict[int, array[int]]"
    last: int


class Changes(NamedTuple):
    """Ids by chat of changes whose message is not in MongoDB, and the highest; 0: none."""

    ids: dict[str, list[int]]
    last: int


class Hot:
    """Reads and removes documents of `messages`. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._messages = database["messages"]
        self._chats = database["chats"]

    # --- messages ---

    async def old(self, after: int, before: int, bucket_of: Callable[[str], int]) -> Refs:
        """The oldest messages with ids in between, at most 500,000."""
        found: dict[int, array[int]] = {}
        last = 0
        query = {"_id": {"$gt": Int64(after), "$lt": Int64(before)}, "at": {"$exists": True}}
        with self._database.errors():
            cursor = self._messages.find(query, {"chat": 1}).sort("_id", 1).limit(SLICE)
            async for each in cursor:
                last = int(each["_id"])
                found.setdefault(bucket_of(each["chat"]), array("q")).append(last)
        return Refs(found, last)

    async def documents(self, ids: Iterable[int]) -> AsyncIterator[list[Document]]:
        """These messages, in batches."""
        for batch in _batches(list(ids)):
            query = {"_id": {"$in": batch}, "at": {"$exists": True}}
            with self._database.errors():
                cursor = self._messages.find(query).sort("_id", 1)
                documents: list[Document] = await cursor.to_list(BATCH)
            yield documents

    async def last_seqs(self, chats: Iterable[str]) -> dict[str, int]:
        """The seq of the last message of each chat."""
        with self._database.errors():
            query = {"_id": {"$in": sorted(set(chats))}}
            return {each["_id"]: each["seq"] async for each in self._chats.find(query, {"seq": 1})}

    async def remove(self, ids: Iterable[int]) -> int:
        """Remove messages for good."""
        removed = 0
        for batch in _batches(list(ids)):
            with self._database.errors():
                done = await self._messages.delete_many({"_id": {"$in": batch}})
            removed += done.deleted_count
        return removed

    async def expire(self, chat: str, before: int) -> int:
        """Remove what is older in one chat."""
        removed = 0
        query = {"chat": chat, "_id": {"$lt": Int64(before)}, "at": {"$exists": True}}
        while True:
            with self._database.errors():
                cursor = self._messages.find(query, {"_id": 1}).sort("seq", 1)
                found = await cursor.limit(BATCH).to_list(BATCH)
            if not found:
                return removed
            removed += await self.remove(int(each["_id"]) for each in found)

    async def clear(self, rows: Iterable[Document]) -> None:
        """Remove what a file has; what has changed since stays as a change of it."""
        for batch in _chunks(rows):
            archived = {int(each["_id"]): each for each in batch}
            plain = [Int64(key) for key, row in archived.items() if row.keys().isdisjoint(CHANGING)]
            unchanged: Document = {name: {"$exists": False} for name in CHANGING}
            with self._database.errors():
                await self._messages.delete_many({"_id": {"$in": plain}, **unchanged})
            await self._clear_changed(archived)

    async def _clear_changed(self, archived: dict[int, Document]) -> None:
        query = {"_id": {"$in": [Int64(key) for key in archived]}, "at": {"$exists": True}}
        for _ in range(ROUNDS):
            with self._database.errors():
                present = await self._messages.find(query).to_list(len(archived))
            if not present:
                return
            operations: list[DeleteOne | UpdateOne] = []
            for document in present:
                if document == archived[int(document["_id"])]:
                    operations.append(DeleteOne(_exactly(document)))
                else:
                    changed = {"_id": document["_id"], "at": {"$exists": True}}
                    operations.append(UpdateOne(changed, _only_change()))
            await bulk.write(self._database, self._messages, operations)
        raise StoreUnavailable("archived messages change faster than they can be removed")

    # --- changes of archived messages ---

    async def changes(self, after: int, before: int) -> Changes:
        """Changes with ids in between, whose message is not here; at most 100,000."""
        found: dict[str, list[int]] = {}
        last = 0
        query = {"_id": {"$gt": Int64(after), "$lt": Int64(before)}, "at": {"$exists": False}}
        with self._database.errors():
            cursor = self._messages.find(query, {"of": 1}).sort("_id", 1).limit(CHANGES)
            async for each in cursor:
                last = int(each["_id"])
                found.setdefault(each.get("of", ""), []).append(last)
        return Changes(found, last)

    async def changes_of(self, ids: Iterable[int]) -> dict[int, Document]:
        """The changes of these messages."""
        found: dict[int, Document] = {}
        for batch in _batches(list(ids)):
            query = {"_id": {"$in": batch}, "at": {"$exists": False}}
            with self._database.errors():
                async for each in self._messages.find(query):
                    found[int(each["_id"])] = each
        return found

    async def drop(self, changes: Iterable[Document]) -> None:
        """Remove changes that a file has, unless there were more since."""
        for batch in _chunks(changes):
            operations = [DeleteOne(_exactly(each)) for each in batch]
            await bulk.write(self._database, self._messages, operations)


def _only_change() -> list[Document]:
    """Makes of a message what `store.messages` makes of a change without its message."""
    return [{"$set": {"of": "$chat"}}, {"$unset": list(BASE)}]


def _exactly(document: Document) -> Document:
    """Matches the document if nothing has changed it."""
    same = {"$eq": ["$$ROOT", {"$literal": document}]}
    return {"_id": document["_id"], "$expr": same}


def _batches(ids: list[int]) -> Iterable[list[Int64]]:
    for start in range(0, len(ids), BATCH):
        yield [Int64(each) for each in ids[start : start + BATCH]]


def _chunks(documents: Iterable[Document]) -> Iterable[list[Document]]:
    chunk: list[Document] = []
    for each in documents:
        chunk.append(each)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
