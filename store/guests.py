"""Who of other sites is in a group that lives here, as of a place in the log.

The directory knows who is a member now. What is told to other sites goes by who was one when it
happened, and the log may be looked through long after. So members of other sites are put down here
by the events that tell of them, in the log's order, together with the place of the last one.

Collections: `guests` (`group, site, user` unique); in `groups` a group's `told` has the sites that
are told what happens in it, `told_seq` the place in the log up to which that is so. One document
of `guests` (`_id` place) has the epoch and place of the log up to which all of it was put down.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from pymongo import DeleteOne, UpdateOne

from .database import Database, Document, Session

BATCH = 1000
_PLACE = "place"


class Told(NamedTuple):
    """The sites that are told of a group, and the place in the log of what is known of it."""

    sites: set[str]
    seq: int


class Guests:
    """Reads and changes them. Raises the errors of `store.errors`."""

    def __init__(self, database: Database):
        self._database = database
        self._groups = database["groups"]
        self._members = database["members"]
        self._guests = database["guests"]

    async def ensure(self) -> None:
        """Create the index; idempotent."""
        with self._database.errors():
            await self._guests.create_index([("group", 1), ("site", 1), ("user", 1)], unique=True)

    async def told(self, group_id: str) -> Told:
        """Who is told of a group."""
        with self._database.errors():
            group = await self._groups.find_one({"_id": group_id}, {"told": 1, "told_seq": 1})
            if group is None:
                return Told(set(), 0)
            found = Told(set(group.get("told", [])), group.get("told_seq", 0))
            if found.sites and not found.seq:
                await self._begin(group_id, found.sites)
        return found

    async def place(self, epoch: str) -> int | None:
        """Up to where the log of this epoch was put down; None if it is not known."""
        with self._database.errors():
            found = await self._guests.find_one({"_id": _PLACE, "epoch": epoch})
        return found["seq"] if found else None

    async def reach(self, epoch: str, seq: int) -> None:
        """It is put down up to this place."""
        with self._database.errors():
            update = {"$set": {"epoch": epoch, "seq": seq}}
            await self._guests.update_one({"_id": _PLACE}, update, upsert=True)

    async def any_but(self, group_id: str, site: str, users: Collection[str]) -> bool:
        """Whether anybody of the site is in the group, besides these."""
        query = {"group": group_id, "site": site, "user": {"$nin": list(users)}}
        with self._database.errors():
            return await self._guests.find_one(query, {"_id": 1}) is not None

    async def settle(
        self, group_id: str, seq: int, sites: set[str], changed: Mapping[str, tuple[str, bool]]
    ) -> bool:
        """Up to `seq` these sites are told, and these users, with their site, came or went.

        False, and nothing changes, if more of the log is known already.
        """
        query = {"_id": group_id, "told_seq": {"$not": {"$gte": seq}}}

        async def work(session: Session) -> bool:
            update = {"$set": {"told": sorted(sites), "told_seq": seq}}
            done = await self._groups.update_one(query, update, session=session)
            if not done.matched_count:
                return False
            writes = [
                _came(group_id, site, user) if came else DeleteOne(_key(group_id, site, user))
                for user, (site, came) in changed.items()
            ]
            if writes:
                await self._guests.bulk_write(writes, ordered=False, session=session)
            return True

        return await self._database.transaction(work)

    async def _begin(self, group_id: str, sites: set[str]) -> None:
        """Of a group that was told of before guests were put down: its members of these sites."""
        endings = "|".join(map(re.escape, sorted(sites)))
        query = {"group": group_id, "user": {"$regex": f"@({endings})$"}}
        cursor = self._members.find(query, {"_id": 0, "user": 1})
        while users := await cursor.to_list(BATCH):
            names = [each["user"] for each in users]
            writes = [_came(group_id, name.rpartition("@")[2], name) for name in names]
            await self._guests.bulk_write(writes, ordered=False)


def _key(group_id: str, site: str, user: str) -> Document:
    return {"group": group_id, "site": site, "user": user}


def _came(group_id: str, site: str, user: str) -> UpdateOne:
    return UpdateOne(_key(group_id, site, user), {"$set": {"site": site}}, upsert=True)
