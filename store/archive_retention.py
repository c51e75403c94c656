"""How long messages are kept: a default for all chats, and what a group's document says instead.

`groups.retention_days`: 0 keeps the group's messages for ever.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

from .database import Database

FIELD = "retention_days"
PAGE = 100
_DAY_MS = 86_400_000


class Names(NamedTuple):
    """What the archive must be told about ids.

    `before`: the first id of messages newer than so many days; `group_of`: the group of a chat id,
    or None; `chat_of`: the chat id of a group.
    """

    before: Callable[[float], int]
    group_of: Callable[[str], str | None]
    chat_of: Callable[[str], str]


class Retention:
    """Raises `StoreUnavailable`. A limit is the id below which messages are removed; 0: none.

    `ahead_ms` is what `Database.ahead_ms` said.
    """

    def __init__(self, database: Database, names: Names, default_days: float, ahead_ms: int = 0):
        self._database = database
        self._groups = database["groups"]
        self._names = names
        self._ahead_ms = ahead_ms
        self.default = self._limit(default_days)

    def _limit(self, days: float) -> int:
        return self.before(days) if days > 0 else 0

    def before(self, days: float) -> int:
        """The first id of messages newer than so many days."""
        return self._names.before(days + self._ahead_ms / _DAY_MS)

    async def limits(self, chats: Iterable[str]) -> dict[str, int]:
        """The limit of each chat."""
        found = dict.fromkeys(chats, self.default)
        groups = {self._names.group_of(chat): chat for chat in found}
        groups.pop(None, None)
        query = {"_id": {"$in": list(groups)}, FIELD: {"$exists": True}}
        with self._database.errors():
            async for each in self._groups.find(query, {FIELD: 1}):
                found[groups[each["_id"]]] = self._limit(each[FIELD])
        return found

    async def keep(self, group_id: str, days: float | None) -> bool:
        """Set a group's own, or with None take it away; whether there is such a group."""
        change = {"$unset": {FIELD: 1}} if days is None else {"$set": {FIELD: days}}
        with self._database.errors():
            done = await self._groups.update_one({"_id": group_id}, change)
        return bool(done.matched_count)

    async def groups(self) -> AsyncIterator[tuple[str, int]]:
        """The chats of groups with a limit of their own, and it."""
        last = ""
        while True:
            query = {"_id": {"$gt": last}, FIELD: {"$gt": 0}}
            with self._database.errors():
                cursor = self._groups.find(query, {FIELD: 1}).sort("_id", 1).limit(PAGE)
                found = await cursor.to_list(PAGE)
            if not found:
                return
            for each in found:
                yield self._names.chat_of(each["_id"]), self._limit(each[FIELD])
            last = found[-1]["_id"]
