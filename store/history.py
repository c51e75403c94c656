"""Reads messages and chats for clients. Every read is by an index and bounded.

Raises `StoreUnavailable`. What is in the log but not yet here is the caller's to add.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

from bson.int64 import Int64

from .archive_reader import Range, Reader
from .archive_rows import merged
from .database import Database, Document

PREVIEW_CHARS = 200
COUNTED = 1000
COUNTED_AT_ONCE = 50


class Window(NamedTuple):
    """Which messages of a chat: with `before` and `after` exclusive. `oldest`: from that end."""

    chat_id: str
    before: int | None
    after: int | None
    thread: int | None
    limit: int
    oldest: bool


class ChatRecord(NamedTuple):
    """A chat of a user; `seq` is that of its last message, 0 if there is none."""

    chat_id: str
    seq: int
    name: str | None
    kind: str
    members: int


class History:
    """Reads the collections that `store.messages` and `store.directory` write."""

    def __init__(
        self, database: Database, *, chat_of: Callable[[str], str], archive: Reader | None = None
    ):
        """`chat_of` makes the chat id of a group id; `archive` has the older messages."""
        self._database = database
        self._archive = archive
        self._chat_of = chat_of
        self._messages = database["messages"]
        self._chats = database["chats"]
        self._members = database["members"]
        self._groups = database["groups"]

    async def message(self, chat_id: str, message_id: int) -> Document | None:
        """One message of a chat, or None."""
        with self._database.errors():
            query = {"_id": Int64(message_id), "chat": chat_id}
            found: Document | None = await self._messages.find_one(query)
        if found is None and self._archive is not None:
            return await self._archive.message(chat_id, message_id)
        return found

    async def messages(self, ids: Collection[int]) -> dict[int, Document]:
        """Those of these messages that are in MongoDB, whatever their chat."""
        query = {"_id": {"$in": [Int64(each) for each in ids]}, "at": {"$exists": True}}
        with self._database.errors():
            return {int(each["_id"]): each async for each in self._messages.find(query)}

    async def page(self, window: Window) -> list[Document]:
        """Up to `limit` messages in the window, in order of seq from the end asked for."""
        seq: Document = {}
        if window.before is not None:
            seq["$lt"] = Int64(window.before)
        if window.after is not None:
            seq["$gt"] = Int64(window.after)
        query: Document = {"chat": window.chat_id}
        if seq:
            query["seq"] = seq
        if window.thread is not None:
            query["thread"] = Int64(window.thread)
        with self._database.errors():
            cursor = self._messages.find(query).sort("seq", 1 if window.oldest else -1)
            found: list[Document] = await cursor.limit(window.limit).to_list(window.limit)
        return found if self._archive is None else await self._with_archived(window, found)

    async def _with_archived(self, window: Window, hot: list[Document]) -> list[Document]:
        """With those of the archive that are among the first `limit` of both."""
        assert self._archive is not None
        wanted = window
        if len(hot) == window.limit:
            last = int(hot[-1]["seq"])
            wanted = window._replace(before=last) if window.oldest else window._replace(after=last)
        archived = await self._archive.page(Range(*wanted))
        if not archived:
            return hot
        both = {int(each["_id"]): each for each in archived}
        for each in hot:
            key = int(each["_id"])
            both[key] = merged(both[key], each) if key in both else each
        sign = 1 if window.oldest else -1
        ordered = sorted(both.values(), key=lambda each: sign * int(each["seq"]))
        return ordered[: window.limit]

    async def replies(
        self, chat_id: str, roots: list[int], up_to: int, *, deleted: set[str]
    ) -> dict[int, int]:
        """How many messages up to `up_to` are in the threads of these roots; none is left out.

        `deleted` are messages that do not count although they are not yet deleted here.
        """
        match: Document = {
            "chat": chat_id,
            "thread": {"$in": [Int64(root) for root in roots]},
            "seq": {"$lte": Int64(up_to)},
            "deleted_seq": {"$exists": False},
        }
        if deleted:
            match["_id"] = {"$nin": [Int64(each) for each in deleted]}
        with self._database.errors():
            cursor = self._messages.aggregate(
                [{"$match": match}, {"$group": {"_id": "$thread", "count": {"$sum": 1}}}]
            )
            counts = {int(each["_id"]): int(each["count"]) async for each in cursor}
        if self._archive is not None:
            gone = {int(each) for each in deleted}
            archived = await self._archive.replies(chat_id, roots, up_to, deleted=gone)
            for root, count in archived.items():
                counts[root] = counts.get(root, 0) + count
        return counts

    async def chats(self, user: str) -> list[ChatRecord]:
        """Every chat of a user, that of the last message first."""
        with self._database.errors():
            memberships = self._members.find({"user": user}, {"_id": 0, "group": 1})
            groups = [each["group"] async for each in memberships]
            chats_of = {self._chat_of(group): group for group in groups}
            last: dict[str, int] = {}
            query = {"$or": [{"users": user}, {"_id": {"$in": list(chats_of)}}]}
            async for each in self._chats.find(query, {"seq": 1}):
                last[each["_id"]] = int(each.get("seq", 0))
            about: dict[str, Document] = {}
            fields = {"name": 1, "kind": 1, "size": 1}
            async for each in self._groups.find({"_id": {"$in": groups}}, fields):
                about[self._chat_of(each["_id"])] = each
        found = []
        for chat_id in {*last, *chats_of}:
            group = about.get(chat_id)
            seq = last.get(chat_id, 0)
            if group is not None:
                found.append(ChatRecord(chat_id, seq, group["name"], group["kind"], group["size"]))
            elif chat_id.startswith("dm."):
                found.append(ChatRecord(chat_id, seq, None, "dm", 2))
        return sorted(found, key=lambda chat: (-chat.seq, chat.chat_id))

    async def chat_ids(self, user: str) -> list[str]:
        """Every chat that a user is in now: groups, and conversations of two with a message."""
        with self._database.errors():
            memberships = self._members.find({"user": user}, {"_id": 0, "group": 1})
            found = [self._chat_of(each["group"]) async for each in memberships]
            conversations = self._chats.find({"users": user}, {"_id": 1})
            return found + [each["_id"] async for each in conversations]

    async def last_seqs(self, chats: list[str]) -> list[ChatRecord]:
        """The chats of these that have messages, with the seq of the last one."""
        with self._database.errors():
            cursor = self._chats.find({"_id": {"$in": chats}}, {"seq": 1})
            return [ChatRecord(each["_id"], int(each["seq"]), None, "", 0) async for each in cursor]

    async def latest(self, chats: list[tuple[str, int]]) -> dict[str, Document]:
        """The messages at these sequences, by chat."""
        if not chats:
            return {}
        wanted = [{"chat": chat, "seq": Int64(seq)} for chat, seq in chats]
        with self._database.errors():
            return {each["chat"]: each async for each in self._messages.find({"$or": wanted})}

    async def unread(self, user: str, pointers: dict[str, int]) -> dict[str, int]:
        """Messages of others after the pointer of each chat, without those deleted, up to 1,000.

        What was said in a group before one came does not count. Only indexes are read. Several
        pipelines run at once, as MongoDB has a thread for each.
        """
        since = await self._since(user) if any(map(self._is_group, pointers)) else {}
        chats = [(chat, max(seq, since.get(chat, 0))) for chat, seq in pointers.items()]
        parts = [
            chats[start : start + COUNTED_AT_ONCE]
            for start in range(0, len(chats), COUNTED_AT_ONCE)
        ]
        counts = dict.fromkeys(pointers, 0)
        for found in await asyncio.gather(*(self._unread(user, part) for part in parts)):
            counts.update(found)
        return counts

    @staticmethod
    def _is_group(chat: str) -> bool:
        return not chat.startswith("dm.")

    async def _since(self, user: str) -> dict[str, int]:
        """How far the groups of a user had come when it came, where there was something."""
        query = {"user": user, "since": {"$gt": 0}}
        with self._database.errors():
            found = self._members.find(query, {"_id": 0, "group": 1, "since": 1})
            return {self._chat_of(each["group"]): int(each["since"]) async for each in found}

    async def _unread(self, user: str, pointers: list[tuple[str, int]]) -> dict[str, int]:
        first, *others = pointers
        pipeline = counting(user, *first)
        pipeline += [
            {"$unionWith": {"coll": "messages", "pipeline": counting(user, *each)}}
            for each in others
        ]
        with self._database.errors():
            return {
                each["chat"]: each["count"] async for each in self._messages.aggregate(pipeline)
            }


def counting(user: str, chat: str, seq: int) -> list[Document]:
    """Count a chat's messages of others after `seq`, as a pipeline that stays in the index."""
    match = {
        "chat": chat,
        "seq": {"$gt": Int64(seq)},
        "from": {"$ne": user},
        "deleted_seq": None,
    }
    count: list[Document] = [{"$match": match}, {"$limit": COUNTED}, {"$count": "count"}]
    return [*count, {"$set": {"chat": {"$literal": chat}}}]
