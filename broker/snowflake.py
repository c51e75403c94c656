"""Message ids: 41 bits of milliseconds since 2024-01-01, 10 bits of machine, 12 bits of sequence.

Ids are names, not order (that is `seq`). They are never given twice: time never runs backwards
inside a generator, one machine number belongs to one process at a time (`broker.machine`), and no
id is made past `ceiling_ms`, up to which the lease has put on record that ids may exist.
"""

import time
from collections.abc import Callable

from .errors import Unavailable

EPOCH_MS = 1_704_067_200_000
MACHINES = 1024
SEQUENCES = 4096


def unix_ms() -> int:
    """The wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def timestamp_ms(message_id: int) -> int:
    """The Unix milliseconds in an id: roughly when it was made."""
    return (message_id >> 22) + EPOCH_MS


class Snowflake:
    """Makes ids for one machine number. Times are Unix milliseconds."""

    def __init__(self, machine: int, *, floor_ms: int, clock: Callable[[], int] = unix_ms):
        self._machine = machine << 12
        self._clock = clock
        self._last_ms = max(floor_ms, EPOCH_MS)
        self._sequence = SEQUENCES
        self.ceiling_ms = floor_ms

    @property
    def last_ms(self) -> int:
        """No id so far has a later time."""
        return self._last_ms

    def next(self) -> int:
        """A new id. Raises `Unavailable` when the lease on the machine number was not renewed."""
        now_ms = min(self._clock(), self.ceiling_ms)
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            self._sequence = 0
        elif self._sequence < SEQUENCES - 1:
            self._sequence += 1
        elif self._last_ms < self.ceiling_ms:
            self._last_ms += 1
            self._sequence = 0
        else:
            raise Unavailable("no message ids: the machine lease could not be renewed in time")
        return (self._last_ms - EPOCH_MS) << 22 | self._machine | self._sequence
