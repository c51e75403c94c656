"""Cursors: `<epoch>:<seq>`, a position in the log of one site."""

from collections.abc import Mapping
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


def in_log(cursor: Cursor | None, epoch: str, ancestors: Mapping[str, int]) -> Cursor | None:
    """The same place in the log `epoch`, or None if that log does not have it.

    A log restored from a backup goes on from an older one: up to where that one was backed up, a
    place in it is one in both.
    """
    if cursor is None or cursor.epoch == epoch:
        return cursor
    return Cursor(epoch, cursor.seq) if cursor.seq <= ancestors.get(cursor.epoch, -1) else None
