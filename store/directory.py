"""Groups and their members, and the outbox of events that each change leaves behind.

A change and its events are one transaction: the group's `version` rises by one, which also makes
changes to one group wait for each other, the members change, and the events go to `outbox` under
that version. `workers.directory` publishes them in order of version and then removes them.

Collections: `groups` (`_id` group id), `members` (`group, user` unique), `outbox` (`_id` group id
and version).
"""

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from .database import Database, Document, Session
from .errors import DuplicateGroup, Forbidden, GroupFull, NotFound, NotMember

Kind = Literal["group", "channel"]
Role = Literal["owner", "admin", "member"]
LISTED_MEMBERS = 500
INSERT_BATCH = 1000
UNTOLD = 1000

_MANAGERS = ("owner", "admin")


class GroupRecord(NamedTuple):
    """A group; `listed` are its first 500 members by user id."""

    group_id: str
    name: str
    kind: Kind
    home: str
    size: int
    version: int
    created_by: str
    listed: list[str]


class Change(NamedTuple):
    """What a transaction did: users added or removed, fields changed. Empty: nothing."""

    group: GroupRecord
    by: str
    added: list[str]
    removed: list[str]
    name: str | None = None
    roles: dict[str, Role] | None = None

    @property
    def happened(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.added or self.removed or self.name is not None or self.roles)


class OutboxEntry(NamedTuple):
    """The events of one version of a group, in order: subject and stored bytes.

    `at` is when the change was made, in Unix milliseconds.
    """

    group_id: str
    version: int
    events: list[tuple[str, bytes]]
    at: int


EventsOf = Any
"""A function from a `Change` to its events; given by the worker, called in the transaction."""


class Directory:
    """Reads and changes groups. Raises the errors of `store.errors`."""

    def __init__(
        self,
        database: Database,
        *,
        site: str,
        max_members: int,
        events_of: EventsOf,
        chat_of: Callable[[str], str],
    ):
        """`chat_of` makes the chat id of a group id."""
        self._database = database
        self._chat_of = chat_of
        self._groups = database["groups"]
        self._members = database["members"]
        self._outbox = database["outbox"]
        self._chats = database["chats"]
        self._site = site
        self._max_members = max_members
        self._events_of = events_of

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            await self._members.create_index([("group", 1), ("user", 1)], unique=True)
            await self._members.create_index([("user", 1), ("group", 1), ("kind", 1), ("since", 1)])
            await self._groups.create_index(
                [("created_by", 1), ("client_id", 1)],
                unique=True,
                partialFilterExpression={"client_id": {"$exists": True}},
            )

    # --- questions ---

    async def groups_of(self, users: list[str]) -> dict[str, dict[str, Kind]]:
        """For each user: group id to kind, of every group that the user is in.

        A session keeps to the answer for its whole life. So it is read in a transaction, whose end
        waits for a majority: a primary that was cut off, and does not know yet that there is
        another one, gives no answer instead of an old one.
        """

        async def read(session: Session) -> dict[str, dict[str, Kind]]:
            found: dict[str, dict[str, Kind]] = {user: {} for user in users}
            fields = {"_id": 0, "user": 1, "group": 1, "kind": 1}
            cursor = self._members.find({"user": {"$in": users}}, fields, session=session)
            async for each in cursor:
                found[each["user"]][each["group"]] = each["kind"]
            return found

        return await self._database.transaction(read)

    async def larger_than(self, size: int, groups: list[str]) -> list[str]:
        """Those of the groups that have more members."""
        if not groups:
            return []
        with self._database.errors():
            query = {"_id": {"$in": groups}, "size": {"$gt": size}}
            return [each["_id"] async for each in self._groups.find(query, {"_id": 1})]

    async def sharing(self, user: str, others: list[str]) -> list[str]:
        """Those of the others who are in a group with the user; both reads stay in the index."""
        with self._database.errors():
            own = self._members.find({"user": user}, {"_id": 0, "group": 1})
            groups = [each["group"] async for each in own]
            if not groups:
                return []
            query = {"user": {"$in": others}, "group": {"$in": groups}}
            found: list[str] = await self._members.distinct("user", query)
            return found

    async def written(self, chats: list[str]) -> set[str]:
        """Those of the chats in which there ever was a message, by their ids."""
        with self._database.errors():
            found = self._chats.find({"_id": {"$in": chats}}, {"_id": 1})
            return {each["_id"] async for each in found}

    async def member_ids(self, group_id: str, *, limit: int) -> list[str]:
        """The members of a group, at most `limit`; the read stays in the index."""
        with self._database.errors():
            cursor = self._members.find({"group": group_id}, {"_id": 0, "user": 1}).limit(limit)
            return [each["user"] async for each in cursor]

    async def info(self, by: str, group_id: str) -> GroupRecord:
        """Describe a group to a member, a channel to anyone."""
        with self._database.errors():
            group = await self._require(group_id, None)
            if group["kind"] == "group":
                await self._role(group_id, by, None)
            return await self._record(group, None)

    async def role(self, group_id: str, user: str) -> Role:
        """A member's role. Raises `NotMember`."""
        with self._database.errors():
            return await self._role(group_id, user, None)

    async def members(
        self, by: str, group_id: str, *, after: str | None, limit: int
    ) -> tuple[list[tuple[str, Role]], bool]:
        """Members in order of user id after `after`, and whether there are more."""
        with self._database.errors():
            group = await self._require(group_id, None)
            if group["kind"] == "group":
                await self._role(group_id, by, None)
            query: Document = {"group": group_id}
            if after is not None:
                query["user"] = {"$gt": after}
            cursor = self._members.find(query, {"user": 1, "role": 1}).sort("user", 1)
            found = [(each["user"], each["role"]) async for each in cursor.limit(limit + 1)]
            return found[:limit], len(found) > limit

    # --- changes ---

    async def create(
        self, by: str, *, client_id: str, name: str, users: list[str], kind: Kind, group_id: str
    ) -> Change:
        """Create a group with `by` as owner, or answer the one made with this `client_id`."""
        with self._database.errors():
            made = await self._groups.find_one({"created_by": by, "client_id": client_id})
            if made is not None:
                return Change(await self._record(made, None), by, [], [])
        everyone = list(dict.fromkeys([by, *users]))
        self._check_size(kind, len(everyone))

        async def work(session: Session) -> Change:
            group = {
                "_id": group_id,
                "name": name,
                "kind": kind,
                "home": self._site,
                "size": len(everyone),
                "version": 1,
                "created_by": by,
                "client_id": client_id,
                "created_at": _now_ms(),
            }
            await self._groups.insert_one(group, session=session)
            await self._insert_members(group, everyone, session, owner=by)
            return await self._tell(group, session, by=by, added=everyone)

        try:
            return await self._database.transaction(work)
        except DuplicateKeyError:
            with self._database.errors():
                made = await self._groups.find_one({"created_by": by, "client_id": client_id})
                if made is not None:
                    return Change(await self._record(made, None), by, [], [])
            raise DuplicateGroup(f"there is already a group {group_id!r}") from None

    async def add(self, by: str, group_id: str, users: list[str]) -> Change:
        """Add users; those who are members already are passed over."""

        async def work(session: Session) -> Change:
            group = await self._begin(group_id, session)
            await self._manager(group_id, by, session)
            return await self._join(group, by, users, session)

        return await self._database.transaction(work)

    async def join(self, by: str, group_id: str) -> Change:
        """Join a channel; a group can only be joined by being added."""

        async def work(session: Session) -> Change:
            group = await self._begin(group_id, session)
            if group["kind"] != "channel":
                raise Forbidden("a group can be joined only by being added")
            # Nobody else could make one: who comes into an empty channel owns it.
            owner = by if not group["size"] else None
            return await self._join(group, by, [by], session, owner=owner)

        return await self._database.transaction(work)

    async def remove(self, by: str, group_id: str, users: list[str]) -> Change:
        """Remove users; those who are no members are passed over."""

        async def work(session: Session) -> Change:
            group = await self._begin(group_id, session)
            role = await self._manager(group_id, by, session)
            query = {"group": group_id, "user": {"$in": users}, "role": "owner"}
            if role != "owner" and await self._members.find_one(query, session=session):
                raise Forbidden("only an owner removes an owner")
            return await self._part(group, by, users, session)

        return await self._database.transaction(work)

    async def leave(self, by: str, group_id: str) -> Change:
        """Leave. When the last owner leaves, the first admin, else member, becomes owner."""

        async def work(session: Session) -> Change:
            group = await self._begin(group_id, session)
            await self._role(group_id, by, session)
            return await self._part(group, by, [by], session)

        return await self._database.transaction(work)

    async def update(
        self, by: str, group_id: str, *, name: str | None, roles: dict[str, Role] | None
    ) -> Change:
        """Change the name or roles. Only owners make or unmake owners; one always stays."""

        async def work(session: Session) -> Change:
            group = await self._begin(group_id, session)
            role = await self._manager(group_id, by, session)
            if roles:
                await self._set_roles(group_id, role, roles, session)
            if name is not None:
                await self._groups.update_one(
                    {"_id": group_id}, {"$set": {"name": name}}, session=session
                )
                group["name"] = name
            return await self._tell(group, session, by=by, name=name, roles=roles)

        return await self._database.transaction(work)

    async def mute(self, by: str, group_id: str, *, mute: bool) -> GroupRecord:
        """Set the asker's own `mute` in a group."""
        with self._database.errors():
            group = await self._require(group_id, None)
            await self._role(group_id, by, None)
            await self._members.update_one(
                {"group": group_id, "user": by}, {"$set": {"mute": mute}}
            )
            return await self._record(group, None)

    # --- the outbox ---

    async def unpublished(self, group_id: str) -> list[OutboxEntry]:
        """What a group still has to tell, in order of version."""
        with self._database.errors():
            cursor = self._outbox.find({"_id.group": group_id}).sort("_id.version", 1)
            return [_entry(each) async for each in cursor]

    async def groups_with_unpublished(self, older_than_s: float) -> list[str]:
        """Groups whose events were left behind, by a worker that died or lost NATS."""
        with self._database.errors():
            limit = _now_ms() - int(older_than_s * 1000)
            found: list[str] = await self._outbox.distinct("_id.group", {"at": {"$lt": limit}})
            return found

    async def untold(self, subjects: list[str]) -> list[bytes]:
        """The events on these subjects that are still to be told: normally none."""
        wanted = {"events": {"$elemMatch": {"$elemMatch": {"$in": subjects}}}}
        with self._database.errors():
            entries = [_entry(each) async for each in self._outbox.find(wanted).limit(UNTOLD)]
        return [data for entry in entries for subject, data in entry.events if subject in subjects]

    async def published(self, entry: OutboxEntry) -> None:
        """These events are in the log."""
        with self._database.errors():
            key = {"group": entry.group_id, "version": entry.version}
            await self._outbox.delete_one({"_id": key})

    # --- inside a transaction ---

    async def _begin(self, group_id: str, session: Session) -> Document:
        """Raise the version: takes the group for this transaction."""
        group: Document | None = await self._groups.find_one_and_update(
            {"_id": group_id},
            {"$inc": {"version": 1}},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if group is None:
            raise NotFound(f"there is no group {group_id!r}")
        return group

    async def _require(self, group_id: str, session: Session) -> Document:
        group: Document | None = await self._groups.find_one({"_id": group_id}, session=session)
        if group is None:
            raise NotFound(f"there is no group {group_id!r}")
        return group

    async def _role(self, group_id: str, user: str, session: Session) -> Role:
        query = {"group": group_id, "user": user}
        member = await self._members.find_one(query, session=session)
        if member is None:
            raise NotMember(f"{user!r} is not in the group {group_id!r}")
        role: Role = member["role"]
        return role

    async def _manager(self, group_id: str, user: str, session: Session) -> Role:
        role = await self._role(group_id, user, session)
        if role not in _MANAGERS:
            raise Forbidden("only owners and admins may do this")
        return role

    def _check_size(self, kind: Kind, size: int) -> None:
        if kind == "group" and size > self._max_members:
            raise GroupFull(f"a group has at most {self._max_members} members; use a channel")

    async def _join(
        self,
        group: Document,
        by: str,
        users: list[str],
        session: Session,
        *,
        owner: str | None = None,
    ) -> Change:
        wanted = list(dict.fromkeys(users))
        query = {"group": group["_id"], "user": {"$in": wanted}}
        present = {each["user"] async for each in self._members.find(query, session=session)}
        added = [user for user in wanted if user not in present]
        self._check_size(group["kind"], group["size"] + len(added))
        await self._insert_members(group, added, session, owner=owner)
        await self._resize(group, len(added), session)
        roles: dict[str, Role] | None = {owner: "owner"} if owner else None
        return await self._tell(group, session, by=by, added=added, roles=roles)

    async def _part(self, group: Document, by: str, users: list[str], session: Session) -> Change:
        query = {"group": group["_id"], "user": {"$in": users}}
        leaving = {each["user"] async for each in self._members.find(query, session=session)}
        removed = [user for user in dict.fromkeys(users) if user in leaving]
        await self._members.delete_many(query, session=session)
        await self._resize(group, -len(removed), session)
        roles = await self._succeed(group["_id"], session) if removed else None
        return await self._tell(group, session, by=by, removed=removed, roles=roles)

    async def _succeed(self, group_id: str, session: Session) -> dict[str, Role] | None:
        for role in ("owner", "admin", "member"):
            query = {"group": group_id, "role": role}
            first = await self._members.find_one(query, sort=[("user", 1)], session=session)
            if first is None:
                continue
            if role == "owner":
                return None
            await self._members.update_one(
                {"_id": first["_id"]}, {"$set": {"role": "owner"}}, session=session
            )
            return {first["user"]: "owner"}
        return None

    async def _set_roles(
        self, group_id: str, own: Role, roles: dict[str, Role], session: Session
    ) -> None:
        for user, role in roles.items():
            present = await self._role(group_id, user, session)
            if "owner" in (present, role) and own != "owner":
                raise Forbidden("only an owner makes or unmakes an owner")
            await self._members.update_one(
                {"group": group_id, "user": user}, {"$set": {"role": role}}, session=session
            )
        query = {"group": group_id, "role": "owner"}
        if await self._members.find_one(query, session=session) is None:
            raise Forbidden("a group keeps at least one owner")

    async def _insert_members(
        self,
        group: Document,
        users: list[str],
        session: Session,
        *,
        owner: str | None = None,
    ) -> None:
        # What was said before is there to be read, but is not unread to those who come.
        chat = await self._chats.find_one({"_id": self._chat_of(group["_id"])}, session=session)
        since = 0 if chat is None else chat.get("seq", 0)
        documents = [
            {
                "group": group["_id"],
                "user": user,
                "kind": group["kind"],
                "role": "owner" if user == owner else "member",
                "since": since,
            }
            for user in users
        ]
        for start in range(0, len(documents), INSERT_BATCH):
            part = documents[start : start + INSERT_BATCH]
            await self._members.insert_many(part, session=session)

    async def _resize(self, group: Document, by: int, session: Session) -> None:
        group["size"] += by
        await self._groups.update_one(
            {"_id": group["_id"]}, {"$set": {"size": group["size"]}}, session=session
        )

    async def _tell(
        self,
        group: Document,
        session: Session,
        *,
        by: str,
        added: list[str] | None = None,
        removed: list[str] | None = None,
        name: str | None = None,
        roles: dict[str, Role] | None = None,
    ) -> Change:
        record = await self._record(group, session)
        change = Change(record, by, added or [], removed or [], name, roles)
        if change.happened:
            entry = {
                "_id": {"group": record.group_id, "version": record.version},
                "at": _now_ms(),
                "events": [list(event) for event in self._events_of(change)],
            }
            await self._outbox.insert_one(entry, session=session)
        return change

    async def _record(self, group: Document, session: Session) -> GroupRecord:
        cursor = self._members.find({"group": group["_id"]}, {"user": 1}, session=session)
        listed = [each["user"] async for each in cursor.sort("user", 1).limit(LISTED_MEMBERS)]
        return GroupRecord(
            group["_id"],
            group["name"],
            group["kind"],
            group["home"],
            group["size"],
            group["version"],
            group["created_by"],
            listed,
        )


def _entry(document: Document) -> OutboxEntry:
    key = document["_id"]
    events = [(subject, bytes(data)) for subject, data in document["events"]]
    return OutboxEntry(key["group"], key["version"], events, document["at"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
