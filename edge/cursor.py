"""Cursors: `<epoch>:<seq>`, a position in the log of one site."""

from typing import NamedTuple


class Cursor(NamedTuple):
    """The epoch names the log; `seq` is the last event that the client has stored."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


def parse_cursor(text: str) -> Cursor | None:
    """A client's cursor, or None if it is not one: such a client cannot be resumed."""
    epoch, colon, seq = text.rpartition(":")
    if not colon or not seq.isascii() or not seq.isdigit() or len(seq) > 19:
        return None
    return Cursor(epoch, int(seq))
