"""Runs an edge under uvicorn until SIGTERM or SIGINT, then drains.

Draining comes before uvicorn's own shutdown, which would close every socket at once with 1012: stop
accepting, close the sessions with 4200 spread over the drain time, commit what waits, then leave.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import uvicorn
import uvloop

from .app import create_app
from .config import EdgeConfig
from .edge import Edge
from .http_protocol import HttpProtocol
from .socket import ChatSocket
from .tokens import KeyUnusable, TokenVerifier

BACKLOG = 4096
GRACEFUL_S = 5

_log = logging.getLogger("hikyaku.server")


class EdgeServer(uvicorn.Server):
    """A uvicorn server that leaves signals to `serve_edge`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections go on."""
        for server in self.servers:
            server.close()


def run(config: EdgeConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises `SystemExit` with a status that is not 0 when the port is taken, a key is no good, or the
    edge could not go on.
    """
    try:
        tokens = TokenVerifier(config.tokens)
    except KeyUnusable as error:
        _log.error("%s cannot verify tokens: %s", config.name, error)
        raise SystemExit(2) from None
    if not uvloop.run(serve_edge(config, tokens)):
        raise SystemExit(1)


async def serve_edge(config: EdgeConfig, tokens: TokenVerifier) -> bool:
    """Serve one edge in this event loop until a signal comes; False if it failed before."""
    stop = asyncio.Event()
    failed = asyncio.Event()

    def on_failure() -> None:
        failed.set()
        stop.set()

    app = create_app(config, tokens, on_failure)
    server = EdgeServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=HttpProtocol,
            ws=ChatSocket,
            ws_max_size=config.limits.frame_bytes,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            access_log=False,
            log_config=None,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACEFUL_S,
        )
    )
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    serving = asyncio.create_task(server.serve())
    serving.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if not serving.done():
        server.stop_accepting()
        edge: Edge | None = getattr(app.state, "edge", None)
        if edge is not None:
            await edge.drain()
        server.should_exit = True
    await serving
    return not failed.is_set()
