"""Errors and the state of the connection in the words of a person who has not read the docs."""

import math

from .. import errors
from ..state import ConnectionState

_WORDS: list[tuple[type[errors.ClientError], str]] = [
    (errors.NotMember, "you are not in this group"),
    (errors.NotAllowed, "you are not allowed to do that"),
    (errors.NotFound, "there is no such group, user or message"),
    (errors.DuplicateGroup, "a group with this id exists already; choose another id"),
    (errors.GroupFull, "the group is full"),
    (errors.TooLarge, "it is too long"),
    (errors.RateLimited, "too many messages in a short time; wait a moment"),
    (errors.Overloaded, "the server has too much to do just now"),
    (errors.Unavailable, "a part of the server is down just now"),
    (errors.ServerTimeout, "the server took too long"),
    (errors.TransferStalled, "it does not get on; try again"),
    (errors.OutboxFull, "too many messages are waiting already"),
    (errors.TokenExpired, "Your token has expired. Get a new one and start again."),
    (errors.Unauthorized, "The server did not accept your token. Get a new one and start again."),
    (errors.Forbidden, "The server does not let you in under this name."),
    (errors.TooManyConnections, "You are connected too many times. Close another one first."),
    (errors.ClientClosed, "the connection was closed"),
]


def plain(error: errors.ClientError) -> str:
    """Say what went wrong."""
    if isinstance(error, errors.SendTimeout):
        return "no answer; it may or may not have arrived" if error.sent else "no connection"
    if isinstance(error, errors.InvalidRequest):
        return f"the server cannot take it: {error.message}"
    if isinstance(error, errors.RequestFailed) and type(error) is errors.ServerError:
        return f"the server failed: {error.message}"
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return str(error)


def connection(state: ConnectionState, *, waited_s: float) -> tuple[str, str]:
    """Give the words for the header and their style; `waited_s` since the state began."""
    match state.phase:
        case "online":
            return "● online", "green"
        case "waiting":
            left = max(0, math.ceil(state.retry_in_s - waited_s))
            return f"○ reconnecting in {left} s: {state.reason}", "yellow"
        case "stopped":
            return "✕ disconnected", "red"
        case _:
            return "○ connecting…", "yellow"
