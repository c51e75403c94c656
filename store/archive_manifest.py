"""The manifest of the archive: which files there are, and which part of which chat is in them.

Collections: `archives` (`_id` key: one entry for each file, the authority), `archive_chats` (one
for each chat in a file), `archive_garbage` (`_id` key: objects that no entry needs any more, or not
yet), `leases` (who runs the archive).

A file is never changed. `commit` puts a new one in the place of an old one in one transaction, and
only for the holder of the lease. A new file is garbage until then and the old one from then on, so
that whoever dies in between leaves nothing behind that is not known.
"""

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from bson.int64 import Int64
from msgspec import Struct

from .archive_rows import Packed
from .database import Database, Document, Session
from .errors import StoreError

LEASE = "archive"
LEASE_MS = 60_000
INSERTED = 1000
PAGE = 100
SWEPT = 10_000


class LeaseLost(StoreError):
    """Another process runs the archive now; what this one was doing was not committed."""

    retryable = True


class Thread(Struct, frozen=True):
    """A thread in a part of a file: replies that are not deleted, groups from first to last."""

    id: int
    replies: int
    first: int
    last: int


class Part(Struct, frozen=True, kw_only=True):
    """A chat's part of a file: row groups `first` to `last` have it, perhaps with other chats."""

    file: str
    chat: str
    size: int
    footer: int
    rows: int
    first: int
    last: int
    min_seq: int
    max_seq: int
    min_id: int
    max_id: int
    threads: list[Thread] = []


class Entry(Struct, frozen=True, kw_only=True):
    """One file. `hot`: its messages may still be in MongoDB too. `open`: it has room for more."""

    key: str
    bucket: int
    rows: int
    size: int
    footer: int
    groups: int
    sha256: str
    content: str
    min_id: int
    max_id: int
    open: bool
    hot: bool
    created_at: int
    replaces: list[str] = []


class Listed(Struct, frozen=True, kw_only=True):
    """The copy of the manifest that lies beside a file."""

    entry: Entry
    chats: list[Part]


def copy_key(key: str) -> str:
    """The key of the manifest's copy beside a file."""
    return f"{key}.json"


def parts_of(key: str, packed: Packed) -> list[Part]:
    """What `archive_chats` says about a file."""
    found: list[Part] = []
    threads: dict[int, list[int]] = {}
    present: dict[str, Any] = {}

    def finish() -> None:
        listed = [Thread(root, *rest) for root, rest in sorted(threads.items())]
        found.append(Part(**present, threads=listed))
        threads.clear()

    for number, group in enumerate(packed.groups):
        for each in group.documents:
            seq, message_id = int(each["seq"]), int(each["_id"])
            if present.get("chat") != each["chat"]:
                if present:
                    finish()
                present = {
                    "file": key,
                    "chat": each["chat"],
                    "size": len(packed.data),
                    "footer": packed.footer,
                    "rows": 0,
                    "first": number,
                    "min_seq": seq,
                    "min_id": message_id,
                    "max_id": message_id,
                }
            present["rows"] += 1
            present["last"] = number
            present["max_seq"] = seq
            present["min_id"] = min(present["min_id"], message_id)
            present["max_id"] = max(present["max_id"], message_id)
            if "thread" in each:
                thread = threads.setdefault(int(each["thread"]), [0, number, number])
                thread[0] += "deleted_seq" not in each
                thread[2] = number
    if present:
        finish()
    return found


class Manifest:
    """Reads and changes the manifest. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._entries = database["archives"]
        self._chats = database["archive_chats"]
        self._garbage = database["archive_garbage"]
        self._leases = database["leases"]

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            await self._entries.create_index([("bucket", 1), ("max_id", -1)], name="open")
            await self._entries.create_index([("max_id", -1)], name="newest")
            await self._chats.create_index(
                [("chat", 1), ("max_seq", -1), ("min_seq", 1)], name="newest"
            )
            await self._chats.create_index(
                [("chat", 1), ("min_seq", 1), ("max_seq", 1)], name="oldest"
            )
            await self._chats.create_index([("chat", 1), ("threads.id", 1)], name="threads")
            await self._chats.create_index([("file", 1), ("chat", 1)], unique=True, name="file")
            await self._database["groups"].create_index(
                [("retention_days", 1)],
                partialFilterExpression={"retention_days": {"$exists": True}},
                name="retention",
            )

    # --- entries ---

    async def entry(self, key: str) -> Entry | None:
        """The entry of a file, or None."""
        with self._database.errors():
            found = await self._entries.find_one({"_id": key})
        return None if found is None else _entry(found)

    async def entries(self, query: Document | None = None) -> AsyncIterator[Entry]:
        """Entries in order of key, read in pages, since between two of them hours may pass."""
        last = ""
        while True:
            with self._database.errors():
                cursor = self._entries.find({"_id": {"$gt": last}, **(query or {})})
                found = await cursor.sort("_id", 1).limit(PAGE).to_list(PAGE)
            if not found:
                return
            for each in found:
                yield _entry(each)
            last = found[-1]["_id"]

    async def open_entry(self, bucket: int) -> Entry | None:
        """The file of a bucket that has room for more."""
        with self._database.errors():
            query = {"bucket": bucket, "open": True}
            found = await self._entries.find_one(query, sort=[("max_id", -1)])
        return None if found is None else _entry(found)

    async def parts(self, query: Document) -> AsyncIterator[Part]:
        """Chats in files, without their threads, the newest messages first."""
        with self._database.errors():
            cursor = self._chats.find(query, {"_id": 0, "threads": 0})
            async for each in cursor.sort("max_seq", -1):
                yield msgspec.convert(each, Part)

    async def holding(self, chat_id: str, message_ids: list[int]) -> set[str]:
        """The files that may hold any of these messages of a chat."""
        query = {
            "chat": chat_id,
            "min_id": {"$lte": Int64(max(message_ids))},
            "max_id": {"$gte": Int64(min(message_ids))},
        }
        found: set[str] = set()
        async for part in self.parts(query):
            if any(part.min_id <= each <= part.max_id for each in message_ids):
                found.add(part.file)
        return found

    async def highest_id(self) -> int:
        """The newest message id in any file, or 0."""
        with self._database.errors():
            found = await self._entries.find_one({}, {"max_id": 1}, sort=[("max_id", -1)])
        return 0 if found is None else int(found["max_id"])

    async def present(self, keys: Iterable[str]) -> bool:
        """Whether all these files are still in the manifest."""
        wanted = list(set(keys))
        with self._database.errors():
            count: int = await self._entries.count_documents({"_id": {"$in": wanted}})
        return count == len(wanted)

    async def whole_parts(self, key: str) -> list[Part]:
        """Everything about the chats of one file."""
        with self._database.errors():
            cursor = self._chats.find({"file": key}, {"_id": 0})
            return [msgspec.convert(each, Part) async for each in cursor]

    async def knows(self, key: str) -> bool:
        """Whether an object belongs to the manifest, or is known to be garbage."""
        if await self.lists(key):
            return True
        with self._database.errors():
            return await self._garbage.find_one({"_id": key}) is not None

    async def lists(self, key: str) -> bool:
        """Whether an object is a file of the manifest, or the copy beside one."""
        with self._database.errors():
            file = key.removesuffix(copy_key(""))
            return await self._entries.find_one({"_id": file}, {"_id": 1}) is not None

    async def replaced_by(self, key: str) -> bool:
        """Whether a file of the manifest was put in the place of this one."""
        with self._database.errors():
            return await self._entries.find_one({"replaces": key}, {"_id": 1}) is not None

    # --- changes ---

    async def begin(self, keys: list[str], owner: str) -> None:
        """These objects are about to be written; they are garbage until they are committed."""
        now = time.time_ns() // 1_000_000
        with self._database.errors():
            documents = [{"_id": key, "owner": owner, "at": now} for key in keys]
            await self._garbage.insert_many(documents)

    async def forsake(self, keys: list[str], owner: str) -> None:
        """These objects were not committed and will not be; whoever runs next deletes them."""
        now = time.time_ns() // 1_000_000
        with self._database.errors():
            for key in keys:
                made = {"$setOnInsert": {"owner": owner, "at": now}}
                await self._garbage.update_one({"_id": key}, made, upsert=True)

    async def commit(self, new: Listed | None, old: Entry | None, owner: str) -> None:
        """Put a file in the place of another; either may be none. Raises `LeaseLost`."""

        async def work(session: Session) -> None:
            await self._fence(owner, session)
            if old is not None:
                await self._remove(old, owner, session)
            if new is not None:
                await self._insert(new, session)

        await self._database.transaction(work)

    async def _fence(self, owner: str, session: Session) -> None:
        held = await self._leases.update_one(
            {"_id": LEASE, "owner": owner}, {"$inc": {"commits": 1}}, session=session
        )
        if held.matched_count == 0:
            raise LeaseLost("another process runs the archive now")

    async def _remove(self, old: Entry, owner: str, session: Session) -> None:
        removed = await self._entries.delete_one({"_id": old.key}, session=session)
        if removed.deleted_count == 0:
            raise LeaseLost(f"{old.key} is no longer in the manifest")
        await self._chats.delete_many({"file": old.key}, session=session)
        now = time.time_ns() // 1_000_000
        for key in (old.key, copy_key(old.key)):
            await self._garbage.insert_one({"_id": key, "owner": owner, "at": now}, session=session)

    async def _insert(self, new: Listed, session: Session) -> None:
        document = msgspec.to_builtins(new.entry)
        document["_id"] = document.pop("key")
        await self._entries.insert_one(document, session=session)
        documents = [msgspec.to_builtins(part) for part in new.chats]
        for start in range(0, len(documents), INSERTED):
            await self._chats.insert_many(documents[start : start + INSERTED], session=session)
        keys = [new.entry.key, copy_key(new.entry.key)]
        await self._garbage.delete_many({"_id": {"$in": keys}}, session=session)

    async def cleared(self, key: str) -> None:
        """The messages of this file are no longer in MongoDB too."""
        with self._database.errors():
            await self._entries.update_one({"_id": key}, {"$set": {"hot": False}})

    # --- garbage ---

    async def garbage(self, owner: str) -> list[str]:
        """Keys of objects that are not needed, as the holder of the lease. Raises `LeaseLost`.

        Those who wrote them cannot commit any more, so they stay garbage whatever happens next.
        """

        async def work(session: Session) -> list[str]:
            await self._fence(owner, session)
            cursor = self._garbage.find({}, {"_id": 1}, session=session)
            return [each["_id"] async for each in cursor.limit(SWEPT)]

        return await self._database.transaction(work)

    async def swept(self, key: str) -> None:
        """This object is deleted."""
        with self._database.errors():
            await self._garbage.delete_one({"_id": key})


def _entry(document: Document) -> Entry:
    return msgspec.convert({"key": document["_id"], **document}, Entry)
