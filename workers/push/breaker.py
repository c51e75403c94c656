"""A circuit breaker: after so many failures in a row a server is left alone for a while.

Then one push at a time is tried; one that goes through closes it, a failure doubles the pause.
"""

FAILURES = 10
FIRST_PAUSE_S = 2.0
LAST_PAUSE_S = 120.0


class Breaker:
    """Plain state; times are monotonic seconds, given by the caller."""

    __slots__ = ("_failures", "_opened_until", "_pause_s", "_probing")

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = 0.0
        self._opened_until = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether the server counts as broken; it may be tried all the same."""
        return self._pause_s > 0

    def wait_s(self, now: float) -> float:
        """How long to wait before the next push; 0: it may go now."""
        if not self.open:
            return 0.0
        if self._probing:
            return FIRST_PAUSE_S
        return max(0.0, self._opened_until - now)

    def begin(self) -> None:
        """A push goes; call `succeeded`, `failed` or `unclear` when it is over."""
        self._probing = self.open

    def succeeded(self) -> None:
        """The server answered as it should."""
        self._failures, self._pause_s, self._probing = 0, 0.0, False

    def failed(self, now: float) -> None:
        """The server did not answer, or said that it is broken."""
        self._failures += 1
        if self._probing:
            self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)
            self._opened_until = now + self._pause_s
        elif self._failures >= FAILURES and not self.open:
            self._pause_s = FIRST_PAUSE_S
            self._opened_until = now + self._pause_s
        self._probing = False

    def unclear(self) -> None:
        """The push was broken off here."""
        self._probing = False
