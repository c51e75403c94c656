"""Reads messages and chats for clients. Every read is by an index and bounded.

Raises `StoreUnavailable`. What is in the log but not yet here is the caller's to add.
"""

from collections.abc import Callable
from typing import NamedTuple

from bson.int64 import Int64

from .database import Database, Document

PREVIEW_CHARS = 200
COUNTED = 1000


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

    def __init__(self, database: Database, *, chat_of: Callable[[str], str]):
        """`chat_of` makes the chat id of a group id."""
        self._database = database
        self._chat_of = chat_of
        self._messages = database["messages"]
        self._chats = database["chats"]
        self._members = database["members"]
        self._groups = database["groups"]

    async def message(self, chat_id: str, message_id: int) -> Document | None:
        """One message of a chat, or None."""
        with self._database.errors():
            query = {"_id": Int64(message_id), "chat": chat_id, "at": {"$exists": True}}
            found: Document | None = await self._messages.find_one(query)
            return found

    async def page(self, window: Window) -> list[Document]:
        """Up to `limit` messages in the window, in order of seq from the end asked for."""
        seq: Document = {}
        if window.before is not None:
            seq["$lt"] = Int64(window.before)
        if window.after is not None:
            seq["$gt"] = Int64(window.after)
        query: Document = {"chat": window.chat_id, "at": {"$exists": True}}
        if seq:
            query["seq"] = seq
        if window.thread is not None:
            query["thread"] = Int64(window.thread)
        with self._database.errors():
            cursor = self._messages.find(query).sort("seq", 1 if window.oldest else -1)
            found: list[Document] = await cursor.limit(window.limit).to_list(window.limit)
            return found

    async def replies(self, chat_id: str, roots: list[int], up_to: int) -> dict[int, int]:
        """How many messages up to `up_to` are in the threads of these roots; none is left out."""
        match = {
            "chat": chat_id,
            "thread": {"$in": [Int64(root) for root in roots]},
            "seq": {"$lte": Int64(up_to)},
            "at": {"$exists": True},
            "deleted_seq": {"$exists": False},
        }
        with self._database.errors():
            cursor = self._messages.aggregate(
                [{"$match": match}, {"$group": {"_id": "$thread", "count": {"$sum": 1}}}]
            )
            return {int(each["_id"]): each["count"] async for each in cursor}

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

    async def last_seqs(self, chats: list[str]) -> list[ChatRecord]:
        """The chats of these that have messages, with the seq of the last one."""
        with self._database.errors():
            cursor = self._chats.find({"_id": {"$in": chats}}, {"seq": 1})
            return [ChatRecord(each["_id"], int(each["seq"]), None, "", 0) async for each in cursor]

    async def latest(self, chats: list[tuple[str, int]]) -> dict[str, Document]:
        """The messages at these sequences, by chat."""
        if not chats:
            return {}
        wanted = [{"chat": chat, "seq": Int64(seq), "at": {"$exists": True}} for chat, seq in chats]
        with self._database.errors():
            return {each["chat"]: each async for each in self._messages.find({"$or": wanted})}

    async def unread(self, user: str, pointers: dict[str, int]) -> dict[str, int]:
        """Messages of others after the pointer of each chat, counted up to 1,000, at once."""
        if not pointers:
            return {}

        def counted(chat: str, seq: int) -> list[Document]:
            match = {
                "chat": chat,
                "seq": {"$gt": Int64(seq)},
                "from": {"$ne": user},
                "at": {"$exists": True},
            }
            return [{"$match": match}, {"$limit": COUNTED}, {"$count": "count"}]

        (first, seq), *others = pointers.items()
        pipeline: list[Document] = [
            *counted(first, seq),
            {"$set": {"chat": {"$literal": first}}},
        ]
        pipeline += [
            {
                "$unionWith": {
                    "coll": "messages",
                    "pipeline": [*counted(chat, seq), {"$set": {"chat": {"$literal": chat}}}],
                }
            }
            for chat, seq in others
        ]
        with self._database.errors():
            cursor = self._messages.aggregate(pipeline)
            found = {each["chat"]: each["count"] async for each in cursor}
        return {chat: found.get(chat, 0) for chat in pointers}
