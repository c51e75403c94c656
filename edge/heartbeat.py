"""Pings, spread over the interval, and the end of connections that fell silent.

One task for all connections: the interval is cut into slots, sessions are dealt to them in turn,
and each tick serves one slot. No timer for each connection, and no burst of pings, each answered
by a pong, however many came at once. Who would be silent for too long before its slot comes again
is looked at when that time comes; those are who missed pings, so it costs nothing for the rest.
"""

import asyncio
import heapq
import math
from typing import TYPE_CHECKING

from . import frames
from .close_codes import CloseCode
from .socket import text_frame

if TYPE_CHECKING:
    from .session import Session

TICK_S = 0.05

PING = text_frame(frames.encode(frames.Ping()))


class Heartbeat:
    """Pings each session every `interval_s` and closes it after `timeout_s` without a frame."""

    def __init__(self, *, interval_s: float, timeout_s: float):
        slots = max(1, math.ceil(interval_s / TICK_S))
        self._tick_s = interval_s / slots
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._slots: list[dict[Session, None]] = [{} for _ in range(slots)]
        self._slot_of: dict[Session, int] = {}
        self._dealt = 0
        self._current = 0
        self._silent: list[tuple[float, int, Session]] = []
        self._noted = 0

    def add(self, session: "Session") -> None:
        """Begin; the first ping comes within an interval."""
        self._dealt = (self._dealt + 1) % len(self._slots)
        self._slot_of[session] = self._dealt
        self._slots[self._dealt][session] = None

    def remove(self, session: "Session") -> None:
        """End; idempotent."""
        slot = self._slot_of.pop(session, None)
        if slot is not None:
            del self._slots[slot][session]

    async def run(self) -> None:
        """Serve a slot each tick, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._tick_s, loop.time())
            await asyncio.sleep(due - loop.time())
            self._current = (self._current + 1) % len(self._slots)
            self._serve(loop.time())

    def _serve(self, now: float) -> None:
        for session in list(self._slots[self._current]):
            if not self._ended(session, now):
                session.ping(PING)
        while self._silent and self._silent[0][0] < now:
            _, _, session = heapq.heappop(self._silent)
            if session in self._slot_of:
                self._ended(session, now)

    def _ended(self, session: "Session", now: float) -> bool:
        """Close who was silent for too long; note who will have been before its slot comes."""
        until = session.heard_at + self._timeout_s
        if until < now:
            session.close(CloseCode.NO_PONG, "no frame for too long")
            return True
        if until < now + self._interval_s:
            self._noted += 1
            heapq.heappush(self._silent, (until, self._noted, session))
        return False
