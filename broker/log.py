"""The log: the stream CHAT, read by Direct Get (ADR-31).

Direct Get may be answered by a replica that lags, and every question by another one. `last` and
`read_all` therefore look whether what answered has all up to a sequence that the caller knows of,
and ask again until it has; so does `existing`. With one server that costs no question. `read` and
`get` give what there is, to those who follow the log anyway. Batched gets end with status 204 and
the number still pending.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from .api_error import ApiError, api_error
from .bus import Bus, Reply
from .errors import HalfMade, Refused, Unavailable
from .lag import Behind, Lag
from .subjects import matches

STREAM = "CHAT"
BATCH = 1000
BATCH_BYTES = 2 * 1024 * 1024
PARALLEL_BATCHES = 16
"""Together 32 MiB in flight: at 64 MiB NATS ends the connection as a slow consumer."""
MULTI_LAST = 1024
TIMEOUT_S = 5.0
NO_STREAM = 10059
"""The error code when there is no such stream."""

BEGINS = "begins"
"""In the metadata of a log that is half made: where it begins if it is empty."""

QUIET_S = 2.0

_T = TypeVar("_T")

_NO_MESSAGE = 10037


class Stored(NamedTuple):
    """A stored event."""

    seq: int
    subject: str
    data: bytes


class Page(NamedTuple):
    """Events in order of seq, and how many more match after the last.

    `up_to` is the last sequence that the replica had which answered `last` or a `snapshot`, 0 if it
    did not say: it does only with events.
    """

    events: list[Stored]
    pending: int
    up_to: int = 0


class StreamState(Struct):
    """The part of a stream's state used here."""

    first_seq: int
    last_seq: int
    messages: int = 0
    bytes: int = 0
    subjects: dict[str, int] | None = None


class StreamConfig(Struct):
    """The part of a stream's configuration used here."""

    metadata: dict[str, str] = {}
    max_bytes: int = -1
    num_replicas: int = 1


class StreamInfo(Struct):
    """Answer of STREAM.INFO."""

    config: StreamConfig | None = None
    state: StreamState | None = None
    error: ApiError | None = None


class _Found(Struct):
    seq: int = 0
    subject: str = ""
    time: str = ""
    hdrs: bytes = b""
    data: bytes = b""


class _Answer(Struct):
    message: _Found = msgspec.field(default_factory=_Found)
    error: ApiError | None = None


class LogState(NamedTuple):
    """Where the log stands: its identity, its first and last sequence, and how full it is.

    It refuses what would make it larger than `max_bytes`; -1: it may grow as long as the disk can.
    `ancestors` are the epochs that it goes on from, each with the last sequence that it shares.
    """

    epoch: str
    first_seq: int
    last_seq: int
    messages: int = 0
    bytes: int = 0
    max_bytes: int = -1
    ancestors: Mapping[str, int] = MappingProxyType({})


def parse_ancestors(text: str) -> dict[str, int]:
    """`<epoch>:<seq>`, separated by spaces, as it stands in the stream's metadata."""
    pairs = (each.rpartition(":") for each in text.split())
    return {epoch: int(seq) for epoch, _, seq in pairs}


_decode_info = msgspec.json.Decoder(StreamInfo).decode


def sequence_of(header: bytes) -> int:
    """`Nats-Sequence` of a raw header block; the rest is left unparsed.

    JetStream writes it after the publisher's own headers, hence the search from the end.
    """
    start = header.rindex(b"\r\nNats-Sequence: ") + 17
    return int(header[start : header.index(b"\r", start)])


def header_value(header: bytes, name: bytes) -> bytes:
    """The last value of a header in a raw block, or empty."""
    start = header.rfind(b"\r\n" + name + b": ")
    if start < 0:
        return b""
    start += len(name) + 4
    return header[start : header.index(b"\r", start)]


def stored(reply: Reply) -> Stored:
    """The event in an answer of Direct Get."""
    assert reply.header is not None
    subject = header_value(reply.header, b"Nats-Subject").decode()
    return Stored(sequence_of(reply.header), subject, reply.data)


def _identified(reply: Reply) -> tuple[int, str]:
    assert reply.header is not None
    return sequence_of(reply.header), header_value(reply.header, b"Nats-Msg-Id").decode()


class Log:
    """Reads a stream, CHAT unless told otherwise.

    Every method raises `Unavailable` when JetStream does not answer.
    """

    def __init__(self, bus: Bus, *, stream: str = STREAM):
        self._bus = bus
        self._info = f"$JS.API.STREAM.INFO.{stream}"
        self._direct_get = f"$JS.API.DIRECT.GET.{stream}"
        self._message_get = f"$JS.API.STREAM.MSG.GET.{stream}"
        self._batches = asyncio.Semaphore(PARALLEL_BATCHES)
        self._replicated: bool | None = None

    async def state(self, *, timeout_s: float = TIMEOUT_S) -> LogState:
        """Epoch, sequences and size, as the stream's leader knows them. Raises `HalfMade`."""
        reply = await self._bus.request(self._info, timeout_s=timeout_s)
        info = _checked(reply)
        assert info.state is not None
        assert info.config is not None
        self._replicated = info.config.num_replicas > 1
        metadata = info.config.metadata
        if BEGINS in metadata:
            raise HalfMade
        state = info.state
        return LogState(
            *(metadata.get("epoch", ""), state.first_seq, state.last_seq),
            *(state.messages, state.bytes),
            max_bytes=info.config.max_bytes,
            ancestors=parse_ancestors(metadata.get("ancestors", "")),
        )

    async def get(self, seq: int) -> Stored | None:
        """The event at `seq`, or None if there is none (yet, on the replica that answered)."""
        reply = await self._bus.request(self._direct_get, b'{"seq":%d}' % seq, timeout_s=TIMEOUT_S)
        return None if reply.status else stored(reply)

    async def age_s(self, seq: int) -> float | None:
        """For how many seconds an event is stored; None if there is none at `seq`."""
        reply = await self._bus.request(self._direct_get, b'{"seq":%d}' % seq, timeout_s=TIMEOUT_S)
        if reply.status or reply.header is None:
            return None
        at = header_value(reply.header, b"Nats-Time-Stamp").decode()
        return time.time() - datetime.fromisoformat(at[:19] + "+00:00").timestamp()

    async def existing(self, seq: int) -> Stored | None:
        """The event at `seq`, which was stored; None only if it is there no more."""
        lag = Lag(f"event {seq}")
        while (found := await self.get(seq)) is None:
            if not await self._lags() or await self.deleted(seq):
                return None
            await lag.pause()
        return found

    async def deleted(self, seq: int) -> bool:
        """Whether an event that was stored is there no more; asks the leader, who does not lag."""
        return await self._leaders({"seq": seq}) is None

    async def first_from(self, seq: int) -> int | None:
        """The seq of the first event at or after `seq`, if there is one; asks the leader."""
        found = await self._leaders({"seq": seq, "next_by_subj": ">"})
        return None if found is None else found.seq

    async def stored_at(self, seq: int) -> float | None:
        """When the first event at or after `seq` was stored, in Unix seconds, if there is one."""
        request = b'{"seq":%d,"next_by_subj":">"}' % max(seq, 1)
        reply = await self._bus.request(self._direct_get, request, timeout_s=TIMEOUT_S)
        if reply.status or reply.header is None:
            return None
        text = header_value(reply.header, b"Nats-Time-Stamp").decode()
        return datetime.fromisoformat(text).timestamp()

    async def next(self, subject: str, seq: int) -> tuple[Stored, str] | None:
        """The first event of `subject` from `seq` on, with its `Nats-Msg-Id`; asks the leader."""
        found = await self._leaders({"next_by_subj": subject, "seq": seq})
        if found is None:
            return None
        msg_id = header_value(found.hdrs, b"Nats-Msg-Id").decode()
        return Stored(found.seq, found.subject, found.data), msg_id

    async def newest(self, subject: str) -> int:
        """The seq of the last event of `subject`, 0 if there is none; asks the leader."""
        found = await self._leaders({"last_by_subj": subject})
        return 0 if found is None else found.seq

    async def _leaders(self, request: dict[str, object]) -> _Found | None:
        payload = msgspec.json.encode(request)
        reply = await self._bus.request(self._message_get, payload, timeout_s=TIMEOUT_S)
        answer = msgspec.json.decode(reply.data, type=_Answer)
        if answer.error is None:
            return answer.message
        if answer.error.err_code == _NO_MESSAGE:
            return None
        raise api_error(answer.error)

    async def _lags(self) -> bool:
        """Whether a replica that lags can have answered: there are several."""
        if self._replicated is None:
            await self.state()
        return bool(self._replicated)

    async def find(self, subject: str, msg_id: str, *, since_s: float) -> int:
        """The seq of the event of `subject` with this `Nats-Msg-Id`; 0 if there is none.

        Reads all events of the subject since the Unix time `since_s`.
        """
        async for seq, known in self._identities(subject, since_s):
            if known == msg_id:
                return seq
        return 0

    async def ids(self, subject: str) -> set[str]:
        """The `Nats-Msg-Id` of every event of the subject."""
        return {found async for _, found in self._identities(subject, 0.0)}

    async def _identities(self, subject: str, since_s: float) -> AsyncIterator[tuple[int, str]]:
        """Seq and `Nats-Msg-Id` of each event that was stored since then, in order."""
        since = datetime.fromtimestamp(since_s, UTC)
        request: dict[str, object] = {"next_by_subj": subject, "start_time": since.isoformat()}
        lag = Lag(f"{subject}, all of it,")
        seen = 0
        while True:
            request |= {"batch": BATCH, "max_bytes": BATCH_BYTES}
            async with self._batches:
                found, pending, _ = await self._direct(request, _identified)
            for each in found:
                yield each
            if found:
                seen = found[-1][0]
                request = {"next_by_subj": subject, "seq": seen + 1}
            if pending and found:
                continue
            if not await self._lags():
                return
            latest = await self._leaders({"last_by_subj": subject})
            if latest is None or latest.seq <= seen or _time(latest.time) < since_s:
                return
            await lag.pause()

    async def read(self, subject: str, seq: int, limit: int = BATCH) -> Page:
        """At most `limit` events that match `subject`, from `seq` on."""
        request = {
            "next_by_subj": subject,
            "seq": max(seq, 1),
            "batch": min(limit, BATCH),
            "max_bytes": BATCH_BYTES,
        }
        return await self._batch(request)

    async def count(self, subject: str, seq: int) -> tuple[int, int]:
        """How many events match `subject` from `seq` on, and the seq of the first (0 if none)."""
        page = await self.read(subject, seq, 1)
        if not page.events:
            return 0, 0
        return page.pending + 1, page.events[0].seq

    async def read_all(
        self, subject: str, seq: int, up_to: int | None = None
    ) -> AsyncIterator[list[Stored]]:
        """All events of `subject` from `seq` to `up_to`, in pages; there may be later ones too.

        Without `up_to`: all that were stored when it was asked for. `subject` has no wildcard.
        """
        if up_to is None and await self._lags():
            up_to = (await self.state()).last_seq
        lag = Lag(f"{subject} up to {up_to}")
        while up_to is None or seq <= up_to:
            page = await self.read(subject, seq)
            if page.events:
                seq = page.events[-1].seq + 1
                yield page.events
            if page.pending and page.events:
                continue
            if up_to is None or seq > up_to or not await self._lags():
                return
            latest = await self.last([subject], has=up_to)
            if not latest or latest[0].seq < seq:
                return
            await lag.pause()

    async def last(self, filters: list[str], *, has: int = 0) -> list[Stored]:
        """The last event of each subject that matches a filter.

        Every answer is of a replica that has all up to the sequence `has`, and maybe more. Any
        number of subjects: past JetStream's limit of 1,024 an answer, they are listed first.
        """
        lag = Lag(f"all up to {has}")
        while filters:
            try:
                return await self._parts(filters, has)
            except _TooMany:
                filters = await self._subjects(filters)
            except Behind:
                await lag.pause()
        return []

    async def _parts(self, filters: list[str], has: int) -> list[Stored]:
        found: list[Stored] = []
        for start in range(0, len(filters), MULTI_LAST):
            found += await self._last(filters[start : start + MULTI_LAST], has)
        return found

    async def _last(self, filters: list[str], has: int) -> list[Stored]:
        found: list[Stored] = []
        request: dict[str, object] = {
            "multi_last": filters,
            "batch": MULTI_LAST,
            "max_bytes": BATCH_BYTES,
        }
        page = await self._batch(request)
        if not page.events and has and await self._lags():
            return await self._nothing(filters, has)
        if page.events and page.up_to < has:
            raise Behind
        while True:
            found += page.events
            if not page.pending or not page.events:
                return found
            # It ended for its size; the rest has to be as of the same sequence.
            request["seq"] = page.events[-1].seq + 1
            request["up_to_seq"], left = page.up_to, page.pending
            page = await self._batch(request)
            if has and len(page.events) + page.pending != left:
                raise Behind

    async def _nothing(self, filters: list[str], has: int) -> list[Stored]:
        """An answer without events does not say how far the replica is: ask for one beside."""
        beside = await self._leaders({"seq": 1, "next_by_subj": ">"})
        if beside is None:
            return []
        page = await self._batch({"multi_last": [*filters, beside.subject], "batch": MULTI_LAST})
        if page.up_to < has or any(each.subject != beside.subject for each in page.events):
            raise Behind
        if any(matches(each, beside.subject) for each in filters):
            return page.events
        return []

    async def snapshot(self, filters: list[str]) -> Page | None:
        """What is last of each subject that matches, all at one sequence; None: over 1,024."""
        try:
            return await self._batch({"multi_last": filters, "batch": MULTI_LAST})
        except _TooMany:
            return None

    async def _subjects(self, filters: list[str]) -> list[str]:
        found: set[str] = set()
        for each in filters:
            if "*" not in each:
                found.add(each)
                continue
            offset = 0
            while True:
                request = msgspec.json.encode({"subjects_filter": each, "offset": offset})
                reply = await self._bus.request(self._info, request, timeout_s=TIMEOUT_S)
                info = _checked(reply)
                assert info.state is not None
                page = info.state.subjects or {}
                found.update(page)
                offset += len(page)
                if len(page) < 100_000:
                    break
        return sorted(found)

    async def _batch(self, request: dict[str, object]) -> Page:
        async with self._batches:
            return Page(*await self._direct(request, stored))

    async def _direct(
        self, request: dict[str, object], take: Callable[[Reply], _T]
    ) -> tuple[list[_T], int, int]:
        """What `take` makes of each answer, how many more there are, and as of which seq."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[int, int]] = loop.create_future()
        events: list[_T] = []
        progress = 0

        def on_reply(reply: Reply | None) -> None:
            if done.done():
                return
            if reply is None:
                done.set_exception(Unavailable("the connection to NATS was lost"))
                return
            status = reply.status
            if status == 0:
                events.append(take(reply))
            elif status == 204:
                assert reply.header is not None
                pending = int(header_value(reply.header, b"Nats-Num-Pending") or b"0")
                up_to = int(header_value(reply.header, b"Nats-UpTo-Sequence") or b"0")
                done.set_result((pending, up_to))
            elif status == 404:
                done.set_result((0, 0))
            elif status == 413:
                done.set_exception(_TooMany(reply.header))
            elif status == 503:
                done.set_exception(Unavailable(f"nobody answers {self._direct_get}"))
            else:
                done.set_exception(Refused(status, repr(reply.header)))

        number, inbox = self._bus.expect(on_reply)
        try:
            command = f"PUB {self._direct_get} {inbox} ".encode()
            payload = msgspec.json.encode(request)
            self._bus.write(b"%b%d\r\n%b\r\n" % (command, len(payload), payload))
            while True:
                try:
                    async with asyncio.timeout(QUIET_S):
                        return events, *await asyncio.shield(done)
                except TimeoutError:
                    if len(events) == progress:
                        raise Unavailable(f"{self._direct_get} fell silent") from None
                    progress = len(events)
        finally:
            self._bus.forget(number)
            done.cancel()


class _TooMany(Exception):
    """More than 1,024 subjects match."""


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _checked(reply: Reply) -> StreamInfo:
    info = _decode_info(reply.data)
    if info.error is not None:
        raise api_error(info.error)
    return info
