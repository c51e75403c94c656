"""The object store: a local folder or S3, behind one small class with deadlines.

What `put` has returned from survives a power failure: S3 promises that, and for a folder the file
and its directories are synced here.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from .errors import StoreError, StoreUnavailable

CALL_S = 60.0
REQUEST_S = 20
RETRIES_S = 30
LISTED = 1000

SCHEMES = ("file", "s3")


class Gone(StoreError):
    """There is no such object."""


class Objects:
    """Objects by key below one URL: `file:///folder` or `s3://bucket/prefix`.

    S3 takes its credentials, region and endpoint from the usual `AWS_*` variables. Raises
    `StoreUnavailable` when the store does not answer or refuses, `Gone` for an object that is not
    there.
    """

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(f"{url!r} does not fit: expected file:///folder or s3://bucket/prefix")
        self.url = url
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._opened: Any = None

    @property
    def _store(self) -> Any:
        """Opened at first use, since opening makes the folder."""
        if self._opened is None:
            if self._folder is not None:
                self._opened = LocalStore(self._folder, mkdir=True)
            else:
                self._opened = _s3(self.url)
        return self._opened

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
            raise Gone(f"{what} is not in the object store") from error
        except (BaseError, OSError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            raise StoreUnavailable(f"the object store at {self.url}: {what}: {why}") from error

    async def put(self, key: str, data: bytes) -> None:
        """Store an object, durably."""
        with self._errors(key):
            async with asyncio.timeout(CALL_S):
                await obstore.put_async(self._store, key, data)
                if self._folder is not None:
                    await asyncio.to_thread(synced, self._folder, self._folder / key)

    async def get(self, key: str) -> bytes:
        """A whole object."""
        with self._errors(key):
            async with asyncio.timeout(CALL_S):
                found = await obstore.get_async(self._store, key)
                return bytes(await found.bytes_async())

    async def part(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` to before `end`, in one request."""
        with self._errors(key):
            async with asyncio.timeout(CALL_S):
                return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))

    async def delete(self, key: str) -> None:
        """Remove an object; if it is not there, that is well."""
        try:
            with self._errors(key):
                async with asyncio.timeout(CALL_S):
                    await obstore.delete_async(self._store, key)
        except Gone:
            return

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """The keys below a prefix."""
        with self._errors(prefix):
            listing = aiter(obstore.list(self._store, prefix, chunk_size=LISTED))
            while True:
                async with asyncio.timeout(CALL_S):
                    chunk = await anext(listing, None)
                if chunk is None:
                    return
                for each in chunk:
                    yield each["path"]


def _s3(url: str) -> S3Store:
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    return S3Store.from_url(
        url,
        client_options={
            "timeout": timedelta(seconds=REQUEST_S),
            "connect_timeout": timedelta(seconds=5),
            "allow_http": endpoint.startswith("http://"),
        },
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=RETRIES_S)},
    )


def synced(folder: Path, file: Path) -> None:
    """Make a file and the directories above it, up to the folder, survive a power failure."""
    for path in (file, *file.parents):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if path == folder:
            return
