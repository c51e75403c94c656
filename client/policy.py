"""When to reconnect and when to try a request again: plain functions, without clock or network."""

import re
from dataclasses import dataclass

from edge.close_codes import CloseCode
from edge.frames import Error

from .errors import (
    ConnectionStopped,
    Forbidden,
    FrameTooLarge,
    TokenExpired,
    TooManyBadFrames,
    TooManyConnections,
    Unauthorized,
)

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 10.0
"""A connection that lived this long was a good one: the next failure is a first failure again."""

TOKEN_TRIES = 3
"""So many tokens refused one after the other, and the token function is taken to be wrong."""

RETRY_FIRST_S = 0.25
RETRY_MAX_S = 5.0

LOST = 1006
"""What a connection that ended without a close frame counts as."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection, or the try to make one, ended."""

    code: int = LOST
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """Connect again after `delay_s`, with a new token if `new_token`."""

    delay_s: float
    new_token: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not connect again."""

    error: ConnectionStopped


_STOPPING: dict[int, tuple[type[ConnectionStopped], str]] = {
    CloseCode.UNAUTHORIZED: (Unauthorized, "the server refused the token"),
    CloseCode.TOKEN_EXPIRED: (TokenExpired, "the token has expired"),
    CloseCode.FORBIDDEN: (Forbidden, "the server refuses this user"),
    CloseCode.TOO_MANY_CONNECTIONS: (
        TooManyConnections,
        "this user is connected too many times",
    ),
    CloseCode.FRAME_TOO_LARGE: (FrameTooLarge, "a frame was too large for the server"),
    CloseCode.MALFORMED: (TooManyBadFrames, "the server did not understand many frames"),
}


def backoff_s(failures: int, chance: float) -> float:
    """Give a time up to 1, 2, 4, … 30 s for the 1st, 2nd, 3rd … failure; `chance` is in [0, 1)."""
    ceiling = BACKOFF_FIRST_S * 2.0 ** min(max(failures, 1) - 1, 10)
    return min(ceiling, BACKOFF_MAX_S) * chance


def after_close(
    ended: Ended, *, failures: int, refusals: int, can_renew: bool, chance: float
) -> Again | Stop:
    """Decide what follows the end of a connection.

    `failures` counts the connections, this one too, since the last one that lived for
    `HEALTHY_AFTER_S`, so that even reconnects "at once" slow down when they are many. `refusals`
    counts the tokens refused in a row, this one too. `can_renew`: a new token can be had.
    """
    code = ended.code
    later = backoff_s(failures - 1, chance) if failures > 1 else 0.0
    if code in (CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED):
        if can_renew and refusals <= TOKEN_TRIES:
            return Again(later, new_token=True)
        return _stop(ended)
    if 4000 <= code < 4100:
        return _stop(ended)
    if 4200 <= code < 4300:
        return Again(later)
    delay = backoff_s(failures, chance)
    if code == CloseCode.RATE_LIMITED:
        delay += retry_after_in(ended.reason) or 0.0
    return Again(delay)


def _stop(ended: Ended) -> Stop:
    kind, text = _STOPPING.get(ended.code, (ConnectionStopped, "the server closed the connection"))
    reason = f"{text}: {ended.reason}" if ended.reason else text
    return Stop(kind(reason, close_code=ended.code))


def retry_after_in(reason: str) -> float | None:
    """Read `retry_after_ms` from a close reason, as seconds; None if it is not there."""
    found = re.search(r"retry_after_ms\D{0,4}(\d{1,9})", reason)
    return int(found[1]) / 1000 if found else None


def retry_delay_s(error: Error, *, attempts: int, chance: float) -> float:
    """Say how long to wait before a request is tried again; the server's own word goes first."""
    if error.retry_after_ms is not None:
        return max(error.retry_after_ms, 1) / 1000
    ceiling = min(RETRY_FIRST_S * 2.0 ** min(attempts, 10), RETRY_MAX_S)
    return ceiling * (0.5 + chance / 2)
