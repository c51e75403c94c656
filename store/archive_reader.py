"""Reads archived messages for `store.history`, with the changes that came after archiving.

Whoever reads asks MongoDB first and the archive then: a message leaves MongoDB only when the
manifest has it. A file may be replaced while it is read, then its changes may have gone into the
new one: what was read counts only if all files are still in the manifest afterwards.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import msgspec
from bson.int64 import Int64

from . import archive_rows
from .archive_files import Files, Place, Wanted
from .archive_manifest import Manifest, Part, Thread
from .archive_objects import Gone, Objects
from .database import Database, Document
from .errors import StoreUnavailable

ATTEMPTS = 5

_T = TypeVar("_T")


class Range(NamedTuple):
    """Which messages of a chat; like `store.history.Window`."""

    chat_id: str
    before: int | None
    after: int | None
    thread: int | None
    limit: int
    oldest: bool


class Reader:
    """Raises `StoreUnavailable`."""

    def __init__(self, database: Database, objects: Objects):
        self._database = database
        self._messages = database["messages"]
        self._chats = database["archive_chats"]
        self._entries = database["archives"]
        self._manifest = Manifest(database)
        self.files = Files(objects)

    async def page(self, wanted: Range) -> list[Document]:
        """Up to `limit` messages in the range, in order of seq from the end asked for."""
        return await self._settled(lambda used: self._page(wanted, used))

    async def message(self, chat_id: str, message_id: int) -> Document | None:
        """One message of a chat, or None."""
        found = await self._settled(lambda used: self._find(chat_id, [message_id], used))
        return found[0] if found else None

    async def replies(
        self, chat_id: str, roots: list[int], up_to: int, *, deleted: set[int]
    ) -> dict[int, int]:
        """How many archived messages, that are not deleted, are in the threads of these roots."""
        return await self._settled(lambda used: self._replies(chat_id, roots, up_to, deleted, used))

    async def _settled(self, read: Callable[[set[str]], Awaitable[_T]]) -> _T:
        for _ in range(ATTEMPTS):
            used: set[str] = set()
            try:
                found = await read(used)
            except Gone as gone:
                if used and await self._manifest.present(used):
                    raise StoreUnavailable(f"the archive has lost a file: {gone}") from gone
                continue
            if not used or await self._manifest.present(used):
                return found
        raise StoreUnavailable("the archive is being rewritten; ask again")

    # --- pages ---

    async def _page(self, wanted: Range, used: set[str]) -> list[Document]:
        found: list[Document] = []
        sign = 1 if wanted.oldest else -1
        rows = Wanted(wanted.chat_id, wanted.before, wanted.after, wanted.thread)
        async with aclosing(self._parts(wanted)) as parts:
            async for part in parts:
                if len(found) == wanted.limit and _beyond(part, found[-1]["seq"], wanted.oldest):
                    break
                used.add(part.file)
                found += await self.files.newest(
                    place(part), _groups(part), rows, limit=wanted.limit, oldest=wanted.oldest
                )
                found.sort(key=lambda each: sign * int(each["seq"]))
                del found[wanted.limit :]
        return await self._changed(found)

    async def _parts(self, wanted: Range) -> AsyncGenerator[Part, None]:
        """The parts of files that overlap the range, in the order in which it is read."""
        query: Document = {"chat": wanted.chat_id}
        if wanted.before is not None:
            query["min_seq"] = {"$lt": Int64(wanted.before)}
        if wanted.after is not None:
            query["max_seq"] = {"$gt": Int64(wanted.after)}
        fields: Document = {"_id": 0, "threads": 0}
        if wanted.thread is not None:
            query["threads.id"] = Int64(wanted.thread)
            listed = {"id": Int64(wanted.thread)}
            fields = {"_id": 0, "threads": {"$elemMatch": listed}}
            fields.update(dict.fromkeys(Part.__struct_fields__[:-1], 1))
        order = ("min_seq", 1) if wanted.oldest else ("max_seq", -1)
        with self._database.errors():
            async for each in self._chats.find(query, fields).sort(*order):
                yield msgspec.convert(each, Part)

    async def _changed(self, rows: list[Document]) -> list[Document]:
        """The rows with the changes that are in MongoDB."""
        if not rows:
            return rows
        with self._database.errors():
            query = {"_id": {"$in": [Int64(each["_id"]) for each in rows]}}
            changes = {each["_id"]: each async for each in self._messages.find(query)}
        return [
            archive_rows.merged(each, changes[each["_id"]]) if each["_id"] in changes else each
            for each in rows
        ]

    async def _find(self, chat_id: str, message_ids: list[int], used: set[str]) -> list[Document]:
        low, high = Int64(min(message_ids)), Int64(max(message_ids))
        query = {"chat": chat_id, "min_id": {"$lte": high}, "max_id": {"$gte": low}}
        async for part in self._manifest.parts(query):
            used.add(part.file)
            rows = Wanted(chat_id, ids=tuple(message_ids))
            found = await self.files.newest(
                place(part), _groups(part), rows, limit=len(message_ids), oldest=False
            )
            if found:
                return await self._changed(found)
        return []

    # --- threads ---

    async def _replies(
        self, chat_id: str, roots: list[int], up_to: int, deleted: set[int], used: set[str]
    ) -> dict[int, int]:
        counts: dict[int, int] = {}
        parts = await self._threads(chat_id, roots)
        if not parts:
            return counts
        dirty = await self._dirty(chat_id, [part.file for part in parts])
        for part in parts:
            if deleted or dirty is None or part.file in dirty or part.max_seq > up_to:
                used.add(part.file)
                found = await self._count(part, up_to, deleted)
            else:
                found = {each.id: each.replies for each in part.threads}
            for root, count in found.items():
                counts[root] = counts.get(root, 0) + count
        return {root: count for root, count in counts.items() if count}

    async def _threads(self, chat_id: str, roots: list[int]) -> list[Part]:
        """The parts of files that have these threads, with nothing about other threads."""
        wanted = [Int64(root) for root in roots]
        listed = {"input": "$threads", "cond": {"$in": ["$$this.id", wanted]}}
        pipeline: list[Document] = [
            {"$match": {"chat": chat_id, "threads.id": {"$in": wanted}}},
            {"$set": {"threads": {"$filter": listed}}},
            {"$unset": "_id"},
        ]
        with self._database.errors():
            return [msgspec.convert(each, Part) async for each in self._chats.aggregate(pipeline)]

    async def _dirty(self, chat_id: str, files: Iterable[str]) -> set[str] | None:
        """Files whose counts may be too high now; None means all.

        An archived message was deleted and its file not yet rewritten, or the messages of a file
        may still be in MongoDB too.
        """
        with self._database.errors():
            deleted = {"of": chat_id, "deleted_seq": {"$exists": True}}
            if await self._messages.find_one(deleted, {"_id": 1}) is not None:
                return None
            query = {"_id": {"$in": list(files)}, "hot": True}
            return {each["_id"] async for each in self._entries.find(query, {"_id": 1})}

    async def _count(self, part: Part, up_to: int, deleted: set[int]) -> dict[int, int]:
        """Replies by thread, counted message by message; those that MongoDB has are not ours."""
        counts: dict[int, int] = {}
        for thread in part.threads:
            wanted = Wanted(part.chat, before=up_to + 1, thread=thread.id)
            rows = await self.files.newest(
                place(part), _span(thread), wanted, limit=part.rows, oldest=False
            )
            counted = {each["_id"] for each in rows if "deleted_seq" not in each} - deleted
            ids = [Int64(each) for each in counted]
            not_ours = [{"at": {"$exists": True}}, {"deleted_seq": {"$exists": True}}]
            with self._database.errors():
                query = {"_id": {"$in": ids}, "$or": not_ours}
                counts[thread.id] = len(ids) - await self._messages.count_documents(query)
        return counts

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        await self._manifest.ensure()
        with self._database.errors():
            await self._messages.create_index(
                [("of", 1), ("deleted_seq", 1)],
                partialFilterExpression={"of": {"$exists": True}},
                name="changes",
            )


def place(part: Part) -> Place:
    """Where the file of a part is."""
    return Place(part.file, part.size, part.footer)


def _groups(part: Part) -> range:
    if part.threads:
        return _span(part.threads[0])
    return range(part.first, part.last + 1)


def _span(thread: Thread) -> range:
    return range(thread.first, thread.last + 1)


def _beyond(part: Part, seq: int, oldest: bool) -> bool:
    """Whether a part has nothing before the last row found so far."""
    return part.min_seq > seq if oldest else part.max_seq < seq
