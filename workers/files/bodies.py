"""Request bodies, piece by piece: every wait has a deadline, and a client that is gone is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)
from starlette.requests import ClientDisconnect, Request

from .errors import Refused
from .spool import Spool

PIECE_S = 60.0
FIELD_BYTES = 1024
FIELDS = 16
FORM_BYTES = 64 * 1024
"""What a form may have around its file."""


async def pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, up to `limit` bytes. Raises `Refused`, also when nothing more comes."""
    stream = aiter(request.stream())
    size = 0
    while True:
        try:
            async with asyncio.timeout(PIECE_S):
                piece = await anext(stream, None)
        except TimeoutError:
            raise Refused("timeout", "nothing more came of the body") from None
        except ClientDisconnect:
            raise Refused("timeout", "the client is gone") from None
        if piece is None:
            return
        size += len(piece)
        if size > limit:
            raise Refused("too_large", f"the body has at most {limit} bytes")
        if piece:
            yield piece


def content_length(headers: Mapping[str, str]) -> int | None:
    """What the request says of its size, if it does."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


class Form:
    """A form with one file, which goes into a spool as it comes.

    `check` is told the chat as soon as it is known, and may refuse.
    """

    def __init__(
        self,
        request: Request,
        spool: Spool,
        *,
        limit: int,
        check: Callable[[str], Awaitable[None]],
    ):
        self._request = request
        self._spool = spool
        self._limit = limit + FORM_BYTES
        self._check = check
        self.chat_id: str | None = None
        self.name: str | None = None

    async def read(self) -> None:
        """Read it all. Raises `Refused`."""
        try:
            kind, options = parse_options_header(self._request.headers.get("content-type", ""))
            if kind != "multipart/form-data" or not options.get("boundary"):
                raise Refused("invalid", "send the form as multipart/form-data, with a boundary")
            with PushMultipartParser(options["boundary"], max_segment_count=FIELDS) as parser:
                await self._parse(parser)
        except MultipartError as error:
            raise Refused("invalid", f"the form cannot be read: {error}"[:200]) from None
        if self.name is None:
            raise Refused("invalid", "file: is missing")
        if self.chat_id is None:
            raise Refused("invalid", "chat_id: is missing")

    async def _parse(self, parser: PushMultipartParser) -> None:
        part: MultipartSegment | None = None
        field = bytearray()
        async for piece in pieces(self._request, self._limit):
            for event in parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    part, field = event, bytearray()
                    self._begin(event)
                elif part is not None and event is not None:
                    if part.name == "file":
                        await self._spool.write(event)
                    else:
                        field += event
                        if len(field) > FIELD_BYTES:
                            raise Refused("invalid", f"{(part.name or '')[:64]}: is too long")
                elif part is not None and part.name == "chat_id":
                    self.chat_id = _text(field)
                    await self._check(self.chat_id)

    def _begin(self, part: MultipartSegment) -> None:
        if part.name == "file":
            if self.name is not None:
                raise Refused("invalid", "file: only one at a time")
            self.name = part.filename or ""
        elif part.name == "chat_id" and self.chat_id is not None:
            raise Refused("invalid", "chat_id: only one")


def _text(field: bytearray) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise Refused("invalid", "chat_id: is not UTF-8") from None
