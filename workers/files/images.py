"""Has images looked into by a process of their own, a few at a time, with a deadline for each."""

import asyncio
import logging
import sys

import msgspec
from msgspec import Struct

from .errors import Refused
from .spool import Spool
from .turns import Turns

AT_ONCE = 2
DEADLINE_S = 20

_log = logging.getLogger("hikyaku.files")


class Looked(Struct, kw_only=True):
    """What the process says; `code` and `message` when the image is refused."""

    width: int = 0
    height: int = 0
    code: str = ""
    message: str = ""


class Images:
    """Takes the metadata out of images and makes their thumbnails."""

    def __init__(self, *, pixels: int, file_bytes: int):
        self._pixels = pixels
        self._file_bytes = file_bytes
        self.turns = Turns(AT_ONCE, "images")
        self.looked = 0
        self.refused = 0

    async def look(self, image: Spool, format: str, cleaned: Spool, thumbnail: Spool) -> Looked:
        """Look into an image and write the two others. Raises `Refused`."""
        async with self.turns.take():
            found = await self._process(image, format, cleaned, thumbnail)
        self.looked += 1
        if found.code:
            self.refused += 1
            raise Refused(found.code, found.message)
        await cleaned.adopt()
        await thumbnail.adopt()
        return found

    async def _process(self, image: Spool, format: str, cleaned: Spool, thumbnail: Spool) -> Looked:
        written = (cleaned.fileno(), thumbnail.fileno())
        limits = (self._pixels, self._file_bytes, DEADLINE_S)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "workers.files.image_process", format),
            *map(str, (*limits, *written)),
            stdin=image.fileno(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=written,
            env={},  # It reads what strangers sent: no secret of ours is with it.
        )
        try:
            async with asyncio.timeout(DEADLINE_S + 1):
                answer, said = await process.communicate()
        except TimeoutError:
            answer, said = b"", b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return msgspec.json.decode(answer, type=Looked)
        except msgspec.DecodeError:
            status = process.returncode
            _log.warning("an image was not looked into: status %s: %s", status, said[-500:])
            return Looked(code="invalid", message="file: the image cannot be read")
