"""The mirror of the read pointers, from which the bucket is rebuilt when it is lost."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne

from . import bulk
from .database import Database


class ReadRecord(NamedTuple):
    """Up to where a user has read a chat."""

    chat_id: str
    user: str
    seq: int
    message_id: str


class Reads:
    """Collection `reads`: `_id` chat and user. Pointers only move forward."""

    def __init__(self, database: Database):
        self._database = database
        self._reads = database["reads"]

    async def write(self, records: list[ReadRecord]) -> list[bulk.Refusal]:
        """Move the mirrored pointers, in any order, any number of times."""
        updates = []
        for each in records:
            newer = {"$lt": [{"$ifNull": ["$seq", 0]}, Int64(each.seq)]}
            change = {
                "seq": {"$cond": [newer, Int64(each.seq), "$seq"]},
                "message_id": {"$cond": [newer, each.message_id, "$message_id"]},
            }
            key = {"chat": each.chat_id, "user": each.user}
            updates.append(UpdateOne({"_id": key}, [{"$set": change}], upsert=True))
        return await bulk.write(self._database, self._reads, updates)

    async def all(self) -> AsyncIterator[ReadRecord]:
        """Every mirrored pointer."""
        with self._database.errors():
            async for each in self._reads.find({}):
                key = each["_id"]
                yield ReadRecord(key["chat"], key["user"], int(each["seq"]), each["message_id"])
