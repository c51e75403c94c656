"""Says the same thing again after a growing pause only: a log is read by people."""

import time

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0


class Sparing:
    """Remembers what was said, and when it may be said again: after 1, 2, 4 … 60 s."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, float]] = {}

    def may(self, what: str) -> bool:
        """Whether to say it now; what was not said before may be said at once."""
        now = time.monotonic()
        again_at, pause_s = self._said.get(what, (now, FIRST_PAUSE_S))
        if now < again_at:
            return False
        self._said[what] = (now + pause_s, min(2 * pause_s, LAST_PAUSE_S))
        return True

    def forget(self) -> None:
        """All is well: begin anew."""
        self._said.clear()
