"""Group commit: what waits while one commit is in flight becomes the next, as one atomic batch.

One commit at a time keeps the order in which `submit` was called, so every sender's order. A batch
(ADR-50) costs one fsync however many messages it has. Three things can happen to a commit:

* acknowledged: on disk; a batch is contiguous, so each seq follows from the last one;
* refused: a batch is refused whole and names no culprit, so its messages are published one by one;
* no answer: the outcome is unknown. The same messages are published again one by one, with the same
  `Nats-Msg-Id`, until the deadline; those that were stored are answered as duplicates.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Struct
from prometheus_client import Metric

from .api_error import ApiError, api_error
from .bus import MAX_PAYLOAD_BYTES, Bus, Reply, publication
from .errors import BrokerError, Conflict, Overloaded, Refused, Unavailable
from .log import Log
from .metrics import Spread, counter, gauge, histogram

BATCH_MESSAGES = 500
BATCH_BYTES = 1024 * 1024
QUEUE_MESSAGES = 20_000
QUEUE_BYTES = 64 * 1024 * 1024
ATTEMPT_S = 1.0
DEADLINE_S = 15.0
DOWN_S = 2.0
PAUSE_S = 0.05
BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, BATCH_MESSAGES)

_WRONG_LAST = (10071, 10164)

_log = logging.getLogger("hikyaku.committer")


class Committed(NamedTuple):
    """On disk at `seq`. `first` is the stored event when the message was a duplicate of it."""

    seq: int
    first: bytes | None = None


Outcome = Committed | BrokerError
OnDone = Callable[[Outcome], None]


class _Item:
    __slots__ = ("deadline", "done", "expect_seq", "header", "msg_id", "payload", "sent", "subject")

    def __init__(
        self,
        subject: str,
        payload: bytes,
        msg_id: str,
        done: OnDone,
        expect_seq: int | None,
        deadline: float,
        header: bytes,
    ):
        self.subject = subject
        self.payload = payload
        self.msg_id = msg_id
        self.done: list[OnDone] = [done]
        self.expect_seq = expect_seq
        self.deadline = deadline
        self.header = header
        self.sent = False


class _PubAck(Struct):
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode


class Committer:
    """Writes events to the log. Use as a context manager; `submit` from the event loop only.

    `began` (by the loop's clock) and `batch` tell of the commit on its way: of what `done` hears.
    """

    def __init__(self, bus: Bus, log: Log):
        self._bus = bus
        self._log_reader = log
        self._waiting: deque[_Item] = deque()
        self._waiting_bytes = 0
        self._known: dict[str, _Item] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches = 0
        self._batch_prefix = b"%b-" % uuid4().hex[:8].encode()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self.committed = 0
        self.commits = 0
        self.began = 0.0
        self.batch = 0
        self.retries = 0
        self.failed = 0
        self._commit_s = Spread()
        self._batch_sizes = Spread(BATCH_SIZES)

    async def __aenter__(self) -> "Committer":
        self._task = asyncio.create_task(self._run(), name="committer")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for item in list(self._known.values()):
            self._finish(item, Unavailable("the server is stopping; send it again"))
        self._waiting.clear()

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing waits or is in flight, at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("%d messages still uncommitted after %g s", len(self._known), timeout_s)

    @property
    def waiting(self) -> int:
        """Messages not yet acknowledged."""
        return len(self._known)

    def submit(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str,
        done: OnDone,
        expect_seq: int | None = None,
        header: bytes = b"",
    ) -> None:
        """Queue an event; `done` is called once with a `Committed` or a `BrokerError`.

        `header` is stored with it: whole lines, as `name: value\\r\\n`.

        Raises `Overloaded` when the queue is full, `Unavailable` when NATS has been away for over
        2 s, and `Refused` when the event is too large for NATS; then nothing was queued and `done`
        is not called.
        """
        known = self._known.get(msg_id)
        if known is not None:
            known.done.append(_as_duplicate(done, known.payload))
            return
        if len(self._known) >= QUEUE_MESSAGES or self._waiting_bytes + len(payload) > QUEUE_BYTES:
            raise Overloaded("too many messages wait to be stored")
        if self._stopped:
            raise Unavailable("the server is stopping; send it again")
        if self._bus.down_s > DOWN_S:
            raise Unavailable(f"NATS does not answer at {self._bus.address}")
        if len(payload) > MAX_PAYLOAD_BYTES:
            # The server would end the connection over it, again at every attempt.
            raise Refused(0, f"{len(payload)} bytes are too much for one event")
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        item = _Item(subject, payload, msg_id, done, expect_seq, deadline, header)
        self._known[msg_id] = item
        self._waiting.append(item)
        self._waiting_bytes += len(payload)
        self._idle.clear()
        self._work.set()

    async def commit(self, subject: str, payload: bytes, *, msg_id: str) -> Committed:
        """`submit` and wait for the outcome. Raises the `BrokerError` that `done` would get."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self.submit(subject, payload, msg_id=msg_id, done=done)
        outcome = await future
        if isinstance(outcome, BrokerError):
            raise outcome
        return outcome

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        received = self.committed + self.failed + self.waiting
        yield counter("hikyaku_commit_received_total", "Events to be stored in the log.", received)
        results = {"stored": self.committed, "failed": self.failed}
        text = "Events that were stored in the log, or not within 15 s."
        yield counter("hikyaku_commit_events_total", text, results, "result")
        yield gauge("hikyaku_commit_waiting_events", "Events not yet stored.", self.waiting)
        yield counter("hikyaku_commit_retries_total", "Single publishes repeated.", self.retries)
        text = "Time of a commit, of one event or a batch, until it is on disk."
        yield histogram("hikyaku_commit_seconds", text, self._commit_s)
        yield histogram("hikyaku_commit_batch_events", "Events of one commit.", self._batch_sizes)

    # --- the loop ---

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            batch = self._take()
            if not batch:
                self._work.clear()
                if not self._known:
                    self._idle.set()
                continue
            started = self.began = loop.time()
            self.batch = len(batch)
            try:
                await self._commit(batch)
            except Exception:
                # A fault of ours must not end the loop: these fail, the next ones go on.
                _log.exception("commit failed")
                for item in batch:
                    self._finish(item, Unavailable("internal error while storing; send it again"))
            self.commits += 1
            self._commit_s.add(loop.time() - started)
            self._batch_sizes.add(len(batch))

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < BATCH_MESSAGES:
            item = waiting[0]
            if batch and (item.expect_seq is not None or size + len(item.payload) > BATCH_BYTES):
                break
            batch.append(waiting.popleft())
            size += len(item.payload)
            if item.expect_seq is not None:
                break
        self._waiting_bytes -= size
        return batch

    async def _commit(self, batch: list[_Item]) -> None:
        if len(batch) > 1 and await self._atomic(batch):
            return
        for item in batch:
            await self._single(item)

    async def _atomic(self, batch: list[_Item]) -> bool:
        """Publish as one atomic batch; False if each must be published by itself."""
        self._batches += 1
        name = b"%b%d" % (self._batch_prefix, self._batches)
        last = len(batch)
        parts = [
            publication(
                item.subject,
                item.payload,
                header=b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%bNats-Batch-Id: %b\r\n"
                b"Nats-Batch-Sequence: %d\r\n\r\n"
                % (item.msg_id.encode(), item.header, name, number),
            )
            for number, item in enumerate(batch[:-1], 1)
        ]
        final = batch[-1]
        number, inbox, answer = self._expect()
        try:
            parts.append(
                publication(
                    final.subject,
                    final.payload,
                    reply=inbox,
                    header=b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%bNats-Batch-Id: %b\r\n"
                    b"Nats-Batch-Sequence: %d\r\nNats-Batch-Commit: 1\r\n\r\n"
                    % (final.msg_id.encode(), final.header, name, last),
                )
            )
            self._bus.write(b"".join(parts))
            for item in batch:
                item.sent = True
            ack = await self._ack(answer)
        except BrokerError as error:
            _log.debug("batch of %d: %s", last, error)
            return False
        finally:
            self._bus.forget(number)
        if ack.error is not None:
            _log.debug("batch of %d refused: %s", last, ack.error.description)
            return False
        first = ack.seq - last + 1
        for offset, item in enumerate(batch):
            self._finish(item, Committed(first + offset))
        return True

    async def _single(self, item: _Item) -> None:
        loop = asyncio.get_running_loop()
        outcome: Outcome = Unavailable("not stored in time")
        while loop.time() < item.deadline:
            try:
                outcome = await self._publish(item)
                break
            except Unavailable as unavailable:
                outcome = unavailable
            except BrokerError as final:
                outcome = final
                break
            if not item.sent and self._bus.down_s > DOWN_S:
                break
            self.retries += 1
            await asyncio.sleep(PAUSE_S)
        self._finish(item, outcome)

    async def _publish(self, item: _Item) -> Committed:
        header = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b" % (item.msg_id.encode(), item.header)
        if item.expect_seq is not None:
            header += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % item.expect_seq
        number, inbox, answer = self._expect()
        try:
            self._bus.write(
                publication(item.subject, item.payload, reply=inbox, header=header + b"\r\n")
            )
            item.sent = True
            ack = await self._ack(answer)
        finally:
            self._bus.forget(number)
        if ack.error is None:
            return Committed(ack.seq, await self._first(ack.seq) if ack.duplicate else None)
        if ack.error.err_code in _WRONG_LAST:
            return await self._resolve_conflict(item)
        raise api_error(ack.error)

    async def _resolve_conflict(self, item: _Item) -> Committed:
        """A wrong last sequence may be our own doing, when an earlier attempt was stored.

        If it is not wrong after all, something is being stored just now, maybe that attempt.
        """
        assert item.expect_seq is not None
        following = await self._log_reader.next(item.subject, item.expect_seq + 1)
        if following is not None and following[1] == item.msg_id:
            return Committed(following[0].seq, following[0].data)
        present = await self._log_reader.newest(item.subject)
        if present == item.expect_seq:
            raise Unavailable(f"something is being stored after event {present}")
        raise Conflict(present)

    async def _first(self, seq: int) -> bytes:
        """The event at `seq`, which was stored; a lagging replica may need to be asked again."""
        stored = await self._log_reader.get(seq)
        if stored is None:
            if await self._log_reader.deleted(seq):
                raise Refused(0, f"event {seq}, its first sending, was deleted from the log")
            raise Unavailable(f"event {seq} is not readable yet")
        return stored.data

    def _expect(self) -> tuple[int, str, "asyncio.Future[Reply | None]"]:
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        number, inbox = self._bus.expect(on_reply)
        return number, inbox, future

    async def _ack(self, answer: "asyncio.Future[Reply | None]") -> _PubAck:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                reply = await answer
        except TimeoutError:
            self._bus.unanswered(ATTEMPT_S)
            raise Unavailable("the log did not acknowledge in time") from None
        if reply is None:
            raise Unavailable("the connection to NATS was lost before the acknowledgement")
        if reply.status:
            self._bus.unanswered()
            raise Unavailable(f"the log has no leader ({reply.status})")
        try:
            ack = _decode_ack(reply.data)
        except msgspec.DecodeError as error:
            raise Refused(0, f"unreadable acknowledgement: {error}") from None
        if ack.error is None:
            self._bus.answered()
        return ack

    def _finish(self, item: _Item, outcome: Outcome) -> None:
        if self._known.get(item.msg_id) is not item:
            return
        del self._known[item.msg_id]
        if isinstance(outcome, Committed):
            self.committed += 1
        else:
            self.failed += 1
        for done in item.done:
            try:
                done(outcome)
            except Exception:
                _log.exception("what waited for a commit failed")


def _as_duplicate(done: OnDone, payload: bytes) -> OnDone:
    def answer(outcome: Outcome) -> None:
        if isinstance(outcome, Committed) and outcome.first is None:
            outcome = Committed(outcome.seq, payload)
        done(outcome)

    return answer
