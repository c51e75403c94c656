"""Requests on their way: what to send next, in which order, and what an answer means. No I/O.

The promise: of two sends to one chat the later one never overtakes the earlier, also when the
earlier one is refused for the moment and tried again, or the connection is lost and the fate of
what was sent is unknown. So each chat is a lane, and only the first entry of a lane is ever on the
wire; the next one goes when the first is answered for good (or its sender gave up). Lanes do not
wait for each other, except that a `rate_limited`, which counts per user, halts all of them.
"""

from collections import deque
from dataclasses import dataclass, field
from random import random

from edge.frames import RETRYABLE, Ack, Error, Limits, RequestId, Result

from .errors import OutboxFull, RequestFailed, request_failed
from .policy import retry_delay_s

PACED_FOR_S = 10.0
"""After a `rate_limited`, sends are spread at the server's announced rate for this long."""


@dataclass(slots=True, eq=False)
class Entry:
    """One request that has no final answer. `deadline` and `sent_at` are of a monotonic clock."""

    id: int
    lane: str
    data: bytes
    deadline: float
    client_id: str | None = None
    attempts: int = 0
    sent_at: float | None = None
    not_before: float = 0.0
    last_error: RequestFailed | None = None


@dataclass(slots=True)
class Outbox:
    """All requests of one client that wait for their answers, at most `size`."""

    size: int
    limits: Limits = field(default_factory=Limits)
    _entries: dict[int, Entry] = field(default_factory=dict)
    _by_client_id: dict[str, Entry] = field(default_factory=dict)
    _lanes: dict[str, deque[Entry]] = field(default_factory=dict)
    _halted_until: float = 0.0
    _paced_until: float = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def holds(self, client_id: str) -> bool:
        """Say whether a request with this `client_id` is waiting."""
        return client_id in self._by_client_id

    def add(self, entry: Entry) -> None:
        """Take a request at the end of its lane. Raises `OutboxFull`."""
        if len(self._entries) >= self.size:
            raise OutboxFull(f"{self.size} requests are waiting for an answer")
        self._entries[entry.id] = entry
        if entry.client_id is not None:
            self._by_client_id[entry.client_id] = entry
        self._lanes.setdefault(entry.lane, deque()).append(entry)

    def remove(self, entry: Entry) -> None:
        """Forget a request: it was answered, or nobody waits for it any more."""
        if self._entries.pop(entry.id, None) is None:
            return
        if entry.client_id is not None:
            self._by_client_id.pop(entry.client_id, None)
        lane = self._lanes[entry.lane]
        lane.remove(entry)
        if not lane:
            del self._lanes[entry.lane]

    def take_due(self, now: float) -> list[Entry]:
        """Give what is to be sent now, oldest first, and count it as sent."""
        if now < self._halted_until:
            return []
        due = [lane[0] for lane in self._lanes.values() if _is_due(lane[0], now)]
        due.sort(key=lambda entry: entry.id)
        if due and now < self._paced_until:
            del due[1:]
            self._halted_until = now + 1 / max(self.limits.messages_per_s, 0.1)
        for entry in due:
            entry.sent_at = now
            entry.attempts += 1
        return due

    def next_due(self) -> float | None:
        """Say when `take_due` has something; None while nothing waits but for answers."""
        waiting = [lane[0].not_before for lane in self._lanes.values() if lane[0].sent_at is None]
        return max(min(waiting), self._halted_until) if waiting else None

    def unanswered_since(self) -> float | None:
        """Say when the oldest request that is on the wire was sent."""
        on_wire = [lane[0].sent_at for lane in self._lanes.values() if lane[0].sent_at is not None]
        return min(on_wire, default=None)

    def disconnected(self) -> None:
        """Note that no answer will come to what was sent: all of it is due again, in its order."""
        for lane in self._lanes.values():
            lane[0].sent_at = None

    def answered(self, frame: Ack | Result) -> Entry | None:
        """Take a final answer; gives the request, removed, or None if nobody waits for it."""
        client_id = frame.client_id if isinstance(frame, Ack) else None
        entry = self._find(frame.id, client_id)
        if entry is not None:
            self.remove(entry)
        return entry

    def refused(self, frame: Error, now: float) -> tuple[Entry | None, RequestFailed]:
        """Take an `error`; gives the request, removed, if that was the end of it."""
        entry = self._find(frame.id, frame.client_id)
        if entry is None:
            if frame.code == "rate_limited" and frame.id is None and frame.client_id is None:
                self._some_refused(frame, now)
            return None, request_failed(frame)
        failure = request_failed(frame, client_id=entry.client_id, attempts=entry.attempts)
        if frame.code in RETRYABLE and self._again(entry, frame, now):
            entry.last_error = failure
            return None, failure
        self.remove(entry)
        return entry, failure

    def _some_refused(self, frame: Error, now: float) -> None:
        """A frame was thrown away unread, so nobody knows which: send all again, a little later."""
        self._halt(now + retry_delay_s(frame, attempts=1, chance=random()))
        self.disconnected()

    def _halt(self, until: float) -> None:
        self._halted_until = max(self._halted_until, until)
        self._paced_until = until + PACED_FOR_S

    def _again(self, entry: Entry, frame: Error, now: float) -> bool:
        at = now + retry_delay_s(frame, attempts=entry.attempts, chance=random())
        if frame.code == "rate_limited":
            self._halt(at)
        if at >= entry.deadline:
            return False
        entry.not_before = at
        entry.sent_at = None
        return True

    def _find(self, request_id: RequestId | None, client_id: str | None) -> Entry | None:
        if isinstance(request_id, int):
            return self._entries.get(request_id)
        return None if client_id is None else self._by_client_id.get(client_id)


def _is_due(entry: Entry, now: float) -> bool:
    return entry.sent_at is None and entry.not_before <= now
