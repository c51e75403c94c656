"""Some keys of a bucket as they are known here: live changes and snapshots, merged by sequence.

A live change may be missed, and a snapshot may be older than the last live change. Both carry
sequences of the same stream, so whatever order they come in, the newest of each key stands; what a
snapshot does not have, and was not written after it, is gone.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Value(NamedTuple):
    """A value and the sequence at which it was written; empty data: the key was removed."""

    seq: int
    data: bytes


class Mirror:
    """The keys and their values. Reading is by `values`; `seen` is the highest sequence known."""

    __slots__ = ("_removed", "seen", "values")

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self._removed: dict[str, int] = {}
        self.seen = 0

    def apply(self, key: str, value: Value) -> bool:
        """Take a change; whether it was news."""
        known = self.values.get(key)
        if known is not None and known.seq >= value.seq:
            return False
        if self._removed.get(key, 0) >= value.seq:
            return False
        self.seen = max(self.seen, value.seq)
        if value.data:
            self.values[key] = value
            self._removed.pop(key, None)
        else:
            self.values.pop(key, None)
            self._removed[key] = value.seq
        return True

    def replace(self, found: Mapping[str, Value], up_to: int) -> None:
        """Take a snapshot: all that there was at the sequence `up_to`."""
        for key, value in found.items():
            self.apply(key, value)
        gone = [
            key
            for key, value in self.values.items()
            if value.seq <= up_to and not (key in found and found[key].data)
        ]
        for key in gone:
            del self.values[key]
        self._removed = {key: seq for key, seq in self._removed.items() if seq > up_to}
