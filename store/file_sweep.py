"""Removes what nothing needs: expired uploads, files of no message, bytes of no file, objects.

Each step is small and can be repeated, and several processes may sweep at once: what is decided is
decided in a transaction, and an object is deleted only after it was put down as garbage.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from bson.int64 import Int64
from msgspec import Struct

from .archive_retention import Retention
from .database import Database, Document, Session
from .file_objects import FileObjects
from .file_uploads import Uploads
from .file_uses import Uses
from .files import Files

PAGE = 200
PAGES = 500
"""What is more than so many pages is left to the next sweep."""

HALF_WRITTEN_S = 3600.0

_log = logging.getLogger("hikyaku.files")


class Swept(Struct, kw_only=True):
    """What a sweep removed."""

    uploads: int = 0
    files: int = 0
    bytes: int = 0
    contents: int = 0
    objects: int = 0


class Sweep:
    """One sweep. Raises `StoreUnavailable`. Times are Unix milliseconds."""

    def __init__(self, database: Database, objects: FileObjects, retention: Retention):
        self._database = database
        self._objects = objects
        self._retention = retention
        self._files = Files(database)
        self._uploads = Uploads(database)
        self._uses = Uses(database)
        self.swept = Swept()

    async def expire_uploads(self, now: int) -> None:
        """Forget uploads whose time is over, finished or not."""
        expired: Document = {"expires": {"$lte": Int64(now)}}

        async def expire(found: Document) -> None:
            self.swept.uploads += await self._uploads.remove(found["_id"], expired)

        await self._each("file_uploads", expired, expire)

    async def release_old(self) -> None:
        """Messages past their retention need their files no more, removed yet or not."""
        if self._retention.default:
            await self._release_below(self._retention.default)
        async for chat, limit in self._retention.groups():
            await self._uses.release({"message": {"$lt": Int64(limit)}, "chat": chat})

    async def _release_below(self, limit: int) -> None:
        last = Int64(0)
        while True:
            query = {"message": {"$gte": last, "$lt": Int64(limit)}}
            with self._database.errors():
                cursor = self._database["file_uses"].find(query, {"message": 1, "chat": 1})
                found = await cursor.sort("message", 1).limit(PAGE).to_list(PAGE)
            if not found:
                return
            limits = await self._retention.limits({each["chat"] for each in found})
            old = {e["message"] for e in found if e["message"] < limits[e["chat"]]}
            if old:
                await self._uses.release({"message": {"$in": list(old)}})
            last = Int64(found[-1]["message"] + 1)

    async def remove_files(self, now: int, *, elsewhere: bool) -> None:
        """Remove files of no message that are kept no longer.

        Every message that was written before `now` must have its uses by now. Without `elsewhere`
        files of chats that may live at other sites stay: messages may be on their way there.
        """
        free: Document = {"free": True, "keep_until": {"$lt": Int64(now)}}
        if not elsewhere:
            free["chat"] = {"$not": {"$regex": "=40"}}

        async def look(found: Document) -> None:
            size = await self._database.transaction(partial(self._look, found, free))
            if size is not None:
                self.swept.files += 1
                self.swept.bytes += size

        await self._each("files", free, look)

    async def _look(self, found: Document, free: Document, session: Session) -> int | None:
        query = {"file": found["_id"]}
        if await self._database["file_uses"].find_one(query, session=session) is None:
            return await self._files.remove(found["_id"], free, session)
        await self._database["files"].update_one(
            {"_id": found["_id"]}, {"$unset": {"free": 1}}, session=session
        )
        return None

    async def remove_contents(self, now: int) -> None:
        """Forget contents of no file; their objects are garbage."""
        check: Document = {"check": True, "keep_until": {"$lt": Int64(now)}}

        async def look(found: Document) -> None:
            gone = await self._database.transaction(partial(self._look_at_blob, found, check))
            self.swept.contents += gone

        await self._each("file_blobs", check, look)

    async def _look_at_blob(self, found: Document, check: Document, session: Session) -> bool:
        blobs, sha = self._database["file_blobs"], {"sha": found["_id"]}
        query = {"_id": found["_id"], **check}
        if await self._database["files"].find_one(sha, session=session) is not None:
            await blobs.update_one(query, {"$unset": {"check": 1}}, session=session)
            return False
        gone: Document | None = await blobs.find_one_and_delete(query, session=session)
        if gone is None:
            return False
        keys = [gone[name] for name in ("key", "thumbnail") if name in gone]
        await self._files.discard(keys, session)
        return True

    async def collect(self) -> None:
        """Delete the objects that nothing needs."""

        async def delete(found: Document) -> None:
            await self._objects.delete(found["_id"])
            with self._database.errors():
                await self._database["file_garbage"].delete_one({"_id": found["_id"]})
            self.swept.objects += 1

        await self._each("file_garbage", {}, delete)

    async def tidy(self) -> None:
        """Remove what killed processes left half written in a folder."""
        if removed := await self._objects.tidy(HALF_WRITTEN_S):
            _log.info("removed %d half-written objects", removed)

    async def _each(
        self, collection: str, query: Document, act: Callable[[Document], Awaitable[None]]
    ) -> None:
        """Act on every document that fits; after it, none of them does."""
        for _ in range(PAGES):
            with self._database.errors():
                cursor = self._database[collection].find(query, {"_id": 1}).limit(PAGE)
                found = await cursor.to_list(PAGE)
            for each in found:
                await act(each)
            if len(found) < PAGE:
                return
