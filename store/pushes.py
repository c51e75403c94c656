"""The queue of pushes: one document for each message and device, which is also the record of it.

A push is planned once, whoever plans it how often. It is claimed by moving `due` forward by a
lease, on the clock of MongoDB: who claims it sends it, and what was done takes `due` away; the
document stays until the message is so old that nobody plans it again. A worker that is killed
after the provider's answer and before the record sends it once more when the lease ends.

Collections: `pushes` (`_id` message, user and device), `push_chats` (`_id` user and chat: news in a
chat of many that are told of together, `due` when the first came a while ago).
"""

import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from bson.int64 import Int64
from pymongo import UpdateOne

from . import bulk
from .database import Database, Document

_log = logging.getLogger("hikyaku.store")


class PushRecord(NamedTuple):
    """A push to send; `attempts` counts from 1."""

    key: str
    user: str
    device: str
    provider: str
    chat_id: str
    chat_kind: str
    chat_name: str
    message_id: int
    seq: int
    mention: bool
    until_ms: int
    attempts: int = 0


class News(NamedTuple):
    """A chat of many has news for a user: the message at `seq` is the newest."""

    user: str
    chat_id: str
    message_id: int
    seq: int
    until_ms: int


def key_of(message_id: int, user: str, device: str) -> str:
    """What a push is called: the same for the same message and device."""
    return f"{message_id}/{device}/{user}"


class Pushes:
    """Plans, claims and records pushes. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._pushes = database["pushes"]
        self._chats = database["push_chats"]

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            due = {"partialFilterExpression": {"due": {"$exists": True}}, "name": "due"}
            await self._pushes.create_index([("provider", 1), ("due", 1)], **due)
            await self._chats.create_index([("due", 1)], **due)
            for each in (self._pushes, self._chats):
                await each.create_index([("user", 1)], name="user")
                await each.create_index([("gone_at", 1)], expireAfterSeconds=0, name="gone_at")

    # --- planning ---

    async def plan(self, records: list[PushRecord]) -> None:
        """Put pushes down, due at once; those that were planned before stay as they are."""
        updates = []
        for each in records:
            document = {
                "provider": each.provider,
                "user": each.user,
                "device": each.device,
                "chat": each.chat_id,
                "kind": each.chat_kind,
                "name": each.chat_name,
                "message": Int64(each.message_id),
                "seq": Int64(each.seq),
                "mention": each.mention,
                "until": _date(each.until_ms),
                "attempts": 0,
                "gone_at": _record_ends(each.until_ms),
            }
            fresh = {"_id": "$_id", "due": "$$NOW", **_literals(document)}
            known = {"$gt": ["$provider", None]}
            change = [{"$replaceWith": {"$cond": [known, "$$ROOT", fresh]}}]
            updates.append(UpdateOne({"_id": each.key}, change, upsert=True))
        await self._write(self._pushes, updates)

    async def plan_news(self, news: list[News], after_s: float) -> None:
        """Tell of these chats `after_s` from now, or with what waits already.

        News that a push has told of, or is about to, change nothing.
        """
        updates = []
        for each in news:
            newer = {"$lt": [{"$ifNull": ["$seq", Int64(0)]}, Int64(each.seq)]}
            untold = {"$lt": [{"$ifNull": ["$told", Int64(0)]}, Int64(each.seq)]}
            due = {"$ifNull": ["$due", {"$add": ["$$NOW", int(after_s * 1000)]}]}
            ends = _record_ends(each.until_ms)
            change = {
                "user": {"$literal": each.user},
                "seq": {"$cond": [newer, Int64(each.seq), "$seq"]},
                "message": {"$cond": [newer, Int64(each.message_id), "$message"]},
                "until": {"$cond": [newer, _date(each.until_ms), "$until"]},
                "gone_at": {"$max": ["$gone_at", ends]},
                "due": {"$cond": [untold, due, {"$ifNull": ["$due", "$$REMOVE"]}]},
            }
            key = {"user": each.user, "chat": each.chat_id}
            updates.append(UpdateOne({"_id": key}, [{"$set": change}], upsert=True))
        await self._write(self._chats, updates)

    # --- chats of many ---

    async def claim_news(self, limit: int, lease_s: float) -> list[News]:
        """Chats to tell of now, for a while nobody else's."""
        found = await self._claim(self._chats, {}, limit, lease_s)
        return [
            News(
                each["_id"]["user"],
                each["_id"]["chat"],
                int(each["message"]),
                int(each["seq"]),
                _ms(each["until"]),
            )
            for each in found
        ]

    async def told(self, news: Collection[News], after_s: float) -> None:
        """Pushes for these are planned, or not needed; what came later is due in `after_s`."""
        updates = []
        for each in news:
            told = {"$max": ["$told", Int64(each.seq)]}
            more = {"$gt": ["$seq", Int64(each.seq)]}
            later = {"$add": ["$$NOW", int(after_s * 1000)]}
            change = {"told": told, "due": {"$cond": [more, later, "$$REMOVE"]}}
            key = {"user": each.user, "chat": each.chat_id}
            updates.append(UpdateOne({"_id": key}, [{"$set": change}]))
        await self._write(self._chats, updates)

    # --- sending ---

    async def claim(self, provider: str, limit: int, lease_s: float) -> list[PushRecord]:
        """Pushes to send now, for a while nobody else's; those that fell due first come first."""
        found = await self._claim(self._pushes, {"provider": provider}, limit, lease_s)
        return [
            PushRecord(
                each["_id"],
                each["user"],
                each["device"],
                each["provider"],
                each["chat"],
                each["kind"],
                each["name"],
                int(each["message"]),
                int(each["seq"]),
                each["mention"],
                _ms(each["until"]),
                each["attempts"],
            )
            for each in found
        ]

    async def done(self, key: str, outcome: str) -> None:
        """The push needs no more doing; the record stays."""
        with self._database.errors():
            change = {"$set": {"outcome": outcome}, "$unset": {"due": 1, "owner": 1}}
            await self._pushes.update_one({"_id": key}, change)

    async def again(self, key: str, after_s: float, *, tried: bool = True) -> None:
        """Send it later; not `tried`: that was no attempt."""
        change: Document = {"due": {"$add": ["$$NOW", int(after_s * 1000)]}}
        if not tried:
            change["attempts"] = {"$subtract": ["$attempts", 1]}
        query = {"_id": key, "due": {"$exists": True}}
        with self._database.errors():
            await self._pushes.update_one(query, [{"$set": change}, {"$unset": "owner"}])

    async def waiting(self, provider: str, limit: int) -> tuple[int, float]:
        """How many pushes are not done, up to `limit`, and for how long the first is overdue."""
        query = {"provider": provider, "due": {"$exists": True}}
        with self._database.errors():
            count = await self._pushes.count_documents(query, limit=limit)
            first = await self._pushes.find_one(query, {"due": 1}, sort=[("due", 1)])
        overdue = datetime.now(UTC) - first["due"] if first is not None else timedelta()
        return count, max(0.0, overdue.total_seconds())

    async def forget(self, user: str) -> int:
        """Remove all that waits for a user, and the records; how many there were."""
        with self._database.errors():
            pushes = await self._pushes.delete_many({"user": user})
            chats = await self._chats.delete_many({"user": user})
        return int(pushes.deleted_count) + int(chats.deleted_count)

    async def _write(self, collection: Any, updates: list[UpdateOne]) -> None:
        for refusal in await bulk.write(self._database, collection, updates):
            _log.error("push not planned: %s", refusal.reason)

    async def _claim(
        self, collection: Any, query: Document, limit: int, lease_s: float
    ) -> list[Document]:
        """The first by `due` are candidates; which of them are due, MongoDB's clock says."""
        with self._database.errors():
            cursor = collection.find({**query, "due": {"$exists": True}}, {"_id": 1})
            ids = [each["_id"] async for each in cursor.sort("due", 1).limit(limit)]
            if not ids:
                return []
            owner = uuid4().hex
            mine = {
                "due": {"$add": ["$$NOW", int(lease_s * 1000)]},
                "owner": owner,
                "attempts": {"$add": [{"$ifNull": ["$attempts", 0]}, 1]},
            }
            ready = {"$expr": {"$lte": ["$due", "$$NOW"]}, "due": {"$exists": True}}
            await collection.update_many({"_id": {"$in": ids}, **ready}, [{"$set": mine}])
            found = collection.find({"_id": {"$in": ids}, "owner": owner})
            return [each async for each in found]


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _record_ends(until_ms: int) -> datetime:
    """An hour after the last moment at which the message may be planned again."""
    return _date(until_ms + 3_600_000)


def _literals(document: Document) -> Document:
    return {name: {"$literal": value} for name, value in document.items()}
