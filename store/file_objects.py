"""The object store of files: streamed both ways, so that no file is ever whole in memory.

An object is there whole or not at all. What a killed process leaves half written is out of sight:
in a folder it is a file beside the others, which `tidy` removes; in S3 a multipart upload, which
the bucket's own rule removes (`docs/operations.md`).
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import obstore

from .archive_objects import CALL_S, Objects, synced

PUT_S = 300.0
PUT_CHUNK = 5 * 1024 * 1024
PUT_PARALLEL = 2
READ_CHUNK = 256 * 1024

_HALF = re.compile(r"#\d+$")


class FileObjects(Objects):
    """`Objects` whose objects are streamed. Raises `StoreUnavailable` and `Gone` as it does."""

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an object, durably, at most some chunks of it in memory."""
        with self._errors(key):
            async with asyncio.timeout(PUT_S):
                await obstore.put_async(
                    self._store,
                    key,
                    chunks,
                    chunk_size=PUT_CHUNK,
                    max_concurrency=PUT_PARALLEL,
                )
                if self._folder is not None:
                    await asyncio.to_thread(synced, self._folder, self._folder / key)

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of an object from `start` to before `end`."""
        if start >= end:
            return
        with self._errors(key):
            async with asyncio.timeout(CALL_S):
                found = await obstore.get_async(self._store, key, options={"range": (start, end)})
            async for chunk in _chunks(found):
                yield chunk

    async def whole(self, key: str) -> AsyncGenerator[bytes, None]:
        """All bytes of an object, however many there are."""
        with self._errors(key):
            async with asyncio.timeout(CALL_S):
                found = await obstore.get_async(self._store, key)
            async for chunk in _chunks(found):
                yield chunk

    async def tidy(self, older_than_s: float) -> int:
        """Remove from a folder what is half written and older than this; how much there was."""
        if self._folder is None:
            return 0
        return await asyncio.to_thread(self._tidied, time.time() - older_than_s)

    def _tidied(self, before: float) -> int:
        removed = 0
        for folder, _, names in os.walk(str(self._folder)):
            for name in names:
                path = os.path.join(folder, name)
                if not _HALF.search(name):
                    continue
                with suppress(FileNotFoundError):
                    if os.stat(path).st_mtime < before:
                        os.unlink(path)
                        removed += 1
        return removed


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    chunks = aiter(found.stream(min_chunk_size=READ_CHUNK))
    while True:
        async with asyncio.timeout(CALL_S):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield bytes(chunk)
