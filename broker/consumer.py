"""A durable pull consumer: fetch what there is, acknowledge what was done.

Pulls are `no_wait` while there is work, and one message with a wait when there is none: the delay
is that of the handler, not of a batch that fills. Several processes may share one consumer. What
is not acknowledged comes again after `ack_wait_s`, possibly out of order: handlers commute.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from msgspec import Struct
from prometheus_client import Metric

from .api_error import ApiError, api_error
from .bus import Bus, status_of
from .errors import Unavailable
from .log import Log
from .metrics import counter, gauge
from .streams import NANOSECOND, Consumer

WAIT_S = 5.0
GRACE_S = 2.0

_ENDED = (404, 408)


class Delivery(NamedTuple):
    """A message of the log. `delivered` counts from 1; `stored_ns` is the log's Unix time."""

    seq: int
    subject: str
    data: bytes
    delivered: int
    stored_ns: int
    pending: int
    ack: str
    header: bytes | None = None


def durable(stream: str, name: str, *, ack_wait_s: float) -> Consumer:
    """Declare a consumer of a whole stream from its beginning, without a limit of deliveries.

    It has no filter, also where one would match everything: with three the server spent 14 us more
    on each message, a third of all that it does for one.
    """
    return Consumer(
        stream,
        name,
        {
            "deliver_policy": "all",
            "ack_wait": int(ack_wait_s * NANOSECOND),
            "max_deliver": -1,
            "max_ack_pending": 20_000,
            "max_waiting": 512,
        },
    )


class Progress(NamedTuple):
    """All up to `floor` is acknowledged; `behind` messages are not yet.

    `behind` is for people and pace. The server counts a message for a consumer a moment after it
    has acknowledged it to its publisher, so that 0 does not say that all in the log is done.
    """

    floor: int
    behind: int

    def reached(self, seq: int) -> bool:
        """Whether all up to `seq` is done."""
        return self.floor >= seq


class _Floor(Struct):
    stream_seq: int = 0


class _Info(Struct):
    ack_floor: _Floor = msgspec.field(default_factory=_Floor)
    delivered: _Floor = msgspec.field(default_factory=_Floor)
    num_pending: int = 0
    num_ack_pending: int = 0
    error: ApiError | None = None


async def progress(bus: Bus, consumer: Consumer, *, to: int = 0) -> Progress:
    """How far a consumer is. Raises `Unavailable`, or `Refused` when there is none.

    With `to`, all up to that sequence counts as done when what is not was deleted from the stream:
    the server goes over such a gap only with the next message.
    """
    subject = f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.name}"
    reply = await bus.request(subject, timeout_s=GRACE_S)
    info = msgspec.json.decode(reply.data, type=_Info)
    if info.error is not None:
        raise api_error(info.error)
    behind = info.num_pending + info.num_ack_pending
    floor = info.ack_floor.stream_seq if info.num_ack_pending else info.delivered.stream_seq
    if floor < to and not behind:
        following = await Log(bus, stream=consumer.stream).first_from(floor + 1)
        if following is None or following > to:
            floor = to
    return Progress(floor, behind)


class Lag(NamedTuple):
    """What a consumer has not done: how many, and since when the oldest is there (Unix, or 0)."""

    behind: int = 0
    oldest_at: float = 0.0

    @property
    def oldest_s(self) -> float:
        """The age of the oldest now; 0 if there is none."""
        return max(0.0, time.time() - self.oldest_at) if self.oldest_at else 0.0


async def lag(bus: Bus, consumer: Consumer) -> Lag:
    """How far behind a consumer is, for people. Raises as `progress` does."""
    found = await progress(bus, consumer)
    if not found.behind:
        return Lag()
    oldest_at = await Log(bus, stream=consumer.stream).stored_at(found.floor + 1)
    return Lag(found.behind, oldest_at or 0.0)


def metrics(consumer: str, lag: Lag, *, retries: int, buried: int) -> Iterator[Metric]:
    """What each worker that follows the log tells; `lag` is that of all its processes together."""
    label = "consumer"
    text = "Events of the log that this consumer has not done."
    yield gauge("hikyaku_consumer_pending_events", text, {consumer: lag.behind}, label)
    text = "Age of the oldest event that this consumer has not done, or 0."
    yield gauge("hikyaku_consumer_oldest_seconds", text, {consumer: lag.oldest_s}, label)
    text = "Attempts that failed and are made again."
    yield counter("hikyaku_consumer_retries_total", text, {consumer: retries}, label)
    text = "Events put to the dead letters."
    yield counter("hikyaku_consumer_dead_letters_total", text, {consumer: buried}, label)


class Puller:
    """Fetches from one consumer. Raises `Unavailable` when JetStream does not answer."""

    def __init__(self, bus: Bus, consumer: Consumer):
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._inbox = bus.new_inbox()
        self._pulls = 0
        self._found: list[Delivery] = []
        self._wanted = 0
        self._status = 0
        self._changed = asyncio.Event()
        self._sid = bus.subscribe(f"{self._inbox}*", self._on_message)
        self._forget = bus.on_connect(self._changed.set)

    def close(self) -> None:
        """Stop receiving."""
        self._forget()
        self._bus.unsubscribe(self._sid)

    async def fetch(self, limit: int) -> list[Delivery]:
        """What there is, at most `limit`; waits up to 5 s for the first. May be empty."""
        await self._pull({"batch": limit, "no_wait": True}, limit, GRACE_S)
        if not self._found:
            expires = int(WAIT_S * NANOSECOND)
            await self._pull({"batch": 1, "expires": expires}, 1, WAIT_S + GRACE_S)
        found, self._found = self._found, []
        return found

    async def _pull(self, request: dict[str, object], limit: int, timeout_s: float) -> None:
        """Ask, and wait for `limit` messages or the end of the pull."""
        self._pulls += 1
        self._wanted = len(self._found) + limit
        self._status = 0
        self._changed.clear()
        inbox = f"{self._inbox}{self._pulls}"
        self._bus.publish(self._subject, msgspec.json.encode(request), reply=inbox)
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            if not self._found:
                self._bus.unanswered(timeout_s)
                raise Unavailable(f"{self._subject} does not answer") from None
        if self._status not in (0, *_ENDED) and not self._found:
            raise Unavailable(f"{self._subject} answers {self._status}")

    def _on_message(self, subject: bytes, reply: bytes, header: bytes | None, data: bytes) -> None:
        status = status_of(header)
        if not status:
            # What an earlier pull asked for and came late is as welcome.
            self._found.append(_delivery(subject.decode(), reply.decode(), header, data))
            if len(self._found) >= self._wanted:
                self._changed.set()
        elif subject.decode() == f"{self._inbox}{self._pulls}":
            self._status = status
            self._changed.set()

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """These are done. If it is lost, they come again."""
        commands = [b"PUB %b 0\r\n\r\n" % each.ack.encode() for each in deliveries]
        if commands:
            self._bus.write(b"".join(commands))

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """These are not done: they may come again at once, here or elsewhere."""
        commands = [b"PUB %b 4\r\n-NAK\r\n" % each.ack.encode() for each in deliveries]
        if commands:
            self._bus.write(b"".join(commands))

    def working(self, deliveries: Iterable[Delivery]) -> None:
        """These take longer; begin their `ack_wait_s` anew."""
        commands = [b"PUB %b 4\r\n+WPI\r\n" % each.ack.encode() for each in deliveries]
        if commands:
            self._bus.write(b"".join(commands))


def _delivery(subject: str, ack: str, header: bytes | None, data: bytes) -> Delivery:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
    delivered, seq, _, stored_ns, pending = map(int, ack.split(".")[-5:])
    return Delivery(seq, subject, data, delivered, stored_ns, pending, ack, header)
