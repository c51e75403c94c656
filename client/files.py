"""Files: sent and fetched over the server's HTTP, on from where it was when a connection breaks.

An upload goes by tus 1.0, a download by ranges. Both give up when nothing moves for a while, and
not because it takes long.
"""

import asyncio
import errno
import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import msgspec
from msgspec import Struct

from edge.frames import File

from .errors import Conflict, NotFound, ServerError
from .requests import Requests
from .web import PIECE_BYTES, LocalFailed, Moving, Web, decoded

PATH = "/v1/files"
PATIENCE_S = 60.0
PLACES = 3
NAMES = 100

_TUS = {"Tus-Resumable": "1.0.0"}
_FILE_HEADER = "Hikyaku-File"

Progress = Callable[[int, int], None]
"""Called with the bytes that have gone over, and all there are."""


class _Link(Struct):
    url: str


class FileRequests(Requests):
    """The methods of `Client` about files. They need no connection, only the token."""

    async def upload(
        self,
        chat_id: str,
        source: str | Path | BinaryIO,
        *,
        name: str | None = None,
        progress: Progress | None = None,
        patience_s: float = PATIENCE_S,
    ) -> File:
        """Upload a file for a chat; attach its `id` to a message within a day.

        `source` is a path, or a binary file that can be sought in. Raises `OSError` when it cannot
        be read, `TransferStalled` when nothing moves for `patience_s`.
        """
        if isinstance(source, str | Path):
            path = Path(source)
            opening: AbstractContextManager[BinaryIO] = await asyncio.to_thread(path.open, "rb")
            name = name or path.name
        else:
            opening = nullcontext(source)
        with opening as stream:
            sending = _Sending(stream, chat_id, name or "file", progress)
            async with self._web(patience_s) as web:
                file_id = await web.again(lambda moving: sending.attempt(web, moving))
                return await web.again(lambda _: _info(web, file_id))

    async def download(
        self,
        file_id: str,
        to: str | Path,
        *,
        thumbnail: bool = False,
        progress: Progress | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Path:
        """Download a file, whole or not at all; gives where it is.

        Into a folder it goes under its own name, or one like it if there is such a file already.
        """
        async with self._web(patience_s) as web:
            target = Path(to)
            own_name = await asyncio.to_thread(target.is_dir)
            if own_name:
                file = await web.again(lambda _: _info(web, file_id))
                target = await asyncio.to_thread(_taken_name, target, Path(file.name).name)
            path = f"{PATH}/{file_id}" + ("/thumbnail" if thumbnail else "")
            # Its own, since somebody else may fetch to the same place.
            part = target.with_name(f".{token_hex(8)}.part")
            try:
                with await asyncio.to_thread(part.open, "xb") as out:
                    fetching = _Fetching(path, out, progress)
                    await web.again(lambda moving: fetching.attempt(web, moving))
                await asyncio.to_thread(os.replace, part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                if own_name:
                    target.unlink(missing_ok=True)
                raise
        return target

    async def file_info(self, file_id: str) -> File:
        """Describe a file."""
        async with self._web(PATIENCE_S) as web:
            return await web.again(lambda _: _info(web, file_id))

    async def file_link(self, file_id: str, *, ttl_s: int = 3600, thumbnail: bool = False) -> str:
        """Make an address that works without a token for `ttl_s`, a day at most."""
        asked = msgspec.json.encode({"ttl_s": ttl_s, "thumbnail": thumbnail})

        async def attempt(_: Moving) -> str:
            path = f"{PATH}/{file_id}/link"
            async with web.request("POST", path, data=asked) as answer:
                return decoded(await answer.read(), _Link).url

        async with self._web(PATIENCE_S) as web:
            return web.absolute(await web.again(attempt))


def _taken_name(folder: Path, name: str) -> Path:
    """A name that nobody else has, taken by an empty file."""
    first = folder / (name or "file")
    others = (first.with_name(f"{first.stem} ({n}){first.suffix}") for n in range(1, NAMES))
    for path in chain([first], others):
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise FileExistsError(errno.EEXIST, f"there are {NAMES} files of this name", str(first))


async def _info(web: Web, file_id: str) -> File:
    async with web.request("GET", f"{PATH}/{file_id}/info") as answer:
        return decoded(await answer.read(), File)


class _Sending:
    """An upload: where it goes, and how far it is."""

    def __init__(
        self, stream: BinaryIO, chat_id: str, name: str, progress: Progress | None
    ) -> None:
        self._stream = stream
        self._begin = stream.tell()
        self._size = stream.seek(0, os.SEEK_END) - self._begin
        self._metadata = f"chat_id {_base64(chat_id)},filename {_base64(name)}"
        self._progress = progress
        self._place: str | None = None

    async def attempt(self, web: Web, moving: Moving) -> str:
        """Go on from where the server has it; the id of the file."""
        for _ in range(PLACES):
            offset, done = await self._where(web)
            if done is not None:
                return done
            try:
                return await self._send(web, moving, offset)
            except (NotFound, Conflict):
                # It has expired, or what was sent before a cut has come after all.
                continue
        raise ServerError("internal", "the server does not say where an upload is")

    async def _where(self, web: Web) -> tuple[int, str | None]:
        """Up to where the server has it, and the id of the file that it has become."""
        if self._place is not None:
            try:
                async with web.request("HEAD", self._place, headers=_TUS) as answer:
                    offset = answer.headers.get("Upload-Offset", "0")
                    return int(offset), answer.headers.get(_FILE_HEADER)
            except NotFound:
                self._place = None
        headers = {**_TUS, "Upload-Length": str(self._size), "Upload-Metadata": self._metadata}
        async with web.request("POST", f"{PATH}/tus", headers=headers) as answer:
            self._place = answer.headers["Location"]
            return 0, answer.headers.get(_FILE_HEADER)

    async def _send(self, web: Web, moving: Moving, offset: int) -> str:
        assert self._place is not None
        headers = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(self._size - offset),
            "Upload-Offset": str(offset),
        }
        pieces = self._pieces(moving, offset)
        async with web.request("PATCH", self._place, data=pieces, headers=headers) as answer:
            if (done := answer.headers.get(_FILE_HEADER)) is None:
                raise Conflict("conflict", "the server has not all of it yet")
            return done

    async def _pieces(self, moving: Moving, offset: int) -> AsyncIterator[bytes]:
        while offset < self._size:
            piece = await asyncio.to_thread(self._read, offset)
            offset += len(piece)
            yield piece
            moving.moved(last=offset == self._size)
            if self._progress is not None:
                self._progress(offset, self._size)

    def _read(self, offset: int) -> bytes:
        try:
            self._stream.seek(self._begin + offset)
            piece = self._stream.read(min(PIECE_BYTES, self._size - offset))
        except OSError as error:
            raise LocalFailed from error
        if not piece:
            raise LocalFailed from OSError("the file became shorter while it was sent")
        return piece


class _Fetching:
    """A download: what has come of it."""

    def __init__(self, path: str, out: BinaryIO, progress: Progress | None) -> None:
        self._path = path
        self._out = out
        self._progress = progress
        self._done = 0
        self._etag = ""
        self._hash = hashlib.sha256()

    async def attempt(self, web: Web, moving: Moving) -> None:
        """Go on from what is here; from the beginning if it is another file now."""
        headers = {"Range": f"bytes={self._done}-", "If-Range": self._etag} if self._done else {}
        async with web.request("GET", self._path, headers=headers) as answer:
            if answer.status != 206:
                self._out.seek(0)
                self._out.truncate()
                self._done, self._hash = 0, hashlib.sha256()
            self._etag = answer.headers.get("ETag", "")
            size = self._done + int(answer.headers.get("Content-Length", 0))
            async for piece in answer.content.iter_any():
                await asyncio.to_thread(self._out.write, piece)
                self._hash.update(piece)
                self._done += len(piece)
                moving.moved()
                if self._progress is not None:
                    self._progress(self._done, size)
        if self._etag == f'"{self._hash.hexdigest()}"' or self._etag.endswith('-thumbnail"'):
            return
        raise ServerError("internal", "what came is not the file that was asked for")


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "replace")).decode()
