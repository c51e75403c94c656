"""Rate limits as plain state: times are given, nothing is read from a clock here."""

from collections import deque

MALFORMED_PER_MINUTE = 10
MINUTE_S = 60.0


class TokenBucket:
    """Allows `rate` a second on average and `burst` at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float):
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one; 0 if there was one, else the seconds until there will be."""
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / self._rate


class Strikes:
    """Says when something happened more than `limit` times within a minute."""

    __slots__ = ("_limit", "_times")

    def __init__(self, limit: int):
        self._limit = limit
        self._times: deque[float] = deque(maxlen=limit + 1)

    def strike(self, now: float) -> bool:
        """Count one; True if there were more than the limit in the last minute."""
        self._times.append(now)
        return len(self._times) > self._limit and now - self._times[0] < MINUTE_S
