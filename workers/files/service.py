"""The worker as a whole: HTTP for edges, the question of edges about attachments, the sweeper."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack

import uvicorn
from prometheus_client import Metric

from broker.bus import Bus
from broker.files import SERVICE, Check, Checked, Piece, PieceFound, Vouching
from broker.requests import Responder
from broker.snowflake import unix_ms
from store.database import Database
from store.directory import Directory
from store.errors import StoreError
from store.file_objects import FileObjects
from store.file_uploads import Uploads
from store.files import Files

from ..config import WorkerConfig
from .access import Access
from .app import Application
from .downloads import Downloads
from .elsewhere import Elsewhere
from .errors import Refused, refused
from .intake import Intake, described
from .sweeper import Sweeper
from .tus import Tus

DEADLINE_S = 5.0
KEEP_ALIVE_S = 75
"""Longer than an edge keeps an idle connection, so that it is the edge that closes it."""

GRACEFUL_S = 1
BACKLOG = 1024

CLAIM_MS = 600_000
"""A file whose message may be on its way is kept for this long at least."""

_log = logging.getLogger("hikyaku.files")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this."""
        yield


class FilesWorker:
    """One process of the service. `run` until cancelled."""

    def __init__(self, config: WorkerConfig, bus: Bus, database: Database, directory: Directory):
        files_config = config.files
        self._config = files_config
        vouching = Vouching(files_config.secret)
        objects = FileObjects(files_config.url)
        self.files = Files(database)
        self._objects = objects
        intake = Intake(files_config, self.files, objects)
        self._elsewhere = Elsewhere(bus, self.files, intake, file_bytes=files_config.file_bytes)
        self._access = Access(bus, self.files, directory, self._elsewhere)
        self._application = Application(
            files_config,
            vouching,
            self._access,
            intake,
            Downloads(self._access, objects, vouching),
            Tus(files_config, self._access, intake, Uploads(database), objects),
        )
        self._sweeper = Sweeper(
            bus,
            database,
            objects,
            interval_s=files_config.sweep_s,
            retention_days=config.archive.retention_days,
        )
        self._responder = Responder(
            bus,
            SERVICE,
            {"check": (Check, self._check), "piece": (Piece, self._piece)},
            deadline_s=DEADLINE_S,
        )

    async def run(self) -> None:
        """Serve until cancelled. Raises `OSError` when the port is taken."""
        server = _Server(
            uvicorn.Config(
                self._application.starlette(),
                http="httptools",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACEFUL_S,
            )
        )
        with _listening(self._config.host, self._config.port) as listening:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._elsewhere)
                await stack.enter_async_context(self._responder)
                serving = asyncio.create_task(server.serve(sockets=[listening]))
                sweeping = asyncio.create_task(self._sweeper.run())
                _log.info("files is ready at %s:%d", *listening.getsockname()[:2])
                try:
                    await asyncio.wait({serving, sweeping}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    sweeping.cancel()
                    self._application.stop()
                    server.should_exit = True
                    ends = await asyncio.gather(serving, sweeping, return_exceptions=True)
                raise next(
                    (end for end in ends if isinstance(end, Exception)),
                    RuntimeError("the HTTP server ended"),
                )

    async def _check(self, question: Check) -> Checked:
        """May these be attached? They are kept for the message from now on."""
        try:
            await self._access.check_chat(question.chat_id, question.user)
            until = unix_ms() + max(CLAIM_MS, int(self._config.orphan_s * 1000))
            ids = list(dict.fromkeys(question.files))
            found = {each.id: each for each in await self.files.claim(question.chat_id, ids, until)}
        except StoreError as error:
            raise refused(error) from error
        for each in question.files:
            if each not in found:
                raise Refused("not_found", f"attachments: there is no file {each!r} in this chat")
        return Checked(files=[described(found[each]) for each in question.files])

    async def _piece(self, question: Piece) -> PieceFound:
        """Some bytes of a file, for `relay`, which knows who may have them."""
        try:
            file = await self.files.find(question.id)
            if file is None:
                raise Refused("not_found", "there is no such file")
            end = min(file.size, question.start + question.length)
            chunks = self._objects.read(file.key, question.start, end)
            data = b"".join([chunk async for chunk in chunks])
        except StoreError as error:
            raise refused(error) from error
        return PieceFound(chat_id=file.chat, data=data)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from self._application.metrics()
        yield from self._elsewhere.metrics()
        yield from self._sweeper.metrics()
        yield from self._responder.metrics()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=BACKLOG) as made:
        yield made
