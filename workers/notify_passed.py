"""Messages not pushed because their users were here, until it is sure that these got them.

A connection may have ended before anybody knows: that of an edge that died until its lease ends,
that of a device that vanished until the edge misses its pongs. Whom only such connections let seem
to be here is planned for again.
"""

import itertools
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from broker import subjects
from broker.mirror import Value
from broker.presence import LOST
from store.audience import GroupInfo

PASSED = 100_000
"""So many are remembered, some 50 MB; beyond it the oldest are forgotten, and counted."""

LOST_KNOWN = 100_000
DEAD_LATE_S = 5.0
"""The end of an edge's lease is known here at the latest so long after it."""

LOST_LATE_S = 10.0
"""The end of a silent connection is known here so long after its time: it is closed first, and a
client that is there has 5 s to answer that."""

SLACK_S = 1.0
"""The end of a connection may be told so much later than it was noticed."""

Fate = Literal["here", "got", "lost"]


class Ask(NamedTuple):
    """A message that a user may be told of."""

    user: str
    mention: bool
    chat_id: str
    group: GroupInfo | None
    message_id: int
    seq: int
    until_ms: int

    @property
    def kind(self) -> str:
        """What kind of chat it is in."""
        return "dm" if self.group is None else self.group.kind


class PassedOver(NamedTuple):
    """A message that was not pushed at this time, for its user was here by these connections."""

    number: int
    ask: Ask
    token: str
    connections: frozenset[str]
    at: float


class Passed:
    """All of them. Times are monotonic; users are tokens, connections are `<edge>.<connection>`."""

    def __init__(self, living: Container[str], *, lease_s: float, pong_timeout_s: float):
        self._living = living
        self._dead_s = lease_s + DEAD_LATE_S
        self._kept_s = max(self._dead_s, pong_timeout_s + LOST_LATE_S)
        self._numbers = itertools.count()
        self._all: OrderedDict[int, PassedOver] = OrderedDict()
        self._of: dict[str, set[int]] = {}
        self._heard: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._doubted: set[str] = set()
        self._edges_doubted = False
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, ask: Ask, connections: Iterable[str], now: float) -> None:
        """Its user is here by these connections, so it is not pushed."""
        self._expire(now)
        token = subjects.encode(ask.user)
        entry = PassedOver(next(self._numbers), ask, token, frozenset(connections), now)
        self._all[entry.number] = entry
        self._of.setdefault(token, set()).add(entry.number)
        if len(self._all) > PASSED:
            self.drop([next(iter(self._all.values()))])
            self.forgotten += 1

    def drop(self, entries: Iterable[PassedOver]) -> None:
        """These are decided."""
        for each in entries:
            if self._all.pop(each.number, None) is not None:
                numbers = self._of[each.token]
                numbers.discard(each.number)
                if not numbers:
                    del self._of[each.token]

    def _expire(self, now: float) -> None:
        before = now - self._kept_s
        while self._all and (first := next(iter(self._all.values()))).at < before:
            self.drop([first])
        while self._heard and next(iter(self._heard.values()))[1] < before:
            self._heard.popitem(last=False)

    # --- what gives rise to doubt ---

    def lost(self, token: str, connection: str, silent_s: float, now: float) -> bool:
        """A connection ended without a word, silent for so long; whether that matters."""
        self._heard.pop(connection, None)
        self._heard[connection] = (now - silent_s - SLACK_S, now)
        if len(self._heard) > LOST_KNOWN:
            self._heard.popitem(last=False)
        if token not in self._of:
            return False
        self._doubted.add(token)
        return True

    def doubt(self, tokens: Iterable[str]) -> None:
        """Look at these users again."""
        self._doubted.update(tokens)

    def doubt_all(self) -> None:
        """What was told of connections may have been missed."""
        self._doubted.update(self._of)

    def doubt_edges(self) -> None:
        """Edges came or went."""
        self._edges_doubted = True

    def doubted(self, now: float) -> list[PassedOver]:
        """What is to be looked at now."""
        self._expire(now)
        if self._edges_doubted:
            self._edges_doubted = False
            self._doubted.update(each.token for each in self._all.values() if self._orphaned(each))
        tokens, self._doubted = self._doubted, set()
        numbers = (number for token in tokens for number in self._of.get(token, ()))
        return [self._all[number] for number in sorted(numbers)]

    def _orphaned(self, entry: PassedOver) -> bool:
        return any(key.partition(".")[0] not in self._living for key in entry.connections)

    # --- what is known ---

    def connections(self, keys: Mapping[str, Value]) -> Iterator[str]:
        """The connections that count, of a user with these keys in the bucket `presence`."""
        for key, value in keys.items():
            edge, _, connection = key.partition(".")
            if value.data and edge in self._living and not self._is_lost(connection, keys):
                yield key

    def _is_lost(self, connection: str, keys: Mapping[str, Value]) -> bool:
        return connection in self._heard or f"{LOST}.{connection}" in keys

    def fate(self, entry: PassedOver, keys: Mapping[str, Value], now: float) -> Fate:
        """Whether its user is still here by one of the connections, or has got it by one.

        Who said goodbye, and who was heard after the message was sent, has got it.
        """
        here = False
        for key in entry.connections:
            edge, _, connection = key.partition(".")
            if self._is_lost(connection, keys):
                heard_at, _ = self._heard.get(connection, (-1.0, now))
                if heard_at > entry.at:
                    return "got"
            elif edge not in self._living:
                if entry.at < now - self._dead_s:
                    return "got"
            elif key in keys and keys[key].data:
                here = True
            else:
                return "got"
        return "here" if here else "lost"
