"""Groups that live at other sites, as far as this site has to know them.

They are in the same collections as the site's own, with their home's name, so that everything that
reads groups finds them; but only what their home tells changes them. It tells in its order, and the
same may come again, or late, from a process that was paused: a group's `place` is where in its
home's log the last change was, and one that is not behind it changes nothing.

`told` in a group of this site's own has the other sites that are told what happens in it
(`store.guests`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bson.int64 import Int64
from pymongo import DeleteMany, UpdateOne

from .database import Database, Document, Session
from .guests import Guests

Kind = Literal["group", "channel"]
Role = Literal["owner", "admin", "member"]


class Place(NamedTuple):
    """Where in the log of a group's home a change of it is."""

    seq: int
    part: int


class Mirrored:
    """Changes what is known of groups elsewhere. Raises the errors of `store.errors`."""

    def __init__(self, database: Database):
        self._database = database
        self._groups = database["groups"]
        self._members = database["members"]
        self.guests = Guests(database)

    async def know(
        self,
        group_id: str,
        place: Place,
        *,
        home: str,
        name: str,
        kind: Kind,
        created_by: str,
        size: int,
        members: dict[str, Role],
    ) -> None:
        """There is such a group, and these users are in it, with these roles."""
        fields: Document = {"name": name, "kind": kind, "created_by": created_by, "home": home}
        roles = {user: {"kind": kind, "role": role} for user, role in members.items()}
        writes = [
            UpdateOne({"group": group_id, "user": user}, {"$set": each}, upsert=True)
            for user, each in roles.items()
        ]
        await self._change(group_id, place, {**fields, "size": size}, writes, new=True)

    async def join(
        self,
        group_id: str,
        place: Place,
        kind: Kind,
        users: list[str],
        *,
        size: int,
        name: str | None = None,
    ) -> None:
        """These came; who was in it already keeps the role."""
        change = {"$set": {"kind": kind}, "$setOnInsert": {"role": "member"}}
        writes = [
            UpdateOne({"group": group_id, "user": user}, change, upsert=True) for user in users
        ]
        fields: Document = {"size": size} if name is None else {"size": size, "name": name}
        await self._change(group_id, place, fields, writes)

    async def remove(self, group_id: str, place: Place, users: list[str], *, size: int) -> None:
        """These users are in it no more."""
        gone = DeleteMany({"group": group_id, "user": {"$in": users}})
        await self._change(group_id, place, {"size": size}, [gone])

    async def update(
        self, group_id: str, place: Place, *, name: str | None, roles: dict[str, Role]
    ) -> None:
        """Its name is another, or these members have these roles."""
        writes = [
            UpdateOne({"group": group_id, "user": user}, {"$set": {"role": role}})
            for user, role in roles.items()
        ]
        await self._change(group_id, place, {} if name is None else {"name": name}, writes)

    async def begin_anew(self, home: str) -> None:
        """Take from the site what it tells of its groups, whatever its place."""
        with self._database.errors():
            await self._groups.update_many({"home": home}, {"$unset": {"place": ""}})

    async def _change(
        self,
        group_id: str,
        place: Place,
        fields: Document,
        writes: Sequence[UpdateOne | DeleteMany],
        *,
        new: bool = False,
    ) -> None:
        """All of it or, if what is known of the group is of this place or a later one, nothing."""
        seq, part = place
        earlier = [
            {"place": None},
            {"place.seq": {"$lt": seq}},
            {"place.seq": seq, "place.part": {"$lt": part}},
        ]
        fields = {**fields, "place": {"seq": Int64(seq), "part": part}}

        async def work(session: Session) -> None:
            known = await self._groups.find_one({"_id": group_id}, {"_id": 1}, session=session)
            if known is not None:
                query = {"_id": group_id, "$or": earlier}
                done = await self._groups.update_one(query, {"$set": fields}, session=session)
                if not done.matched_count:
                    return
            elif new:
                group = {"_id": group_id, **fields, "version": 0}
                await self._groups.insert_one(group, session=session)
            if writes:
                await self._members.bulk_write(writes, ordered=False, session=session)

        await self._database.transaction(work)

    # --- this site's own groups ---

    async def told(self, group_id: str) -> set[str]:
        """The other sites that are told of a group."""
        with self._database.errors():
            group = await self._groups.find_one({"_id": group_id}, {"told": 1})
        return set(group.get("told", [])) if group else set()

    async def any_of_site(self, group_id: str, site: str) -> bool:
        """Whether a user of the other site is in the group."""
        ending = {"$regex": f"@{site}$"}
        with self._database.errors():
            query = {"group": group_id, "user": ending}
            return await self._members.find_one(query, {"_id": 1}) is not None

    async def page(self, group_id: str, after: str | None, limit: int) -> list[tuple[str, Role]]:
        """Members with their roles in order of user id, after `after`."""
        query: Document = {"group": group_id}
        if after is not None:
            query["user"] = {"$gt": after}
        with self._database.errors():
            cursor = self._members.find(query, {"user": 1, "role": 1}).sort("user", 1)
            return [(each["user"], each["role"]) async for each in cursor.limit(limit)]

    async def described(self, group_id: str) -> Document | None:
        """The group's own document."""
        with self._database.errors():
            found: Document | None = await self._groups.find_one({"_id": group_id})
            return found
