"""One supervised connection to NATS: raw subscriptions, one-buffer writes, requests.

nats-py makes the connection, parses it and pings; what it does on failure is replaced. It never
reconnects by itself (its buffer would reorder messages around a retry, and some server errors end
it for good): `Bus` makes a fresh client after every failure, restores the subscriptions, and tells
the listeners. Nothing is buffered while the connection is down; whoever writes learns at once.
"""

import asyncio
import logging
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Self
from uuid import uuid4

from nats.errors import Error as NatsError

from .config import BrokerConfig
from .doubt import Doubts, Silence
from .errors import NoResponders, Overloaded, Refused, Unavailable
from .sparing import Sparing
from .subjects import inbox
from .wire import TRANSPORT_CLOSED, Wire

RawHandler = Callable[[bytes, bytes, bytes | None, bytes], None]
"""Called with subject, reply subject, raw header block and payload, in the read loop: it must be
quick and synchronous. What it raises is logged and counted, and the connection lives on."""

JETSTREAM = "$JS.API."
CONNECT_TIMEOUT_S = 2
CLOSE_TIMEOUT_S = 1
PING_INTERVAL_S = 1
PINGS_OUTSTANDING = 2
MAX_PAYLOAD_BYTES = 1_000_000
WRITE_BUFFER_BYTES = 16 * 1024 * 1024

FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 0.5
SOON_DAYS = 30

RENEW = "renew it with `hikyaku certificates`; HIKYAKU_NATS_CA must be its authority"

_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription) (?:to|using) "(.+?)"')

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


def _reason(error: Exception, config: BrokerConfig) -> str:
    """Why there is no connection, and what to do about it where that is known."""
    if isinstance(error, FileNotFoundError) and config.ca:
        return f"there is no file {config.ca}, which HIKYAKU_NATS_CA names"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is no good ({error.verify_message}): {RENEW}"
    if "authorization violation" in str(error).lower():
        who = config.role or "this user"
        return f"it refuses the password of {who}: see HIKYAKU_NATS_PASSWORD and HIKYAKU_NATS_URL"
    return str(error) or "refused"


def _for_people(url: str) -> str:
    return re.sub(r"//.*@", "//", url)


def _sendable(payload: bytes) -> bytes:
    """The server ends the whole connection over one message that is too large."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refused(0, f"{len(payload)} bytes are too much for one message")
    return payload


class _Subscription(NamedTuple):
    subject: str
    queue: str
    handler: RawHandler


class Bus:
    """A connection that comes back. Use as an async context manager; `close` is idempotent."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        name: str,
        ping_interval_s: int = PING_INTERVAL_S,
        doubts: Doubts | None = None,
    ):
        """`doubts` is what it shares with the other connections of its process."""
        self._urls = list(config.urls)
        self._turns = deque(random.sample(self._urls, len(self._urls)))
        self._name = name
        self._config = config
        self._ping_interval_s = ping_interval_s
        self._wire: Wire | None = None
        self._why = ""
        self._sparing = Sparing()
        self._subscriptions: dict[int, _Subscription] = {}
        self._next_sid = 1
        self._inbox = self.new_inbox()
        self._inbox_length = len(self._inbox)
        self._answers: dict[int, Callable[[Reply | None], None]] = {}
        self._asked: dict[int, tuple[str, asyncio.Future[Reply | None]]] = {}
        self._next_answer = 0
        self._closed = asyncio.Event()
        self._up = asyncio.Event()
        self._down_since: float | None = asyncio.get_running_loop().time()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._connects = 0
        self._silence = Silence()
        self._doubts = doubts or Doubts()
        self._doubts.join(self._leave)
        self.handler_errors = 0
        self.certificate_until = 0
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
        """The configured addresses, for messages to people: without users and passwords."""
        return ", ".join(map(_for_people, self._urls))

    @property
    def _present(self) -> str:
        return _for_people(self._turns[0])

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
            why = f": {self._why}" if self._why else ""
            raise Unavailable(f"NATS does not answer at {self.address}{why}") from None

    def on_connect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every connect, when the subscriptions stand again.

        Call what is returned to end that.
        """
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    def answered(self) -> None:
        """A write was acknowledged on this connection.

        Only a majority of the servers can do that. One that is cut off goes on to answer questions.
        """
        self._silence.end()

    def unanswered(self, waited_s: float = 0.0) -> None:
        """JetStream has not answered, for `waited_s`, on a connection that lives.

        After `DOUBT_S` of this another server is tried, if there is one.
        """
        if self._wire is None or not self.connected or len(self._urls) == 1:
            return
        if self._silence.goes_on(waited_s):
            _log.warning("%s: JetStream does not answer at %s", self._name, self._present)
            self._doubts.leave(self._turns[0])

    def _leave(self, url: str) -> None:
        if self._wire is not None and self.connected and self._turns[0] == url:
            self._wire.ended.set()

    async def _supervise(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._closed.is_set():
            wire: Wire | None = None
            try:
                trusted = self._authority()
                wire = Wire(self._dispatch, trusted)
                await self._open(wire, trusted)
                backoff_s, self._why = FIRST_BACKOFF_S, ""
                self._sparing.forget()
                if self._closed.is_set():
                    # `wait_for`, which nats-py uses, swallows a cancellation that comes together
                    # with the result (Python 3.11); there will be no second one.
                    break
                await wire.ended.wait()
                wire.abort()
                _log.warning("%s: connection to NATS at %s lost", self._name, self._present)
            except Exception as error:
                # Whatever it is (nats-py raises ValueError for a long greeting, uvloop RuntimeError
                # for a reset connection), the next attempt may succeed.
                self._why = _reason(error, self._config)
                told = f"no NATS at {self._present}: {self._why}"
                if self._sparing.may(told):
                    where = "" if "HIKYAKU_" in told else "; see HIKYAKU_NATS_URL"
                    _log.warning("%s: %s%s", self._name, told, where)
            finally:
                self._turns.rotate(-1)
                self._lost()
                if wire is not None:
                    await self._dispose(wire)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    def _authority(self) -> ssl.SSLContext | None:
        """Read anew for each connection: a renewed one counts without a restart."""
        return ssl.create_default_context(cafile=self._config.ca) if self._config.ca else None

    async def _open(self, wire: Wire, trusted: ssl.SSLContext | None) -> None:
        own = bool(self._config.password)  # counts before a user in the address
        # One server, and another the next time: one that hangs is not asked twice in a row.
        async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
            await wire.connect(
                servers=[self._turns[0]],
                name=self._name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=self._ping_interval_s,
                max_outstanding_pings=PINGS_OUTSTANDING,
                pending_size=0,
                error_cb=self._on_error,
                user=self._config.role if own else None,
                password=self._config.password if own else None,
                tls=trusted,
            )
            self._wire = wire
            for sid, each in self._subscriptions.items():
                wire.write(f"SUB {each.subject} {each.queue} {sid}\r\n".encode())
            await wire.flush(CONNECT_TIMEOUT_S)
        if trusted is not None:
            self.certificate_until = wire.certificate_until()
            days = int(self.certificate_until - time.time()) // 86_400
            if days < SOON_DAYS:
                what = f"the certificate of NATS at {self.address} ends in {max(0, days)} days"
                _log.warning("%s: %s: %s", self._name, what, RENEW)
        self._connects += 1
        self._silence.end()
        self._down_since = None
        self._up.set()
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                _log.exception("%s: a listener failed", self._name)

    async def _dispose(self, wire: Wire) -> None:
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
        forbidden = _FORBIDDEN.search(str(error))
        if forbidden is None:
            _log.debug("%s: %s", self._name, error)
            return
        verb, lowered = forbidden.groups()  # nats-py has made it so
        known = [each.subject for each in self._subscriptions.values()]
        known += [subject for subject, _ in self._asked.values()]
        subject = next((each for each in known if each.lower() == lowered), lowered)
        what = "subscribe to" if verb == "subscription" else "publish to"
        refused = f"NATS does not let {self._config.role or 'this user'} {what} {subject}"
        _log.error("%s: %s; see docs/security.md", self._name, refused)
        for asked, future in self._asked.values():
            if verb == "publish" and asked.lower() == lowered and not future.done():
                future.set_exception(Refused(0, refused))

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

    def new_inbox(self) -> str:
        """The beginning of subjects that nobody else knows, and only this role may read."""
        return f"{inbox(self._config.role)}{uuid4().hex}."

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

        Raises `NoResponders` when nobody serves the subject, `Unavailable` when the connection is
        lost or no reply came within `timeout_s`, and `Refused` when this role may not ask that.
        """
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        number, to = self.expect(on_reply)
        self._asked[number] = subject, future
        of_jetstream = subject.startswith(JETSTREAM)
        try:
            self.write(publication(subject, _sendable(payload), reply=to, header=header))
            async with asyncio.timeout(timeout_s):
                reply = await future
        except TimeoutError:
            if of_jetstream:
                self.unanswered(timeout_s)
            raise Unavailable(f"{subject} did not answer within {timeout_s:g} s") from None
        finally:
            self.forget(number)
            del self._asked[number]
        if reply is None:
            raise Unavailable(f"the connection to NATS at {self.address} was lost")
        if reply.status == 503:
            if of_jetstream:
                self.unanswered()
            raise NoResponders(f"nobody answers {subject}")
        return reply
