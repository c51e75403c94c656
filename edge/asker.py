"""Whoever asks something of this edge: a session's frame, or one HTTP request."""

import logging
from typing import TYPE_CHECKING, Any

from broker.errors import BrokerError, Conflict, InvalidName, Overloaded, Unavailable
from broker.requests import Failure

from . import frames
from .lane import Lane
from .tokens import KeysUnavailable, Unauthorized

if TYPE_CHECKING:
    from .edge import Edge
    from .hub import User

RETRY_MS = 1000
KEYS_RETRY_MS = 10_000

EXPECTED = (Failure, BrokerError, TimeoutError, Unauthorized, KeysUnavailable)
"""What a request may raise and `failed` answers; anything else is a fault of ours."""

_log = logging.getLogger("hikyaku.asker")


class Asker:
    """Knows who asks, and takes the answers. `lost`: nobody waits for them any more."""

    __slots__ = ("edge", "lane", "lost", "user")

    user: "User"

    def __init__(self, edge: "Edge"):
        self.edge = edge
        self.lane = Lane(self)
        self.lost = False

    def push(self, frame: Any) -> None:
        """Take one frame struct as an answer."""
        raise NotImplementedError

    def written(self) -> None:
        """A write was answered."""
        self.lane.written()

    def refuse_rate(self, now: float, wait_s: float, request: Any) -> None:
        """Answer what came too fast."""
        raise NotImplementedError

    def error(self, code: str, message: str, request: Any = None, **fields: Any) -> None:
        """Answer a request with an error."""
        self.edge.counters.errors[code] += 1
        self.push(
            frames.Error(
                code=code,
                message=message,
                retryable=code in frames.RETRYABLE,
                id=getattr(request, "id", None),
                client_id=getattr(request, "client_id", None),
                **fields,
            )
        )

    def failed(self, error: BaseException, request: Any) -> None:
        """Answer a request that raised one of `EXPECTED`."""
        match error:
            case Failure():
                self.error(error.code, error.message, request)
            case Conflict():
                self.error("conflict", str(error), request, seq=error.seq)
            case Overloaded():
                self.error("overloaded", str(error), request, retry_after_ms=RETRY_MS)
            case Unavailable():
                _log.info("%s: %s", self.user.user_id, error)
                message = "not done now; send it again"
                self.error("unavailable", message, request, retry_after_ms=RETRY_MS)
            case InvalidName():
                self.error("invalid", str(error), request)
            case TimeoutError():
                self.error("timeout", "no answer in time; ask again", request)
            case Unauthorized():
                self.error("unauthorized", str(error), request)
            case KeysUnavailable():
                self.error("unavailable", str(error), request, retry_after_ms=KEYS_RETRY_MS)
            case _:
                _log.error("a request failed", exc_info=error)
                self.error("internal", "the server failed; it was logged", request)
