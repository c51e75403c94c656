"""Gives files out: whole or in parts, and never so that a browser runs what is in them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from broker.files import PATH, Vouching
from store.errors import StoreError
from store.file_objects import FileObjects

from .access import Access
from .bodies import pieces
from .errors import Refused
from .intake import THUMBNAIL_TYPE, described
from .kinds import is_inline
from .names import disposition
from .ranges import Part, not_modified, wanted

LINK_S = 3600
LINK_MOST_S = 86_400
BODY_BYTES = 1024
SEND_S = 60.0
AT_ONCE = 256

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
    ),
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization",
}

_log = logging.getLogger("hikyaku.files")


class LinkRequest(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/files/{id}/link`; it may be left out."""

    ttl_s: Annotated[int, Meta(ge=1, le=LINK_MOST_S)] = LINK_S
    thumbnail: bool = False


class Downloads:
    """The requests that read. Raise `Refused` and `StoreError`."""

    def __init__(self, access: Access, objects: FileObjects, vouching: Vouching):
        self._access = access
        self._objects = objects
        self._vouching = vouching
        self.now = 0
        self.begun = 0
        self.bytes = 0
        self.broken = 0

    async def content(self, request: Request, user: str) -> Response:
        """`GET /v1/files/{id}`: the file."""
        file = await self._access.file(request.path_params["id"], user)
        kind = "inline" if is_inline(file.content_type) else "attachment"
        headers = {
            "Content-Type": file.content_type,
            "Content-Disposition": disposition(kind, file.name),
            "ETag": f'"{file.sha256}"',
        }
        return await self._answer(request, file.key, file.size, headers)

    async def thumbnail(self, request: Request, user: str) -> Response:
        """`GET /v1/files/{id}/thumbnail`: a small picture of an image."""
        file = await self._access.file(request.path_params["id"], user)
        if file.thumbnail is None:
            raise Refused("not_found", "this file has no thumbnail")
        headers = {
            "Content-Type": THUMBNAIL_TYPE,
            "Content-Disposition": disposition("inline", f"{file.name}.webp"),
            "ETag": f'"{file.sha256}-thumbnail"',
        }
        headers = {**SAFE, **headers}
        if not_modified(request.headers, headers["ETag"]):
            return _unchanged(headers)
        data = await self._objects.get(file.thumbnail)
        self.bytes += len(data)
        return Response(data, headers=headers)

    async def info(self, request: Request, user: str) -> Response:
        """`GET /v1/files/{id}/info`: its description."""
        file = await self._access.file(request.path_params["id"], user)
        return JSONResponse(msgspec.to_builtins(described(file)))

    async def link(self, request: Request, user: str) -> Response:
        """`POST /v1/files/{id}/link`: an address that works without a token for a while."""
        body = b"".join([piece async for piece in pieces(request, BODY_BYTES)])
        try:
            asked = msgspec.json.decode(body, type=LinkRequest) if body else LinkRequest()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused("invalid", str(error)) from None
        file = await self._access.file(request.path_params["id"], user)
        if asked.thumbnail and file.thumbnail is None:
            raise Refused("not_found", "this file has no thumbnail")
        path = f"{PATH}/{file.id}" + ("/thumbnail" if asked.thumbnail else "")
        until = int(time.time()) + asked.ttl_s
        url = self._vouching.link(path, user, until)
        return JSONResponse({"url": url, "expires_at": until * 1000})

    async def _answer(
        self, request: Request, key: str, size: int, headers: dict[str, str]
    ) -> Response:
        headers = {**SAFE, "Accept-Ranges": "bytes", **headers}
        etag = headers["ETag"]
        if not_modified(request.headers, etag):
            return _unchanged(headers)
        part = Part(0, size, size, asked=False)
        if request.method == "GET":
            asked = wanted(request.headers, etag, size)
            if asked is None:
                message = f"range: the file has {size} bytes"
                there = {"Content-Range": f"bytes */{size}"}
                raise Refused("invalid", message, status=416, headers=there)
            part = asked
        headers["Content-Length"] = str(part.end - part.start)
        if part.asked:
            headers["Content-Range"] = part.content_range
        status = 206 if part.asked else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        if self.now >= AT_ONCE:
            raise Refused("overloaded", "too many downloads at once; try again")
        self.begun += 1
        chunks = self._objects.read(key, part.start, part.end)
        # Read before anything is answered, so that what fails here has a status of its own.
        first = await anext(chunks, b"")
        return _Download(self, first, chunks, status, headers)


def _unchanged(headers: dict[str, str]) -> Response:
    kept = {name: headers[name] for name in ("ETag", "Cache-Control", "Vary")}
    return Response(status_code=304, headers=kept)


class _Download(Response):
    """Sends a file as it is read, until the client has it or is gone."""

    def __init__(
        self,
        downloads: Downloads,
        first: bytes,
        chunks: AsyncGenerator[bytes, None],
        status: int,
        headers: dict[str, str],
    ):
        self.status_code = status
        self.background = None
        self.body = b""
        self.init_headers(headers)
        self._downloads = downloads
        self._first = first
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._downloads.now += 1
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._chunks.aclose()
            self._downloads.now -= 1
        if not sending.cancelled() and (error := sending.exception()) is not None:
            if not isinstance(error, StoreError | TimeoutError):
                raise error
            # The length was told: that less came tells the client.
            self._downloads.broken += 1
            _log.error("a download broke off: %s", error or "the client takes nothing")

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        chunk: bytes | None = self._first
        while chunk is not None:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._downloads.bytes += len(chunk)
            chunk = await anext(self._chunks, None)
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
