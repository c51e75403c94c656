"""Whom a message concerns, and what a push says of it: groups, members, messages, newest chats.

All reads are by an index and bounded. Raises `StoreUnavailable`.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from bson.int64 import Int64

from .database import Database, Document
from .directory import Kind


class GroupInfo(NamedTuple):
    """A group; its members are others when `version` is another."""

    group_id: str
    name: str
    kind: Kind
    size: int
    version: int


class Said(NamedTuple):
    """A message as it is now."""

    chat_id: str
    seq: int
    sender: str
    content: str
    content_type: str
    at: int
    deleted: bool


class Audience:
    """Reads what other workers write."""

    def __init__(self, database: Database, *, chat_of: Callable[[str], str]):
        """`chat_of` makes the chat id of a group id."""
        self._database = database
        self._chat_of = chat_of
        self._groups = database["groups"]
        self._members = database["members"]
        self._messages = database["messages"]
        self._chats = database["chats"]

    async def groups(self, ids: Collection[str]) -> dict[str, GroupInfo]:
        """These groups; those that are none are left out."""
        if not ids:
            return {}
        fields = {"name": 1, "kind": 1, "size": 1, "version": 1}
        with self._database.errors():
            return {
                each["_id"]: GroupInfo(
                    each["_id"], each["name"], each["kind"], each["size"], each["version"]
                )
                async for each in self._groups.find({"_id": {"$in": list(ids)}}, fields)
            }

    async def members(self, group: str, limit: int) -> list[str]:
        """The members of a group, at most `limit`."""
        with self._database.errors():
            cursor = self._members.find({"group": group}, {"_id": 0, "user": 1})
            return [each["user"] async for each in cursor.limit(limit)]

    async def members_among(self, group: str, users: Collection[str]) -> list[str]:
        """Those of the users who are members."""
        if not users:
            return []
        with self._database.errors():
            query = {"group": group, "user": {"$in": list(users)}}
            return [each["user"] async for each in self._members.find(query, {"_id": 0, "user": 1})]

    async def muting(self, group: str, users: Collection[str]) -> set[str]:
        """Those of the users who have muted the group."""
        if not users:
            return set()
        with self._database.errors():
            query = {"group": group, "user": {"$in": list(users)}, "mute": True}
            return {each["user"] async for each in self._members.find(query, {"_id": 0, "user": 1})}

    async def messages(self, ids: Collection[int]) -> dict[int, Said]:
        """These messages, as far as MongoDB has them."""
        with self._database.errors():
            query = {"_id": {"$in": [Int64(each) for each in ids]}, "at": {"$exists": True}}
            return {int(each["_id"]): _said(each) async for each in self._messages.find(query)}

    async def newest_chats(self, user: str, groups: int, limit: int) -> dict[str, int]:
        """The `limit` chats with the newest messages, each with the seq of its last one.

        Of a user in more groups than `groups` some are left out.
        """
        with self._database.errors():
            cursor = self._members.find({"user": user}, {"_id": 0, "group": 1}).limit(groups)
            chats = [self._chat_of(each["group"]) async for each in cursor]
            query = {"$or": [{"users": user}, {"_id": {"$in": chats}}]}
            newest = self._chats.find(query, {"seq": 1}).sort("seq", -1).limit(limit)
            return {each["_id"]: int(each.get("seq", 0)) async for each in newest}


def _said(document: Document) -> Said:
    return Said(
        document["chat"],
        int(document["seq"]),
        document["from"],
        document.get("content", ""),
        document.get("content_type", "text"),
        int(document["at"]),
        "deleted_seq" in document,
    )
