"""How much a peer may say: what is over it waits, or gets no answer; counted, and named in the log.

A peer that heals after a long cut brings thousands of parcels a second, and may. One that never
stops, by mistake or by intent, takes the limit and no more, and the others are served meanwhile.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

NAMED_S = 30.0
"""A peer over its limit is named in the log so often."""

BURST_S = 2.0
WAIT_S = 1.0
"""So long a batch waits at most; then a part of it is taken."""

QUESTIONS_PER_S = 1000.0
"""Of all kinds. Batches of parcels are sent one after the other, far below this."""

_log = logging.getLogger("hikyaku.relay")


class Bucket:
    """Fills with `rate` tokens a second, up to what comes in `BURST_S`."""

    def __init__(self, rate: float, now: float):
        self._rate = rate
        self._most = max(1.0, rate * BURST_S)
        self._tokens = self._most
        self._at = now

    def take(self, count: int, now: float) -> int:
        """Take up to `count` of what there is; how many."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        taken = min(count, int(self._tokens))
        self._tokens -= taken
        return taken


class Limits:
    """For each peer `parcels_per_s`, and `QUESTIONS_PER_S`; all that are not linked are one."""

    def __init__(self, parcels_per_s: float, linked: Callable[[str], bool]):
        self._parcels_per_s = parcels_per_s
        self._linked = linked
        self._parcels: dict[str, Bucket] = {}
        self._questions: dict[str, Bucket] = {}
        self._named: dict[str, float] = {}
        self._dropping: dict[str, tuple[float, float]] = {}
        self.slowed: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()

    async def parcels(self, peer: str, count: int) -> int:
        """Wait until the peer may say some of `count` parcels; how many, at least one."""
        now = _now()
        if peer not in self._parcels:
            self._parcels[peer] = Bucket(self._parcels_per_s, now)
        bucket = self._parcels[peer]
        allowed = bucket.take(count, now)
        if allowed == count:
            return count
        self.slowed[peer] += 1
        self._name(peer, f"over {self._parcels_per_s:g} parcels a second: it is slowed down")
        missing = count - allowed
        await asyncio.sleep(min(WAIT_S, missing / self._parcels_per_s))
        allowed += bucket.take(missing, _now())
        while not allowed:
            await asyncio.sleep(min(WAIT_S, 1 / self._parcels_per_s))
            allowed = bucket.take(1, _now())
        return allowed

    def question(self, peer: str) -> bool:
        """Whether the peer may ask now."""
        now, peer = _now(), self._one(peer)
        if peer not in self._questions:
            self._questions[peer] = Bucket(QUESTIONS_PER_S, now)
        if self._questions[peer].take(1, now):
            return True
        self.unanswered[peer] += 1
        self._name(peer, f"over {QUESTIONS_PER_S:g} questions a second: some are not answered")
        return False

    def drop(self, peer: str, why: str) -> None:
        """Count a question that is not answered, and name the peer if it goes on.

        What was on its way in a cut comes all at once when it heals: that is no fault of the peer.
        """
        now, peer = _now(), self._one(peer)
        self.unanswered[peer] += 1
        since, last = self._dropping.get(peer, (now, now))
        if now - last > NAMED_S:
            since = now
        self._dropping[peer] = since, now
        if now - since >= BURST_S:
            self._name(peer, f"{why}: some are not answered")

    def _one(self, peer: str) -> str:
        return peer if self._linked(peer) else "a site that is not linked"

    def _name(self, peer: str, why: str) -> None:
        now = _now()
        if now - self._named.get(peer, -NAMED_S) >= NAMED_S:
            self._named[peer] = now
            _log.warning("%s is over its limit, %s", peer, why)


def _now() -> float:
    return asyncio.get_running_loop().time()
