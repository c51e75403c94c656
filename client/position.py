"""Where a client is in the site's log: what it resumes from, and what a cursor store keeps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """The newest event taken, `seq` in log `epoch`, and, during a catch-up, where that began.

    `since` matters because the server names the ranges that it did not send only at the end of a
    catch-up. Resuming from `seq` after a cut in the middle would lose them, so the client resumes
    from `since` and drops what it has had, up to `seq`.
    """

    epoch: str
    seq: int
    since: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read a protocol cursor `epoch:seq`, or our own form of it. Raises `ValueError`."""
        epoch, colon, rest = text.rpartition(":")
        seq, slash, since = rest.partition("/")
        numbers = [seq, since] if slash else [seq]
        if not (colon and epoch and all(n.isascii() and n.isdigit() for n in numbers)):
            raise ValueError(f"not a cursor: {text[:100]!r}")
        return cls(epoch, int(seq), int(since) if slash else None)

    def __str__(self) -> str:
        """Give the form that a cursor store keeps; outside a catch-up it is a protocol cursor."""
        return self.cursor if self.since is None else f"{self.cursor}/{self.since}"

    @property
    def cursor(self) -> str:
        """The protocol's cursor for `seq`."""
        return f"{self.epoch}:{self.seq}"
