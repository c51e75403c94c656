"""What one request brings of an upload in parts, kept part by part in the object store."""

import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from store.errors import StoreError
from store.file_objects import FileObjects
from store.file_uploads import Part, Upload, Uploads

from .errors import Refused

PART_BYTES = 2 * 1024 * 1024
HASHES = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}

_CHECKSUM_MISMATCH = 460

_log = logging.getLogger("hikyaku.files")


class Checksum(NamedTuple):
    """What the bytes of a request must hash to."""

    algorithm: str
    value: bytes


class Receiving:
    """Takes what one request brings of an upload, and keeps it part by part.

    With a checksum it counts only when all of it has come and is right; without, a client that is
    cut off finds all that had come.
    """

    def __init__(
        self,
        uploads: Uploads,
        objects: FileObjects,
        upload: Upload,
        expires: Callable[[], int],
        checksum: Checksum | None,
    ):
        self.upload = upload
        self._uploads = uploads
        self._objects = objects
        self._expires = expires
        self._checksum = checksum
        self._hash = HASHES[checksum.algorithm]() if checksum is not None else None
        self._written: list[Part] = []
        self._waiting = bytearray()

    @property
    def _left(self) -> int:
        kept = sum(each.size for each in self._written) + len(self._waiting)
        return self.upload.length - self.upload.offset - kept

    async def take(self, body: AsyncIterator[bytes]) -> bytes | None:
        """Everything; the last part when the upload is complete with it, which is not kept."""
        try:
            async for piece in body:
                if self._hash is not None:
                    self._hash.update(piece)
                self._waiting += piece
                while len(self._waiting) > PART_BYTES:
                    await self._write(PART_BYTES)
        except Refused as cut:
            if cut.code == "timeout" and self._checksum is None and self._left:
                await self._write(len(self._waiting))
            await self._drop()
            raise
        if self._hash is not None and self._hash.digest() != self._checksum_value:
            await self._drop()
            message = "Upload-Checksum: the bytes are others"
            raise Refused("invalid", message, status=_CHECKSUM_MISMATCH)
        if self._left:
            await self._write(len(self._waiting))
        await self._commit()
        return None if self._left else bytes(self._waiting)

    @property
    def _checksum_value(self) -> bytes:
        return b"" if self._checksum is None else self._checksum.value

    async def _write(self, count: int) -> None:
        data = bytes(self._waiting[:count])
        if not data:
            return
        key = await self._uploads.begin_part(self.upload.id)
        if key is None:
            raise Refused("conflict", "the upload takes no more; begin another")
        await self._objects.put(key, data)
        del self._waiting[:count]
        self._written.append(Part(key, len(data)))
        if self._checksum is None:
            await self._commit()

    async def _commit(self) -> None:
        if not self._written:
            return
        moved = await self._uploads.append(self.upload, self._written, self._expires())
        if moved is None:
            await self._drop()
            raise Refused("conflict", "the upload has moved on; ask where it is")
        self.upload, self._written = moved, []

    async def _drop(self) -> None:
        """Delete what does not count; what is not deleted now is when the upload is forgotten."""
        keys = [each.key for each in self._written]
        self._written = []
        try:
            for key in keys:
                await self._objects.delete(key)
            if keys:
                await self._uploads.drop_parts(self.upload.id, keys)
        except StoreError as error:
            _log.warning("parts are deleted later: %s", error)
