"""Uploads in parts that are not finished: what came of each so far, and where it is kept.

A part is an object whose key is put down before it is written, so that whatever becomes of the
process, the object belongs to an upload that expires.
"""

import secrets
from typing import NamedTuple

from bson.int64 import Int64

from .database import Database, Document, Session
from .files import Files, keys_of, new_id

PENDING_MOST = 100
"""Keys of parts that were begun and not finished: one for each process killed meanwhile."""


class Part(NamedTuple):
    """The bytes of an upload from somewhere on."""

    key: str
    size: int


class Upload(NamedTuple):
    """An upload; `file` is the id of the file that it has become. `metadata` is as it was given."""

    id: str
    owner: str
    chat: str
    name: str
    metadata: str
    length: int
    offset: int
    parts: list[Part]
    expires: int
    file: str | None


class Uploads:
    """Reads and writes uploads. Raises `StoreUnavailable`. Times are Unix milliseconds."""

    def __init__(self, database: Database):
        self._database = database
        self._uploads = database["file_uploads"]
        self._files = Files(database)

    async def open_of(self, owner: str, now: int) -> list[int]:
        """The lengths of the owner's uploads that are not finished."""
        query = {"owner": owner, "file": {"$exists": False}, "expires": {"$gt": Int64(now)}}
        with self._database.errors():
            return [int(each["length"]) async for each in self._uploads.find(query, {"length": 1})]

    async def create(
        self, owner: str, chat: str, name: str, *, metadata: str, length: int, expires: int
    ) -> Upload:
        """A new one, empty."""
        document: Document = {
            "_id": new_id(),
            "owner": owner,
            "chat": chat,
            "name": name,
            "metadata": metadata,
            "length": Int64(length),
            "offset": Int64(0),
            "parts": [],
            "pending": [],
            "expires": Int64(expires),
        }
        with self._database.errors():
            await self._uploads.insert_one(document)
        return _upload(document)

    async def find(self, upload_id: str, owner: str, now: int) -> Upload | None:
        """The owner's upload, or None if there is none or it has expired."""
        query = {"_id": upload_id, "owner": owner, "expires": {"$gt": Int64(now)}}
        with self._database.errors():
            found: Document | None = await self._uploads.find_one(query)
        return None if found is None else _upload(found)

    async def begin_part(self, upload_id: str) -> str | None:
        """The key of a part that is about to be written, or None if the upload takes no more."""
        key = f"uploads/{upload_id}-{secrets.token_hex(8)}"
        query = {
            "_id": upload_id,
            "file": {"$exists": False},
            f"pending.{PENDING_MOST - 1}": {"$exists": False},
        }
        with self._database.errors():
            done = await self._uploads.update_one(query, {"$push": {"pending": key}})
        return key if done.matched_count else None

    async def append(self, upload: Upload, parts: list[Part], expires: int) -> Upload | None:
        """The upload with parts that were written; None if it has moved on, or is gone."""
        offset = upload.offset + sum(each.size for each in parts)
        query = {"_id": upload.id, "offset": Int64(upload.offset), "file": {"$exists": False}}
        change = {
            "$push": {"parts": {"$each": [{"key": p.key, "size": p.size} for p in parts]}},
            "$pull": {"pending": {"$in": [each.key for each in parts]}},
            "$set": {"offset": Int64(offset), "expires": Int64(expires)},
        }
        with self._database.errors():
            done = await self._uploads.update_one(query, change)
        if not done.matched_count:
            return None
        return upload._replace(offset=offset, parts=[*upload.parts, *parts], expires=expires)

    async def drop_parts(self, upload_id: str, keys: list[str]) -> None:
        """These parts were not needed and are deleted."""
        with self._database.errors():
            change = {"$pull": {"pending": {"$in": keys}}}
            await self._uploads.update_one({"_id": upload_id}, change)

    async def remove(self, upload_id: str, guard: Document | None = None) -> bool:
        """Forget an upload that still fits `guard`; its parts are garbage. Whether it was there."""

        async def work(session: Session) -> bool:
            query = {"_id": upload_id, **(guard or {})}
            found: Document | None = await self._uploads.find_one_and_delete(query, session=session)
            if found is not None:
                await self._files.discard(keys_of(found), session)
            return found is not None

        return await self._database.transaction(work)


def _upload(found: Document) -> Upload:
    return Upload(
        id=found["_id"],
        owner=found["owner"],
        chat=found["chat"],
        name=found["name"],
        metadata=found["metadata"],
        length=int(found["length"]),
        offset=int(found["offset"]),
        parts=[Part(each["key"], int(each["size"])) for each in found["parts"]],
        expires=int(found["expires"]),
        file=found.get("file"),
    )
