"""uvicorn's HTTP protocol with a limit on how long and how large a request's head may be.

Without it a client that connects and never finishes its request holds a descriptor for ever.
"""

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
LINGER_S = 30.0
"""How long a client may go on sending what was refused: it reads the answer only after it."""

ABORT = "hikyaku.abort"
"""In the scope's extensions: ends the connection at once, also one whose client reads nothing."""

HEAD_BYTES = 64 * 1024


class HttpProtocol(HttpToolsProtocol):
    """Aborts a connection whose request head is not complete in time, or too large."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._stop()
        self._stop_lingering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the head's bytes."""
        self._data = data
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """Hand over what came right behind the request too; uvicorn would lose it."""
        upgrade: Any = sys.exc_info()[1]  # the parser's HttpParserUpgrade, with the offset
        rest, self._data = self._data[upgrade.args[0] :], b""
        super().handle_websocket_upgrade()
        if rest:
            self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
        # The parser knows this object by its callbacks: a cycle for each connection.
        self.parser = None  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        """The next request of a kept connection begins."""
        if self._deadline is None:
            self._start()
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort}

    def on_message_complete(self) -> None:
        """All of a request has come."""
        self._stop_lingering()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What still comes of an answered request is dropped, for some time."""
        super().on_response_complete()
        if self.cycle.more_body and self._lingering is None:
            self._lingering = self.loop.call_later(LINGER_S, self.transport.abort)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._stop()
        super().on_headers_complete()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _start(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
