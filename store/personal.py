"""What MongoDB and the archive hold about one person: found page by page, and forgotten."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne

from . import bulk
from .archive_files import Files, Place
from .archive_hot import Hot
from .archive_manifest import Manifest
from .archive_objects import Objects
from .archive_rows import merged
from .database import Database, Document
from .reads import ReadRecord

PAGE = 500
SCANNED = 5000


class Membership(NamedTuple):
    """A group that the user is in."""

    group_id: str
    name: str
    kind: str
    role: str


class Personal:
    """Reads of a whole person. To miss nothing, hold the lease of the archive while reading."""

    def __init__(self, database: Database, objects: Objects, *, chat_of: Callable[[str], str]):
        self._database = database
        self._messages = database["messages"]
        self._members = database["members"]
        self._groups = database["groups"]
        self._chats = database["chats"]
        self._reads = database["reads"]
        self._manifest = Manifest(database)
        self._hot = Hot(database)
        self._files = Files(objects)
        self._chat_of = chat_of

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        await self._manifest.ensure()
        with self._database.errors():
            await self._reads.create_index([("_id.user", 1), ("_id.chat", 1)], name="user")

    # --- messages ---

    async def sent(self, user: str) -> AsyncIterator[Document]:
        """Every message of the user, in MongoDB and in the archive."""
        last = ""
        while True:
            query = {"from": user, "client_id": {"$gt": last}}
            with self._database.errors():
                cursor = self._messages.find(query).sort("client_id", 1)
                found = await cursor.limit(PAGE).to_list(PAGE)
            if not found:
                break
            for each in found:
                yield each
            last = found[-1]["client_id"]
        async for each in self._archived(lambda row: row.get("from") == user):
            yield each

    async def reacted(self, user: str) -> AsyncIterator[Document]:
        """Every message that the user has reacted to, also where that was taken back."""
        last = 0
        while True:
            query = {"_id": {"$gt": Int64(last)}}
            with self._database.errors():
                cursor = self._messages.find(query, {"reactions": 1, "chat": 1, "at": 1})
                found = await cursor.sort("_id", 1).limit(SCANNED).to_list(SCANNED)
            if not found:
                break
            for each in found:
                if "at" in each and reactions_of(each, user):
                    yield each
            last = int(found[-1]["_id"])
        async for each in self._archived(lambda row: bool(reactions_of(row, user))):
            yield each

    async def _archived(self, wanted: Callable[[Document], bool]) -> AsyncIterator[Document]:
        async for entry in self._manifest.entries():
            async for group in self._files.groups(Place(entry.key, entry.size, entry.footer)):
                changes = await self._hot.changes_of(int(each["_id"]) for each in group)
                for row in group:
                    key = int(row["_id"])
                    each = merged(row, changes[key]) if key in changes else row
                    if wanted(each):
                        yield each

    async def forget_reactions(self, user: str) -> int:
        """Remove the user's reactions from the messages in MongoDB; from how many."""
        changed = last = 0
        while True:
            query = {"_id": {"$gt": Int64(last)}}
            with self._database.errors():
                cursor = self._messages.find(query, {"reactions": 1}).sort("_id", 1)
                found = await cursor.limit(SCANNED).to_list(SCANNED)
            if not found:
                return changed
            updates = []
            for each in found:
                keys = reactions_of(each, user)
                if keys:
                    unset = {f"reactions.{key}": 1 for key in keys}
                    updates.append(UpdateOne({"_id": each["_id"]}, {"$unset": unset}))
            await bulk.write(self._database, self._messages, updates)
            changed += len(updates)
            last = int(found[-1]["_id"])

    # --- chats, groups, pointers ---

    async def memberships(self, user: str) -> AsyncIterator[Membership]:
        """The user's groups, with the role in them."""
        last = ""
        while True:
            query = {"user": user, "group": {"$gt": last}}
            with self._database.errors():
                cursor = self._members.find(query).sort("group", 1).limit(PAGE)
                found = await cursor.to_list(PAGE)
                ids = [each["group"] for each in found]
                groups = self._groups.find({"_id": {"$in": ids}}, {"name": 1})
                named = {each["_id"]: each["name"] async for each in groups}
            if not found:
                return
            for each in found:
                name = named.get(each["group"], "")
                yield Membership(each["group"], name, each["kind"], each["role"])
            last = found[-1]["group"]

    async def created(self, user: str) -> AsyncIterator[Document]:
        """The groups that the user made."""
        with self._database.errors():
            async for each in self._groups.find({"created_by": user}, {"name": 1}).sort("_id", 1):
                yield {"group_id": each["_id"], "name": each["name"]}

    async def forget_created(self, user: str) -> int:
        """Groups no longer say that the user made them; how many."""
        change = {"$set": {"created_by": ""}, "$unset": {"client_id": ""}}
        with self._database.errors():
            done = await self._groups.update_many({"created_by": user}, change)
        return int(done.modified_count)

    async def conversations(self, user: str) -> AsyncIterator[str]:
        """The user's conversations of two."""
        last = ""
        while True:
            query = {"users": user, "_id": {"$gt": last}}
            with self._database.errors():
                cursor = self._chats.find(query, {"_id": 1}).sort("_id", 1).limit(PAGE)
                found = await cursor.to_list(PAGE)
            if not found:
                return
            for each in found:
                yield each["_id"]
            last = found[-1]["_id"]

    async def pointers(self, user: str) -> AsyncIterator[ReadRecord]:
        """Up to where the user has read each chat."""
        last = ""
        while True:
            query = {"_id.user": user, "_id.chat": {"$gt": last}}
            with self._database.errors():
                cursor = self._reads.find(query).sort("_id.chat", 1).limit(PAGE)
                found = await cursor.to_list(PAGE)
            if not found:
                return
            for each in found:
                chat = each["_id"]["chat"]
                yield ReadRecord(chat, user, int(each["seq"]), each["message_id"])
            last = found[-1]["_id"]["chat"]

    async def forget_pointers(self, user: str) -> int:
        """Remove the mirrored read pointers; how many there were."""
        with self._database.errors():
            done = await self._reads.delete_many({"_id.user": user})
        return int(done.deleted_count)


def reactions_of(document: Document, user: str) -> dict[str, Any]:
    """The user's reactions to a message, by the names of their fields."""
    return {
        key: each
        for key, each in document.get("reactions", {}).items()
        if isinstance(each, dict) and each.get("user") == user
    }


def without_reactions(user: str) -> Callable[[Document], Document]:
    """Makes of a message the same without the user's reactions."""

    def scrub(document: Document) -> Document:
        mine = reactions_of(document, user)
        if not mine:
            return document
        left = {key: each for key, each in document["reactions"].items() if key not in mine}
        changed = {**document, "reactions": left}
        if not left:
            del changed["reactions"]
        return changed

    return scrub
