"""A nats-py client as `Bus` needs it.

Relies on private parts of nats-py 2.16 (`_process_msg`, `_close`, `_pending`, `_transport`);
`tests/integration/test_bus.py` fails when they change.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

TRANSPORT_CLOSED = (OSError, RuntimeError)
"""What a write raises (RuntimeError by uvloop) when a reset was not yet noticed by nats-py."""


class Wire(Client):
    """A nats-py client that hands every message, headers unparsed, to `dispatch`."""

    def __init__(
        self,
        dispatch: Callable[[int, bytes, bytes, bytes | None, bytes], None],
        trusted: ssl.SSLContext | None,
    ):
        super().__init__()
        self._dispatch = dispatch
        self._trusted = trusted
        self.ended = asyncio.Event()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Before the password is sent. nats-py encrypts only where the server asks for it.
        if initial_connection and self._trusted is not None and not info.get("tls_required"):
            raise NatsError("it speaks without TLS, and HIKYAKU_NATS_CA says that it must not")
        await super()._process_info(info, initial_connection)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self._dispatch(sid, subject, reply, headers, data)

    def write(self, data: bytes) -> None:
        """Put protocol commands into the transport. Raises one of `TRANSPORT_CLOSED`."""
        self._transport.write(data)  # type: ignore[union-attr]

    def certificate_until(self) -> int:
        """Until when the server's certificate is good, in Unix seconds."""
        writer: Any = self._transport._io_writer  # type: ignore[union-attr]
        return int(ssl.cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"]))

    def unsent_bytes(self) -> int:
        """What the transport could not send yet."""
        writer: Any = self._transport._io_writer  # type: ignore[union-attr]
        return int(writer.transport.get_write_buffer_size())

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py waits in here until all is sent, and a paused server never takes it: so say first
        # that this connection has ended, and give it nothing to wait for but the transport.
        self.ended.set()
        self._pending.clear()
        self._pending_data_size = 0
        await super()._close(status, do_cbs)

    def abort(self) -> None:
        """Drop the transport with what is unsent."""
        writer: Any = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
