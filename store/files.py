"""Files: what is known of each, and whose bytes are kept where.

Bytes are kept once however often they are uploaded: a `blob` names the objects of one content, and
any number of files refer to it. A blob is put down before its objects are written, and a file only
after, in one transaction with the blob, the owner's total and the upload it came from. So a file is
there whole or not at all, and every object belongs to something that is written down.

Collections: `files` (`_id` file id), `file_blobs` (`_id` SHA-256), `file_owners` (`_id` user: how
much), `file_uses`, `file_uploads`, `file_garbage` (`_id` key of an object that nothing needs).
`free` on a file and `check` on a blob are hints to look whether anything still needs them.
"""

import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import ReplaceOne, ReturnDocument
from pymongo.errors import DuplicateKeyError

from .database import Database, Document, Session
from .errors import StoreError, StoreUnavailable

LEASE_MS = 3_600_000
"""A blob that is being written is left alone for this long."""

RACES = 5
PAGE = 200


class QuotaReached(StoreError):
    """The owner's files would take more than allowed; `used` is what they take now."""

    def __init__(self, used: int):
        super().__init__(f"the files of this user take {used} bytes already")
        self.used = used


class Lost(StoreError):
    """What was to be finished is not there any more: begin again."""

    retryable = True


class FileRecord(NamedTuple):
    """A file. `key` and `thumbnail` are those of its objects. `at` is Unix milliseconds."""

    id: str
    chat: str
    owner: str
    name: str
    size: int
    content_type: str
    sha256: str
    key: str
    thumbnail: str | None
    width: int | None
    height: int | None
    at: int


class Used(NamedTuple):
    """A file as a message has it: in which chat, by whom, and what the message tells of it."""

    chat: str
    author: str
    told: Document


class Blob(NamedTuple):
    """Where one content is kept, or is to be; `stored`: it is there."""

    sha256: str
    key: str
    thumbnail: str | None
    stored: bool


def new_id() -> str:
    """The id of a file or an upload: 22 characters that nobody guesses."""
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return made


class Files:
    """Reads and writes files. Raises `StoreUnavailable`. Times are Unix milliseconds."""

    def __init__(self, database: Database):
        self._database = database
        self._files = database["files"]
        self._blobs = database["file_blobs"]
        self._owners = database["file_owners"]
        self._uploads = database["file_uploads"]
        self._uses = database["file_uses"]
        self._garbage = database["file_garbage"]

    async def ensure(self) -> None:
        """Create the indexes; idempotent."""
        free, check = {"free": True}, {"check": True}
        with self._database.errors():
            await self._files.create_index([("owner", 1), ("_id", 1)], name="owner")
            await self._files.create_index([("sha", 1)], name="content")
            await self._files.create_index(
                [("keep_until", 1)], partialFilterExpression=free, name="free"
            )
            await self._blobs.create_index(
                [("keep_until", 1)], partialFilterExpression=check, name="check"
            )
            await self._uploads.create_index([("expires", 1)], name="expires")
            await self._uploads.create_index([("owner", 1)], name="owner")
            await self._uses.create_index([("file", 1)], name="file")
            await self._uses.create_index([("message", 1)], name="message")
            await self._uses.create_index([("chat", 1), ("message", 1)], name="chat")

    # --- reading ---

    async def find(self, file_id: str) -> FileRecord | None:
        """One file, or None."""
        with self._database.errors():
            found: Document | None = await self._files.find_one({"_id": file_id})
        return None if found is None else record_of(found)

    async def used(self, owner: str) -> int:
        """How many bytes the owner's files take."""
        with self._database.errors():
            found: Document | None = await self._owners.find_one({"_id": owner})
        return int((found or {}).get("bytes", 0))

    async def first_use(self, file_id: str) -> Used | None:
        """What the first message from elsewhere in this site's log says of the file, if any does.

        Whoever refers to a file later knows it from there, and cannot say that it is another's.
        """
        with self._database.errors():
            query = {"file": file_id, "told": {"$exists": True}}
            found = await self._uses.find(query).sort("seq", 1).limit(1).to_list(1)
        for each in found:
            return Used(each["chat"], each["from"], each["told"])
        return None

    async def claim(self, chat: str, ids: list[str], until: int) -> list[FileRecord]:
        """Keep the chat's files of these for a message that is about to be written; those found."""
        with self._database.errors():
            query = {"_id": {"$in": ids}, "chat": chat}
            await self._files.update_many(query, {"$max": {"keep_until": Int64(until)}})
            found = await self._files.find(query).to_list(len(ids))
        return [record_of(each) for each in found]

    async def of(self, owner: str) -> AsyncIterator[FileRecord]:
        """Every file of an owner."""
        last = ""
        while True:
            query = {"owner": owner, "_id": {"$gt": last}}
            with self._database.errors():
                found = await self._files.find(query).sort("_id", 1).limit(PAGE).to_list(PAGE)
            for each in found:
                yield record_of(each)
            if len(found) < PAGE:
                return
            last = found[-1]["_id"]

    # --- writing ---

    async def reserve(self, sha256: str, *, thumbnail: bool, now: int) -> Blob:
        """Where this content is kept, or is to be written."""
        name = f"{sha256[:2]}/{sha256}-{secrets.token_hex(4)}"
        made: Document = {"key": f"blobs/{name}", "stored": False}
        if thumbnail:
            made["thumbnail"] = f"thumbnails/{name}"
        change = {
            "$max": {"keep_until": Int64(now + LEASE_MS)},
            "$set": {"check": True},
            "$setOnInsert": made,
        }
        for _ in range(RACES):
            try:
                with self._database.errors():
                    found = await self._blobs.find_one_and_update(
                        {"_id": sha256}, change, upsert=True, return_document=ReturnDocument.AFTER
                    )
            except DuplicateKeyError:
                continue  # another upload of the same content was faster
            return Blob(sha256, found["key"], found.get("thumbnail"), bool(found["stored"]))
        raise StoreUnavailable("many uploads of one content at once")

    async def commit(
        self, file: FileRecord, *, keep_until: int, quota: int, upload: str | None = None
    ) -> None:
        """The file is there from now on. `quota` 0 is none; `upload` is what it came from.

        Repeating it for the same file is harmless. Raises `QuotaReached`, and `Lost` when the blob
        or the upload is gone.
        """

        async def work(session: Session) -> None:
            blob = {"_id": file.sha256, "key": file.key}
            done = {
                "$set": {"stored": True, "keep_until": Int64(file.at)},
                "$unset": {"check": 1},
            }
            if not (await self._blobs.update_one(blob, done, session=session)).matched_count:
                raise Lost("the stored content was removed")
            if await self._files.find_one({"_id": file.id}, session=session) is not None:
                return  # another process has brought the same file of another site
            await self._add(file.owner, file.size, 1, session, quota=quota)
            document = document_of(file, keep_until)
            await self._files.insert_one(document, session=session)
            if upload is not None:
                await self._finish(upload, file.id, session)

        await self._database.transaction(work)

    async def _add(
        self, owner: str, size: int, count: int, session: Session, *, quota: int = 0
    ) -> None:
        total = await self._owners.find_one_and_update(
            {"_id": owner},
            {"$inc": {"bytes": Int64(size), "files": count}},
            upsert=True,
            session=session,
            return_document=ReturnDocument.AFTER,
        )
        if quota and total["bytes"] > quota:
            raise QuotaReached(int(total["bytes"]) - size)

    async def _finish(self, upload: str, file_id: str, session: Session) -> None:
        query = {"_id": upload, "file": {"$exists": False}}
        found: Document | None = await self._uploads.find_one(query, session=session)
        if found is None:
            raise Lost("the upload was finished or removed meanwhile")
        change = {"$set": {"file": file_id, "offset": found["length"], "parts": [], "pending": []}}
        await self._uploads.update_one(query, change, session=session)
        await self.discard(keys_of(found), session)

    async def abandon(self, blob: Blob) -> None:
        """Nothing came of what was written for this blob, unless it is still there."""

        async def work(session: Session) -> None:
            known = {"_id": blob.sha256, "key": blob.key}
            if await self._blobs.find_one(known, session=session) is None:
                keys = [blob.key] if blob.thumbnail is None else [blob.key, blob.thumbnail]
                await self.discard(keys, session)

        await self._database.transaction(work)

    async def discard(self, keys: list[str], session: Session) -> None:
        """Nothing needs these objects any more."""
        if keys:
            noted = [ReplaceOne({"_id": key}, {"_id": key}, upsert=True) for key in keys]
            await self._garbage.bulk_write(noted, session=session)

    async def forget(self, owner: str) -> int:
        """Remove all files of an owner, used or not, and what was not finished; how many files."""
        removed = 0
        async for each in self.of(owner):
            size = await self._database.transaction(partial(self.remove, each.id, {}))
            removed += size is not None

        async def rest(session: Session) -> None:
            async for each in self._uploads.find({"owner": owner}, session=session):
                await self.discard(keys_of(each), session)
            await self._uploads.delete_many({"owner": owner}, session=session)
            await self._owners.delete_one({"_id": owner, "files": 0}, session=session)

        await self._database.transaction(rest)
        return removed

    async def remove(self, file_id: str, guard: Document, session: Session) -> int | None:
        """Remove a file that still fits `guard`, and what it is used for; its size, or None."""
        query = {"_id": file_id, **guard}
        found: Document | None = await self._files.find_one_and_delete(query, session=session)
        if found is None:
            return None
        await self._uses.delete_many({"file": file_id}, session=session)
        await self._add(found["owner"], -found["size"], -1, session)
        await self._blobs.update_one(
            {"_id": found["sha"]}, {"$set": {"check": True}}, session=session
        )
        return int(found["size"])


def keys_of(upload: Document) -> list[str]:
    """The objects of an upload that is not finished."""
    return [*(each["key"] for each in upload["parts"]), *upload["pending"]]


def record_of(found: Document) -> FileRecord:
    """A file from its document."""
    return FileRecord(
        id=found["_id"],
        chat=found["chat"],
        owner=found["owner"],
        name=found["name"],
        size=int(found["size"]),
        content_type=found["type"],
        sha256=found["sha"],
        key=found["key"],
        thumbnail=found.get("thumbnail"),
        width=found.get("width"),
        height=found.get("height"),
        at=int(found["at"]),
    )


def document_of(file: FileRecord, keep_until: int) -> dict[str, Any]:
    """The document of a file that no message refers to yet."""
    document: Document = {
        "_id": file.id,
        "chat": file.chat,
        "owner": file.owner,
        "name": file.name,
        "size": Int64(file.size),
        "type": file.content_type,
        "sha": file.sha256,
        "key": file.key,
        "at": Int64(file.at),
        "free": True,
        "keep_until": Int64(keep_until),
    }
    for name in ("thumbnail", "width", "height"):
        if (value := getattr(file, name)) is not None:
            document[name] = value
    return document
