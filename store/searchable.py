"""Messages as the index of the search is to have them, and which index that is.

Collection `search` has one document: the number of the `live` index, which is searched, that of the
one that is `building` while the index is made anew, and the `last` number given. The change from
one to the other is a change of this document.
"""

from collections.abc import Collection
from typing import NamedTuple

from bson.int64 import Int64
from pymongo import ReturnDocument

from .archive_retention import FIELD
from .database import Database, Document

FIRST = 1
LEFT_MS = 600_000
"""A rebuild that was not heard of for so long has died."""

_KEY = "index"
_FIELDS = ("chat", "from", "at", "seq", "content", "edited_seq", "deleted_seq")


class Searchable:
    """Reads messages for the index. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._messages = database["messages"]
        self._groups = database["groups"]

    async def messages(self, ids: Collection[int]) -> dict[int, Document]:
        """Those of the messages that are there, and what changes left behind without one."""
        query = {"_id": {"$in": [Int64(each) for each in ids]}}
        with self._database.errors():
            found = self._messages.find(query, dict.fromkeys(_FIELDS, 1))
            return {int(each["_id"]): each async for each in found}

    async def page(self, after: int, up_to: int, limit: int) -> list[int]:
        """Ids of messages in rising order, `after` excluded."""
        query = {"_id": {"$gt": Int64(after), "$lte": Int64(up_to)}}
        with self._database.errors():
            cursor = self._messages.find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            return [int(each["_id"]) for each in await cursor.to_list(limit)]

    async def last(self) -> int:
        """The highest id; 0 if there is none."""
        with self._database.errors():
            found = await self._messages.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        return int(found["_id"]) if found else 0

    async def own_retention(self) -> dict[str, float]:
        """Groups that say themselves for how many days their messages are kept; 0: for ever."""
        with self._database.errors():
            found = self._groups.find({FIELD: {"$exists": True}}, {FIELD: 1})
            return {each["_id"]: float(each[FIELD]) async for each in found}

    async def count(self) -> int:
        """About how many messages there are."""
        with self._database.errors():
            return int(await self._messages.estimated_document_count())


class Numbers(NamedTuple):
    """The index that is searched, and the one that is being built, if any."""

    live: int
    building: int | None

    @property
    def all(self) -> tuple[int, ...]:
        """Every index that has to have what is written."""
        return (self.live,) if self.building is None else (self.live, self.building)


class SearchNumbers:
    """Reads and changes the numbers of the indexes. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._search = database["search"]

    async def read(self) -> Numbers:
        """As they are now."""
        with self._database.errors():
            found = await self._search.find_one({"_id": _KEY})
        return _numbers(found)

    async def begin(self) -> int:
        """The number of a new index, which is being built from now on; ends an older attempt."""
        last = {"$max": [{"$ifNull": ["$last", FIRST]}, {"$ifNull": ["$live", FIRST]}]}
        begun: list[Document] = [
            {"$set": {"live": {"$ifNull": ["$live", FIRST]}, "last": {"$add": [last, 1]}}},
            {"$set": {"building": "$last", "heard": "$$NOW"}},
        ]
        with self._database.errors():
            found = await self._search.find_one_and_update(
                {"_id": _KEY}, begun, upsert=True, return_document=ReturnDocument.AFTER
            )
        return int(found["building"])

    async def going_on(self, number: int) -> bool:
        """Say that this one is still being built; false if another has taken its place."""
        return await self._change(number, [{"$set": {"heard": "$$NOW"}}])

    async def finish(self, number: int) -> bool:
        """From now on this one is live; false if another has taken its place."""
        return await self._change(number, [{"$set": {"live": number}}, {"$unset": "building"}])

    async def abandon(self, number: int) -> bool:
        """This one is being built no longer."""
        return await self._change(number, [{"$unset": "building"}])

    async def abandon_left(self) -> bool:
        """As `abandon`, if a rebuild died; by the clock of MongoDB."""
        ago = {"$subtract": ["$$NOW", {"$ifNull": ["$heard", "$$NOW"]}]}
        died = {"_id": _KEY, "building": {"$exists": True}, "$expr": {"$gt": [ago, LEFT_MS]}}
        with self._database.errors():
            left = await self._search.update_one(died, [{"$unset": "building"}])
        return bool(left.matched_count)

    async def _change(self, number: int, change: list[Document]) -> bool:
        with self._database.errors():
            changed = await self._search.update_one({"_id": _KEY, "building": number}, change)
        return bool(changed.matched_count)


def _numbers(found: Document | None) -> Numbers:
    found = found or {}
    building = found.get("building")
    return Numbers(int(found.get("live", FIRST)), None if building is None else int(building))
