"""uvicorn's HTTP protocol with a limit on how long and how large a request's head may be.

Without it a client that connects and never finishes its request holds a descriptor for ever.
"""

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
HEAD_BYTES = 64 * 1024


class HttpProtocol(HttpToolsProtocol):
    """Aborts a connection whose request head is not complete in time, or too large."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._stop()
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

    def on_message_begin(self) -> None:
        """The next request of a kept connection begins."""
        if self._deadline is None:
            self._start()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._stop()
        super().on_headers_complete()

    def _start(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
