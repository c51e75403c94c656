"""Groups that live at other sites, as far as this site has to know them.

They are in the same collections as the site's own, with their home's name, so that everything that
reads groups finds them; but only what their home tells changes them. It tells in its order, and the
same may come again: every change here is one that can be made twice.

`told` in a group of this site's own has the other sites that are told what happens in it.
"""

from typing import Literal

from pymongo import UpdateOne

from .database import Database, Document

Role = Literal["owner", "admin", "member"]
BATCH = 1000


class Mirrored:
    """Changes what is known of groups elsewhere. Raises the errors of `store.errors`."""

    def __init__(self, database: Database):
        self._database = database
        self._groups = database["groups"]
        self._members = database["members"]

    async def know(
        self, group_id: str, *, home: str, name: str, kind: str, created_by: str, size: int
    ) -> None:
        """There is such a group."""
        fields: Document = {"name": name, "kind": kind, "created_by": created_by, "home": home}
        with self._database.errors():
            await self._groups.update_one(
                {"_id": group_id},
                {"$set": {**fields, "size": size}, "$setOnInsert": {"version": 0}},
                upsert=True,
            )

    async def add(self, group_id: str, kind: str, members: dict[str, Role]) -> None:
        """These users are in it, with these roles."""
        users = list(members)
        with self._database.errors():
            for start in range(0, len(users), BATCH):
                await self._members.bulk_write(
                    [
                        UpdateOne(
                            {"group": group_id, "user": user},
                            {"$set": {"kind": kind, "role": members[user]}},
                            upsert=True,
                        )
                        for user in users[start : start + BATCH]
                    ],
                    ordered=False,
                )

    async def join(self, group_id: str, kind: str, users: list[str]) -> None:
        """These came; who was in it already keeps the role."""
        with self._database.errors():
            for start in range(0, len(users), BATCH):
                await self._members.bulk_write(
                    [
                        UpdateOne(
                            {"group": group_id, "user": user},
                            {"$set": {"kind": kind}, "$setOnInsert": {"role": "member"}},
                            upsert=True,
                        )
                        for user in users[start : start + BATCH]
                    ],
                    ordered=False,
                )

    async def remove(self, group_id: str, users: list[str]) -> None:
        """These users are in it no more."""
        with self._database.errors():
            await self._members.delete_many({"group": group_id, "user": {"$in": users}})

    async def update(
        self, group_id: str, *, name: str | None = None, size: int | None = None
    ) -> None:
        """Its name or number of members changed."""
        changed = {"name": name, "size": size}
        fields = {key: value for key, value in changed.items() if value is not None}
        if fields:
            with self._database.errors():
                await self._groups.update_one({"_id": group_id}, {"$set": fields})

    async def set_roles(self, group_id: str, roles: dict[str, Role]) -> None:
        """These members have these roles."""
        with self._database.errors():
            for user, role in roles.items():
                key = {"group": group_id, "user": user}
                await self._members.update_one(key, {"$set": {"role": role}})

    # --- this site's own groups ---

    async def told(self, group_id: str) -> set[str]:
        """The other sites that are told of a group."""
        with self._database.errors():
            group = await self._groups.find_one({"_id": group_id}, {"told": 1})
        return set(group.get("told", [])) if group else set()

    async def tell(self, group_id: str, sites: set[str]) -> None:
        """From now on these sites are told."""
        with self._database.errors():
            update = {"$set": {"told": sorted(sites)}}
            await self._groups.update_one({"_id": group_id}, update)

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
