"""Which events are new, and which cursor to resume from. No I/O: frames in, decisions out."""

from collections import OrderedDict
from dataclasses import replace

import msgspec

from edge.frames import CaughtUp, ChatEvent, Event, GroupChatEvent, ReadReceiptEvent, Welcome

from .position import Position

REMEMBERED_IDS = 4096
STALLS_BEFORE_SKIP = 3


class Tracker:
    """Follows one user's events over all connections of one client.

    Drops what was taken before (`seq` not above the newest taken) and messages whose `id` was seen
    lately. When the log's epoch changed, or a catch-up had to be cut short, the next `caught_up`
    says `recovered=False`, whatever happened in between.
    """

    def __init__(self, start: Position | None, *, remember: int = REMEMBERED_IDS) -> None:
        self._at = start
        self._epoch: str | None = None
        self._lost = False
        self._skipped = False
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._remember = remember
        self._progress = False
        self._repeats = False
        self._stalls = 0

    @property
    def position(self) -> Position | None:
        """Where the newest taken event is; None while nothing may be stored (a new epoch)."""
        return None if self._lost else self._at

    def resume_cursor(self) -> str | None:
        """Give the cursor for the next connection.

        A catch-up that was cut is begun again, so that the server can say what it left out. Only
        when several tries in a row brought nothing but what we had, go on from the newest event.
        """
        at = self._at
        if at is None:
            return None
        if at.since is None:
            return at.cursor
        if self._progress:
            self._stalls = 0
        elif self._repeats:
            self._stalls += 1
        self._repeats = False
        if self._stalls >= STALLS_BEFORE_SKIP:
            self._stalls = 0
            self._skipped = True
            at = self._at = replace(at, since=at.seq)
        return f"{at.epoch}:{at.since}"

    def welcome(self, frame: Welcome) -> None:
        """Begin a connection. Raises `ValueError` when its cursor cannot be read."""
        self._epoch = frame.epoch
        self._progress = self._repeats = False
        at = self._at
        if at is None:
            self._at = Position.parse(frame.cursor)
        elif at.epoch != frame.epoch:
            self._renew(at, Position.parse(frame.cursor))
        elif at.since is None:
            self._at = replace(at, since=at.seq)

    def _renew(self, at: Position, begin: Position) -> None:
        """Another log: it goes on from where we are, as one restored from a backup may, or not."""
        if at.since is None and begin.seq == at.seq:
            self._at = replace(begin, since=begin.seq)
        else:
            self._lost = True

    def admit(self, event: Event | ReadReceiptEvent) -> bool:
        """Say whether the event is new, and remember it. One without `seq` is not of the log."""
        at = self._at
        if event.seq is None:
            return True
        if at is not None and at.epoch == self._epoch:
            if event.seq <= at.seq:
                self._repeats = True
                return False
            self._at = replace(at, seq=event.seq)
        self._progress = True
        if isinstance(event, ChatEvent | GroupChatEvent):
            return self._first_time(event.id)
        return True

    def _first_time(self, message_id: str) -> bool:
        if message_id in self._seen:
            self._seen.move_to_end(message_id)
            return False
        self._seen[message_id] = None
        if len(self._seen) > self._remember:
            self._seen.popitem(last=False)
        return True

    def caught_up(self, frame: CaughtUp) -> CaughtUp:
        """End the catch-up; the frame for the application. Raises `ValueError` on a bad cursor."""
        end = Position.parse(frame.cursor)
        if self._at is not None and self._at.epoch == end.epoch:
            end = replace(end, seq=max(end.seq, self._at.seq))
        recovered = frame.recovered and not self._lost and not self._skipped
        self._at, self._epoch = end, end.epoch
        self._lost = self._skipped = False
        self._stalls = 0
        return msgspec.structs.replace(frame, recovered=recovered)
