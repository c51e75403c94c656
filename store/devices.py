"""Devices that get pushes, and what their users have set.

Collections: `devices` (`_id` user and device; `unique` is the hash of a token or endpoint, which
belongs to the user who registered it last), `notifications` (`_id` user).
"""

import hashlib
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from . import bulk
from .database import Database, Document
from .errors import LimitReached, NotFound, StoreUnavailable

RACES = 20
VIPS = 10_000


class DeviceRecord(NamedTuple):
    """A device. `address` is as the provider needs it; `registered_ms` says which registration."""

    user: str
    device: str
    provider: str
    address: dict[str, Any]
    content: bool
    vip: bool
    registered_ms: int


class SettingsRecord(NamedTuple):
    """What a user has set; `quiet` is start, end and zone; `muted` are conversations of two."""

    content: bool = True
    mentions: bool = True
    quiet: tuple[str, str, str] | None = None
    muted: frozenset[str] = frozenset()


DEFAULTS = SettingsRecord()


class Devices:
    """Reads and writes devices and settings. Raises the errors of `store.errors`."""

    def __init__(self, database: Database):
        self._database = database
        self._devices = database["devices"]
        self._settings = database["notifications"]
        self._members = database["members"]

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        with self._database.errors():
            await self._devices.create_index([("user", 1), ("device", 1)], name="user")
            await self._devices.create_index(
                [("unique", 1)],
                unique=True,
                partialFilterExpression={"unique": {"$exists": True}},
                name="unique",
            )
            await self._devices.create_index(
                [("vip", 1), ("user", 1)], partialFilterExpression={"vip": True}, name="vip"
            )

    # --- devices ---

    async def register(self, record: DeviceRecord, *, unique: str, most: int) -> DeviceRecord:
        """Put a device down, in place of what it was before; gives it with its time.

        `unique`, if not empty, is what no two users have: it is taken from whoever had it. Raises
        `LimitReached` when the user has `most` others.
        """
        key = {"user": record.user, "device": record.device}
        others = {"user": record.user, "device": {"$ne": record.device}}
        with self._database.errors():
            if await self._devices.count_documents(others, limit=most) >= most:
                raise LimitReached(f"at most {most} devices; remove one first")
        document: Document = {
            **key,
            "provider": record.provider,
            "address": record.address,
            "content": record.content,
            "vip": record.vip,
        }
        if unique:
            document["unique"] = hashlib.sha256(unique.encode()).hexdigest()
        for _ in range(RACES):
            try:
                return await self._put(key, document)
            except DuplicateKeyError:
                continue
        raise StoreUnavailable("the device is registered by too many at once")

    async def _put(self, key: Document, document: Document) -> DeviceRecord:
        with self._database.errors():
            if "unique" in document:
                await self._devices.delete_many({"unique": document["unique"], "_id": {"$ne": key}})
            # Rises with every registration, also within one millisecond: it says which one it is.
            later = {"$max": [Int64(_now_ms()), {"$add": [{"$ifNull": ["$at", Int64(0)]}, 1]}]}
            change = [{"$replaceWith": {"_id": "$_id", "at": later, **_literals(document)}}]
            put = await self._devices.find_one_and_update(
                {"_id": key}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        return _record(put)

    async def of(self, users: Collection[str]) -> dict[str, list[DeviceRecord]]:
        """The devices of these users; users without any are left out."""
        found: dict[str, list[DeviceRecord]] = {}
        if users:
            with self._database.errors():
                async for each in self._devices.find({"user": {"$in": list(users)}}).sort(
                    [("user", 1), ("device", 1)]
                ):
                    found.setdefault(each["user"], []).append(_record(each))
        return found

    async def having(self, users: Collection[str]) -> set[str]:
        """Those of these users who have a device; the read stays in the index."""
        if not users:
            return set()
        with self._database.errors():
            cursor = self._devices.find({"user": {"$in": list(users)}}, {"_id": 0, "user": 1})
            return {each["user"] async for each in cursor}

    async def vips(self) -> list[str]:
        """Users who registered as VIP, at most 10,000."""
        with self._database.errors():
            cursor = self._devices.find({"vip": True}, {"_id": 0, "user": 1}).sort("user", 1)
            found = await cursor.limit(VIPS).to_list(VIPS)
        return list(dict.fromkeys(each["user"] for each in found))

    async def remove(self, user: str, device: str) -> None:
        """Forget a device. Raises `NotFound`."""
        with self._database.errors():
            done = await self._devices.delete_one({"_id": {"user": user, "device": device}})
        if not done.deleted_count:
            raise NotFound(f"you have no device {device!r}")

    async def remove_gone(self, user: str, device: str, registered_ms: int) -> bool:
        """Forget a device that is gone, unless it was registered again; whether it was there."""
        query = {"_id": {"user": user, "device": device}, "at": Int64(registered_ms)}
        with self._database.errors():
            return bool((await self._devices.delete_one(query)).deleted_count)

    # --- settings ---

    async def settings(self, users: Collection[str]) -> dict[str, SettingsRecord]:
        """What these users have set; users who have set nothing are left out."""
        if not users:
            return {}
        with self._database.errors():
            query = {"_id": {"$in": list(users)}}
            return {each["_id"]: _settings(each) async for each in self._settings.find(query)}

    async def change(
        self,
        user: str,
        *,
        content: bool | None,
        mentions: bool | None,
        quiet: tuple[str, str, str] | None,
        no_quiet: bool,
        mute: dict[str, bool],
        most_muted: int,
    ) -> SettingsRecord:
        """Change what is given. Raises `LimitReached` for too many muted conversations."""
        kept: Document = {}
        if content is not None:
            kept["content"] = content
        if mentions is not None:
            kept["mentions"] = mentions
        if quiet is not None:
            kept["quiet"] = {"$literal": list(quiet)}
        muted = {"$ifNull": ["$muted", []]}
        added = {"$literal": [chat for chat, on in mute.items() if on]}
        dropped = {"$literal": [chat for chat, on in mute.items() if not on]}
        kept["muted"] = {"$setDifference": [{"$setUnion": [muted, added]}, dropped]}
        stages: list[Document] = [{"$set": kept}]
        if no_quiet:
            stages.append({"$unset": "quiet"})
        too_many = {"$gt": [{"$size": kept["muted"]}, most_muted]}
        with self._database.errors():
            if any(mute.values()):
                query = {"_id": user, "$expr": too_many}
                if await self._settings.find_one(query, {"_id": 1}) is not None:
                    raise LimitReached(f"mute: at most {most_muted} conversations")
            changed = await self._settings.find_one_and_update(
                {"_id": user}, stages, upsert=True, return_document=ReturnDocument.AFTER
            )
        return _settings(changed)

    # --- groups ---

    async def mute_groups(self, user: str, groups: dict[str, bool]) -> set[str]:
        """Set the user's own `mute` in groups; those that the user is in."""
        if not groups:
            return set()
        with self._database.errors():
            query = {"user": user, "group": {"$in": list(groups)}}
            present = {each["group"] async for each in self._members.find(query, {"group": 1})}
        updates = [
            UpdateOne({"group": group, "user": user}, {"$set": {"mute": mute}})
            for group, mute in groups.items()
            if group in present
        ]
        await bulk.write(self._database, self._members, updates)
        return present

    async def muted_groups(self, user: str, most: int) -> list[str]:
        """The groups that the user has muted."""
        with self._database.errors():
            query = {"user": user, "mute": True}
            cursor = self._members.find(query, {"_id": 0, "group": 1}).sort("group", 1)
            return [each["group"] for each in await cursor.limit(most).to_list(most)]

    # --- one person ---

    async def forget(self, user: str) -> int:
        """Remove the user's devices and settings; how many there were."""
        with self._database.errors():
            devices = await self._devices.delete_many({"user": user})
            settings = await self._settings.delete_many({"_id": user})
        return int(devices.deleted_count) + int(settings.deleted_count)


def _record(document: Document) -> DeviceRecord:
    return DeviceRecord(
        document["user"],
        document["device"],
        document["provider"],
        document["address"],
        document["content"],
        document["vip"],
        int(document["at"]),
    )


def _settings(document: Document) -> SettingsRecord:
    quiet = document.get("quiet")
    return SettingsRecord(
        document.get("content", True),
        document.get("mentions", True),
        (quiet[0], quiet[1], quiet[2]) if quiet else None,
        frozenset(document.get("muted", ())),
    )


def _literals(document: Document) -> Document:
    return {name: {"$literal": value} for name, value in document.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
