"""Asks ClamAV's `clamd` about a file, by INSTREAM over TCP or a UNIX socket.

`z`-commands end with a NUL; the file goes in chunks, each behind its length, up to an empty one.
"""

import asyncio
import logging
import re
import struct
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

from .errors import Refused

CONNECT_S = 5.0
STEP_S = 30.0
VERDICT_S = 120.0
ANSWER_BYTES = 4096
PORT = 3310
SCHEMES = ("tcp", "unix")

_FOUND = re.compile(r"(?:stream: )?(.+) FOUND")

_log = logging.getLogger("hikyaku.files")


class Scanner:
    """`tcp://host:port` or `unix:///path` of a `clamd`."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(f"{url!r} does not fit: expected tcp://host:port or unix:///path")
        self._url = url
        self._path = unquote(parts.path) if parts.scheme == "unix" else ""
        self._host, self._port = parts.hostname or "", parts.port or PORT
        self.infected = 0
        self.failures = 0

    async def check(self, chunks: AsyncIterator[bytes]) -> None:
        """Return if nothing was found. Raises `Refused`: the name of it, or that nobody knows."""
        try:
            answer = await self._ask(chunks)
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise self._failed(str(error) or "no answer in time") from error
        if answer.endswith(" OK") or answer == "OK":
            return
        if found := _FOUND.fullmatch(answer):
            self.infected += 1
            raise Refused("forbidden", f"file: it is infected: {found[1][:200]}")
        if "size limit exceeded" in answer:
            _log.error("the virus scanner takes no file of this size: raise its StreamMaxLength")
            raise Refused("too_large", "file: the virus scanner takes none of this size")
        raise self._failed(answer[:200])

    def _failed(self, why: str) -> Refused:
        self.failures += 1
        _log.error("the virus scanner at %s: %s", self._url, why)
        return Refused("unavailable", "the virus scanner does not answer; try again")

    async def _ask(self, chunks: AsyncIterator[bytes]) -> str:
        async with asyncio.timeout(CONNECT_S):
            if self._path:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=ANSWER_BYTES)
            else:
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, limit=ANSWER_BYTES
                )
        try:
            answering = asyncio.create_task(reader.readuntil(b"\0"))
            try:
                await self._send(writer, chunks, answering)
                async with asyncio.timeout(VERDICT_S):
                    answer = await answering
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
            return answer.rstrip(b"\0").decode("utf-8", "replace").strip()
        finally:
            writer.transport.abort()

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        chunks: AsyncIterator[bytes],
        answering: "asyncio.Task[bytes]",
    ) -> None:
        """Send it all, or until an answer comes before: of what is too large it hears no more."""
        writer.write(b"zINSTREAM\0")
        try:
            async for chunk in chunks:
                if answering.done():
                    return
                writer.write(struct.pack(">I", len(chunk)))
                writer.write(chunk)
                async with asyncio.timeout(STEP_S):
                    await writer.drain()
            writer.write(struct.pack(">I", 0))
            async with asyncio.timeout(STEP_S):
                await writer.drain()
        except (ConnectionError, RuntimeError):
            # It has answered already, or `answering` says what happened. RuntimeError is uvloop's
            # for a connection of whose end nobody was told yet.
            return
