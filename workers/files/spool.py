"""A file on its way: bytes on disk under no name, so that they are gone with the process.

Reading, writing and hashing go on in a thread, a megabyte at a time.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .errors import Refused
from .kinds import HEAD_BYTES

CHUNK = 1024 * 1024

_T = TypeVar("_T")

_log = logging.getLogger("hikyaku.files")


class Spool:
    """Takes up to `limit` bytes, then gives them out. Use as a context manager.

    Raises `Refused`: `too_large`, or `unavailable` when the disk is full.
    """

    def __init__(self, folder: str, limit: int):
        self._folder = Path(folder)
        self._limit = limit
        self._waiting = bytearray()
        self._hash = hashlib.sha256()
        self._fd = -1
        self.size = 0

    def __enter__(self) -> "Spool":
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._fd = os.dup(file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        self._fd = -1

    def fileno(self) -> int:
        """The open file; its position is anywhere."""
        return self._fd

    @property
    def sha256(self) -> str:
        """The hash of what was written and flushed."""
        return self._hash.hexdigest()

    async def write(self, data: bytes | bytearray) -> None:
        """Append."""
        if self.size + len(data) > self._limit:
            raise too_large(self._limit)
        self.size += len(data)
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            await self.flush()

    async def flush(self) -> None:
        """Everything is in the file."""
        waiting, self._waiting = bytes(self._waiting), bytearray()
        try:
            await in_thread(self._write, waiting)
        except OSError as error:
            raise self._failed(error) from error

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _failed(self, error: OSError) -> Refused:
        _log.error("cannot spool in %s: %s", self._folder, error.strerror)
        return Refused("unavailable", "there is no room for uploads now; try again later")

    async def adopt(self) -> None:
        """Take what another process wrote into the file as what this is."""
        self._hash = hashlib.sha256()
        self.size = os.fstat(self._fd).st_size
        async for chunk in self.read():
            await in_thread(self._hash.update, chunk)

    def head(self) -> bytes:
        """The beginning, by which the kind is known."""
        return os.pread(self._fd, HEAD_BYTES, 0)

    async def read(self) -> AsyncIterator[bytes]:
        """Everything, from the beginning."""
        at = 0
        while chunk := await in_thread(os.pread, self._fd, CHUNK, at):
            at += len(chunk)
            yield chunk


async def in_thread(work: Callable[..., _T], *arguments: object) -> _T:
    """Run `work` in a thread; also when cancelled it has ended before this does.

    A file must not be closed under a thread: its descriptor would be another file's.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def too_large(limit: int) -> Refused:
    """The refusal of a file over the limit."""
    return Refused("too_large", f"file: at most {limit} bytes")
