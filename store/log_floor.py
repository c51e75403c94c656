"""The seq after which a log has to begin that is made anew, for MongoDB may have all up to it.

It is raised far ahead and seldom, and always before anything is written that lies above it. So it
holds at any moment, also for what a process has in hand when the log is lost.

Beside it stands which log it is, for one that comes back without its description.

Collection `log`: `_id` "floor", `seq`; `_id` "epoch", `epoch`.
"""

from typing import Any

from bson.int64 import Int64

from .database import Database, Document

STEP = 1_000_000
NEWEST = 200
_FLOOR = "floor"
_EPOCH = "epoch"


class LogFloor:
    """Reads and raises the floor. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._log = database["log"]
        self._chats = database["chats"]
        self._reads = database["reads"]
        self._messages = database["messages"]
        self._known = 0

    async def cover(self, seq: int) -> None:
        """Events up to `seq` are about to be written: raise the floor when it is near."""
        if seq <= self._known - STEP // 2:
            return
        floor = seq + STEP
        with self._database.errors():
            change = {"$max": {"seq": Int64(floor)}}
            await self._log.update_one({"_id": _FLOOR}, change, upsert=True)
        self._known = max(self._known, floor)

    async def remember(self, epoch: str) -> None:
        """This is the log from which MongoDB is written."""
        with self._database.errors():
            change = {"$set": {"epoch": epoch}}
            await self._log.update_one({"_id": _EPOCH}, change, upsert=True)

    async def epoch(self) -> str:
        """What was remembered last, or empty."""
        with self._database.errors():
            found: Document | None = await self._log.find_one({"_id": _EPOCH})
        return str(found["epoch"]) if found is not None else ""

    async def seen(self) -> int:
        """A seq that was certainly reached: of what is above it, little can be here.

        What the floor says, and the messages that were made last; ids go by time, not by seq.
        """
        with self._database.errors():
            floor: Document | None = await self._log.find_one({"_id": _FLOOR})
            newest = self._messages.find({}, {"seq": 1}).sort("_id", -1).limit(NEWEST)
            seqs = [int(each.get("seq", 0)) async for each in newest]
        return max([*seqs, int(floor["seq"]) - STEP if floor is not None else 0])

    async def read(self) -> int:
        """The floor; 0 when nothing was ever written."""
        with self._database.errors():
            found: Document | None = await self._log.find_one({"_id": _FLOOR})
            if found is not None:
                return int(found["seq"])
            highest = max([await _highest(each) for each in (self._chats, self._reads)])
        return highest + STEP if highest else 0


async def _highest(collection: Any) -> int:
    """For a database that was filled before there was a floor; reads all of the collection."""
    cursor = collection.aggregate([{"$group": {"_id": None, "seq": {"$max": "$seq"}}}])
    return max([int(each["seq"] or 0) async for each in cursor], default=0)
