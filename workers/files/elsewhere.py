"""Brings files here that users of other sites have sent, when somebody here first wants one.

A file comes in pieces through the worker `relay`, as large as the link carries in a moment, is held
against the size and SHA-256 that its message tells, and is then taken in like an upload: scanned,
looked into, and kept as long as a message here refers to it. So it can be read during a cut too.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator

import msgspec
from prometheus_client import Metric

from broker import relay
from broker.bus import Bus
from broker.errors import Unavailable
from broker.files import PIECE_BYTES, File
from broker.metrics import counter, gauge
from broker.requests import Failure, ask
from store.errors import StoreError
from store.files import FileRecord, Files, Used

from ..pace import Pace
from .errors import RETRYABLE, Refused
from .intake import Intake, Source
from .names import clean
from .spool import Spool

AT_ONCE = 4
WAITING = 64
"""So many files are brought at a time, and so many more wait for their turn."""

WAIT_S = 20.0
"""Who asks for a file is told after this that it is on its way; it comes all the same."""

ASK_S = 10.0
STUCK_S = 2.0
PATIENCE_S = 60.0
"""Who waits for a file of which no piece comes is told so; after `PATIENCE_S` it is given up until
somebody asks again."""

PAUSE_S = 0.5
REFUSED_S = 300.0
REFUSED = 1000
"""What cannot be taken in is not asked for again for this long; so many are remembered."""

FIRST_BYTES = 16 * 1024

_log = logging.getLogger("hikyaku.files")


class _Coming:
    """A file on its way; `got` bytes of it have come, from the site `site`."""

    def __init__(self, used: Used):
        self.used = used
        self.file = msgspec.convert(used.told, File)
        self.got = 0
        self.site = ""
        self.trouble = ""
        self.stuck = asyncio.Event()
        self.task: asyncio.Task[None]

    async def wait(self) -> bool:
        """Until it is here, or none should wait any longer; whether it is done."""
        stuck = asyncio.create_task(self.stuck.wait())
        try:
            await asyncio.wait(
                {self.task, stuck}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stuck.cancel()
        return self.task.done()

    @property
    def how_far(self) -> Refused:
        """What one is told who does not wait any longer."""
        of = f" from {self.site}" if self.site else ""
        message = f"the file is on its way{of}: {self.got} of {self.file.size} bytes came"
        why = f" ({self.trouble})" if self.trouble else ""
        return Refused("unavailable", f"{message}{why}; try again")


class Elsewhere:
    """Use as a context manager, which ends what is on its way. Raises `Refused`, `StoreError`."""

    def __init__(self, bus: Bus, files: Files, intake: Intake, *, file_bytes: int):
        self._bus = bus
        self._files = files
        self._intake = intake
        self._file_bytes = file_bytes
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._coming: dict[str, _Coming] = {}
        self._refused: OrderedDict[str, tuple[float, Refused]] = OrderedDict()
        self.results: Counter[str] = Counter()
        self.bytes = 0

    async def __aenter__(self) -> "Elsewhere":
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [each.task for each in self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def bring(self, used: Used) -> FileRecord:
        """The file, once it is here; whoever asks meanwhile waits for the same."""
        key: str = used.told["id"]
        coming = self._coming.get(key) or self._begin(key, used)
        if not await coming.wait():
            raise coming.how_far
        if coming.task.cancelled():
            raise Refused("unavailable", "this server stops; try again")
        coming.task.result()
        found = await self._files.find(key)
        if found is None:
            raise Refused("unavailable", "the file was removed just now; try again")
        return found

    def _begin(self, key: str, used: Used) -> _Coming:
        until, why = self._refused.get(key, (0.0, None))
        if why is not None and _now() < until:
            raise why
        coming = _Coming(used)
        if coming.file.size > self._file_bytes:
            message = f"the file has {coming.file.size} bytes, and here one may have"
            raise Refused("too_large", f"{message} {self._file_bytes}")
        if len(self._coming) >= AT_ONCE + WAITING:
            raise Refused("overloaded", "too many files of other sites are on their way; try again")
        self._coming[key] = coming
        coming.task = asyncio.create_task(self._take(coming))
        coming.task.add_done_callback(lambda task: self._done(key, task))
        return coming

    def _done(self, key: str, task: asyncio.Task[None]) -> None:
        del self._coming[key]
        if task.cancelled():
            return
        error = task.exception()
        self.results["brought" if error is None else "failed"] += 1
        if isinstance(error, Refused) and error.code not in RETRYABLE:
            self._refused[key] = _now() + REFUSED_S, error
            self._refused.move_to_end(key)
            if len(self._refused) > REFUSED:
                self._refused.popitem(last=False)
        if error is not None and not isinstance(error, Refused | StoreError):
            _log.error("the file %s was not brought here", key, exc_info=error)

    async def _take(self, coming: _Coming) -> None:
        async with self._turns:
            with self._intake.spool() as spool:
                await self._fetch(coming, spool)
                await spool.flush()
                used, file = coming.used, coming.file
                if (spool.size, spool.sha256) != (file.size, file.sha256):
                    _log.error(
                        "%s gave other bytes for the file %s than its message in %s tells",
                        *(coming.site, file.id, used.chat),
                    )
                    why = f"{coming.site} gave other bytes than the message tells of"
                    raise Refused("not_found", why)
                name = clean(file.name)
                source = Source(used.author, used.chat, name, id=file.id)
                await self._intake.take(spool, source)

    async def _fetch(self, coming: _Coming, spool: Spool) -> None:
        """All its pieces, one after the other, so that messages on the same link get through."""
        pace, since = Pace(FIRST_BYTES, PIECE_BYTES), _now()
        while coming.got < coming.file.size:
            began = _now()
            try:
                piece = await self._piece(coming, min(pace.size, coming.file.size - coming.got))
            except Refused as refused:
                if not refused.retryable or _now() - since > PATIENCE_S:
                    raise
                coming.trouble = refused.message
                if _now() - since > STUCK_S:
                    coming.stuck.set()
                pace.slower()
                await asyncio.sleep(PAUSE_S)
                continue
            if not piece:
                return  # It is shorter than was said.
            since = _now()
            coming.trouble = ""
            coming.stuck.clear()
            await spool.write(piece)
            coming.got += len(piece)
            self.bytes += len(piece)
            pace.took(since - began)

    async def _piece(self, coming: _Coming, length: int) -> bytes:
        question = relay.FilePiece(
            author=coming.used.author, id=coming.file.id, start=coming.got, length=length
        )
        try:
            found = await ask(
                self._bus, relay.SERVICE, "file", question, relay.FilePieceFound, ASK_S
            )
        except Failure as failure:
            raise Refused(failure.code, failure.message) from failure
        except Unavailable as error:
            raise Refused("unavailable", str(error)) from error
        if len(found.data) > length:
            raise Refused("not_found", f"{found.site} gave more bytes than it was asked for")
        coming.site = found.site
        return found.data

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        results = {"brought": 0, "failed": 0} | self.results
        text = "Files of other sites that somebody here wanted."
        yield counter("hikyaku_files_elsewhere_total", text, results, "result")
        text = "Bytes of files that came from other sites."
        yield counter("hikyaku_files_elsewhere_bytes_total", text, self.bytes)
        text = "Files of other sites on their way here, or waiting for their turn."
        yield gauge("hikyaku_files_elsewhere_coming", text, len(self._coming))


def _now() -> float:
    return asyncio.get_running_loop().time()
