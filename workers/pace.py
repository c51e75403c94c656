"""How much to send or ask for at once over a link of which nobody knows how fast it is."""

LEAST_BYTES = 8 * 1024
QUICK_S, SLOW_S = 0.3, 1.5


class Pace:
    """`size` bytes at once: what the link carries in about a second, from 8 KiB to `most`."""

    def __init__(self, first: int, most: int):
        self.size = first
        self._most = most

    def took(self, seconds: float) -> None:
        """The last ones took so long."""
        if seconds < QUICK_S:
            self.size = min(self._most, self.size * 2)
        elif seconds > SLOW_S:
            self.slower()

    def slower(self) -> None:
        """The last ones took too long, or were lost."""
        self.size = max(LEAST_BYTES, self.size // 2)
