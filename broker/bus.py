"""One supervised connection to NATS: raw subscriptions, one-buffer writes, requests.

nats-py makes the connection, parses it and pings; what it does on failure is replaced. It never
reconnects by itself (its buffer would reorder messages around a retry, and some server errors end
it for good): `Bus` makes a fresh client after every failure, restores the subscriptions, and tells
the listeners. Nothing is buffered while the connection is down; whoever writes learns at once.

Relies on private parts of nats-py 2.16 (`_process_msg`, `_close`, `_pending`, `_transport`);
`tests/integration/test_bus.py` fails when they change.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Self
from uuid import uuid4

from nats.aio.client import Client
from nats.errors import Error as NatsError

from .config import BrokerConfig
from .errors import NoResponders, Overloaded, Refused, Unavailable

RawHandler = Callable[[bytes, bytes, bytes | None, bytes], None]
"""Called with subject, reply subject, raw header block and payload, in the read loop: it must be
quick and synchronous. What it raises is logged and counted, and the connection lives on."""

CONNECT_TIMEOUT_S = 2
CLOSE_TIMEOUT_S = 1
PING_INTERVAL_S = 1
PINGS_OUTSTANDING = 2
MAX_PAYLOAD_BYTES = 1_000_000
WRITE_BUFFER_BYTES = 16 * 1024 * 1024
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 0.5

TRANSPORT_CLOSED = (OSError, RuntimeError)
"""What a write raises (RuntimeError by uvloop) when a reset was not yet noticed by nats-py."""

_log = logging.getLogger("hikyaku.bus")


class Reply(NamedTuple):
    """An answer: the raw header block, if any, and the payload."""

    header: bytes | None
    data: bytes

    @property
    def status(self) -> int:
        """The status in the header line (503: no responders; 204: end of batch), 0 if none."""
        return status_of(self.header)


def status_of(header: bytes | None) -> int:
    """The number in `NATS/1.0 503 …`, or 0."""
    if header is None or header[8:9] != b" ":
        return 0
    return int(header[9:12])


def publication(subject: str, payload: bytes, *, reply: str = "", header: bytes = b"") -> bytes:
    """The bytes of one PUB or HPUB command. `header` is a complete block or empty."""
    if header:
        total = len(header) + len(payload)
        line = f"HPUB {subject} {reply} {len(header)} {total}\r\n".encode()
        return b"%b%b%b\r\n" % (line, header, payload)
    return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload)


def _sendable(payload: bytes) -> bytes:
    """The server ends the whole connection over one message that is too large."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refused(0, f"{len(payload)} bytes are too much for one message")
    return payload


class _Wire(Client):
    """A nats-py client that hands every message, headers unparsed, to `dispatch`."""

    def __init__(self, dispatch: Callable[[int, bytes, bytes, bytes | None, bytes], None]):
        super().__init__()
        self._dispatch = dispatch
        self.ended = asyncio.Event()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self._dispatch(sid, subject, reply, headers, data)

    def write(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[union-attr]

    def unsent_bytes(self) -> int:
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


class _Subscription(NamedTuple):
    subject: str
    queue: str
    handler: RawHandler


class Bus:
    """A connection that comes back. Use as an async context manager; `close` is idempotent."""

    def __init__(self, config: BrokerConfig, *, name: str):
        self._urls = list(config.urls)
        self._name = name
        self._wire: _Wire | None = None
        self._subscriptions: dict[int, _Subscription] = {}
        self._next_sid = 1
        self._inbox = f"_INBOX.{uuid4().hex}."
        self._inbox_length = len(self._inbox)
        self._answers: dict[int, Callable[[Reply | None], None]] = {}
        self._next_answer = 0
        self._closed = asyncio.Event()
        self._up = asyncio.Event()
        self._down_since: float | None = asyncio.get_running_loop().time()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._connects = 0
        self.handler_errors = 0
        self.subscribe(self._inbox + "*", self._on_answer)

    # --- life ---

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._supervise(), name=f"bus {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; pending requests fail with `Unavailable`."""
        self._closed.set()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    @property
    def address(self) -> str:
        """The configured addresses, for messages to people."""
        return ", ".join(self._urls)

    @property
    def connected(self) -> bool:
        """Whether a write would go out now."""
        return self._up.is_set()

    @property
    def reconnects(self) -> int:
        """How often the connection came back."""
        return max(0, self._connects - 1)

    @property
    def down_s(self) -> float:
        """Seconds since the connection was lost; 0 while connected."""
        if self._down_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._down_since

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for the connection. Raises `Unavailable`, naming the address, after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise Unavailable(f"NATS does not answer at {self.address}") from None

    def on_connect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every connect, when the subscriptions stand again.

        Call what is returned to end that.
        """
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    async def _supervise(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._closed.is_set():
            wire = _Wire(self._dispatch)
            try:
                await self._open(wire)
                backoff_s = FIRST_BACKOFF_S
                if self._closed.is_set():
                    # `wait_for`, which nats-py uses, swallows a cancellation that comes together
                    # with the result (Python 3.11); there will be no second one.
                    break
                await wire.ended.wait()
                wire.abort()
                _log.warning("%s: connection to NATS at %s lost", self._name, self.address)
            except Exception as error:
                # Whatever it is (nats-py raises ValueError for a long greeting, uvloop RuntimeError
                # for a reset connection), the next attempt may succeed.
                _log.warning("%s: no NATS at %s: %s", self._name, self.address, error or "refused")
            finally:
                self._lost()
                await self._dispose(wire)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    async def _open(self, wire: _Wire) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S * (len(self._urls) + 1)):
            await wire.connect(
                servers=list(self._urls),
                name=self._name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=PINGS_OUTSTANDING,
                pending_size=0,
                error_cb=self._on_error,
            )
            self._wire = wire
            for sid, each in self._subscriptions.items():
                wire.write(f"SUB {each.subject} {each.queue} {sid}\r\n".encode())
            await wire.flush(CONNECT_TIMEOUT_S)
        self._connects += 1
        self._down_since = None
        self._up.set()
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                _log.exception("%s: a listener failed", self._name)

    async def _dispose(self, wire: _Wire) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await wire.close()
        except (OSError, NatsError, TimeoutError) as error:
            _log.debug("%s: closing a lost connection: %s", self._name, error)
        finally:
            wire.abort()

    def _lost(self) -> None:
        self._wire = None
        self._up.clear()
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer(None)

    async def _on_error(self, error: Exception) -> None:
        _log.debug("%s: %s", self._name, error)

    # --- reading ---

    def subscribe(self, subject: str, handler: RawHandler, *, queue: str = "") -> int:
        """Subscribe now and after every reconnect; returns the id for `unsubscribe`."""
        sid = self._next_sid
        self._next_sid += 1
        self._subscriptions[sid] = _Subscription(subject, queue, handler)
        self._tell(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: int) -> None:
        """End a subscription; unknown ids are ignored."""
        if self._subscriptions.pop(sid, None):
            self._tell(f"UNSUB {sid}\r\n".encode())

    def _tell(self, command: bytes) -> None:
        """Write what the next connect would say as well, if there is a connection."""
        if self._wire is not None:
            with suppress(*TRANSPORT_CLOSED):
                self._wire.write(command)

    def _dispatch(
        self, sid: int, subject: bytes, reply: bytes, header: bytes | None, data: bytes
    ) -> None:
        subscription = self._subscriptions.get(sid)
        if subscription is None:
            return
        try:
            subscription.handler(subject, reply, header, data)
        except Exception:
            # The read loop of nats-py ends for good on any exception, so none may pass.
            self.handler_errors += 1
            _log.exception("%s: handler of %s failed", self._name, subscription.subject)

    def _on_answer(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        answer = self._answers.get(int(subject[self._inbox_length :]))
        if answer is not None:
            answer(Reply(header, data))

    # --- writing ---

    def write(self, commands: bytes) -> None:
        """Write protocol commands as one buffer. Raises `Unavailable` or `Overloaded` at once."""
        if self._wire is None or not self._up.is_set():
            raise Unavailable(f"NATS does not answer at {self.address}")
        try:
            if self._wire.unsent_bytes() > WRITE_BUFFER_BYTES:
                raise Overloaded("the connection to NATS does not keep up")
            self._wire.write(commands)
        except TRANSPORT_CLOSED:
            raise Unavailable(f"the connection to NATS at {self.address} was lost") from None

    def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Publish without an answer; at most once. Raises `Refused` when it is too large."""
        self.write(publication(subject, _sendable(payload), reply=reply))

    def expect(self, on_reply: Callable[[Reply | None], None]) -> tuple[int, str]:
        """An inbox whose replies go to `on_reply`, with None when the connection is lost.

        End it with `forget`; several replies may come until then.
        """
        self._next_answer += 1
        number = self._next_answer
        self._answers[number] = on_reply
        return number, f"{self._inbox}{number}"

    def forget(self, number: int) -> None:
        """No reply to this inbox is wanted any more."""
        self._answers.pop(number, None)

    async def request(
        self, subject: str, payload: bytes = b"", *, timeout_s: float, header: bytes = b""
    ) -> Reply:
        """Ask and wait for one reply.

        Raises `NoResponders` when nobody serves the subject, and `Unavailable` when the connection
        is lost or no reply came within `timeout_s`.
        """
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        number, inbox = self.expect(on_reply)
        try:
            self.write(publication(subject, _sendable(payload), reply=inbox, header=header))
            async with asyncio.timeout(timeout_s):
                reply = await future
        except TimeoutError:
            raise Unavailable(f"{subject} did not answer within {timeout_s:g} s") from None
        finally:
            self.forget(number)
        if reply is None:
            raise Unavailable(f"the connection to NATS at {self.address} was lost")
        if reply.status == 503:
            raise NoResponders(f"nobody answers {subject}")
        return reply
