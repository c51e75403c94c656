"""Runs the embedded search server under uvicorn until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import uvicorn
import uvloop

from .app import create_app
from .config import SearchServerConfig
from .engine import Engine, FolderTaken
from .keys import Keys
from .requests import Server

GRACEFUL_S = 2
BACKLOG = 1024
CONNECTIONS = 2000

_log = logging.getLogger("hikyaku.search")


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that leaves signals to `_serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


def run(config: SearchServerConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises `SystemExit` when it cannot."""
    if not uvloop.run(_serve(config)):
        raise SystemExit(1)


async def _serve(config: SearchServerConfig) -> bool:
    """Serve in this event loop until a signal comes; False if it failed before."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def failed() -> None:
        loop.call_soon_threadsafe(stopped.set)

    try:
        engine = Engine(config.folder, failed)
    except FolderTaken as error:
        _log.error("%s", error)
        return False
    keys = Keys(config.folder, config.master_key) if config.master_key else None
    try:
        server = Server(engine, keys, config.master_key, config.max_payload_bytes)
        await _run(config, server, stopped)
    finally:
        engine.close()
        if keys is not None:
            keys.close()
    return engine.failure is None


async def _run(config: SearchServerConfig, server: Server, stopped: asyncio.Event) -> None:
    serving = _Uvicorn(
        uvicorn.Config(
            create_app(server),
            host=config.host,
            port=config.port,
            ws="none",
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACEFUL_S,
        )
    )

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)
    _log.info("search listens on %s:%d", config.host, config.port)
    task = asyncio.create_task(serving.serve())
    task.add_done_callback(lambda _: stopped.set())
    await stopped.wait()
    serving.should_exit = True
    await task
