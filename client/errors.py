"""Everything that the client raises, as one tree.

    ClientError                     `code`, `retryable`, `retry_after_s`
    ├── RequestFailed               the server refused one request; also `client_id`, `attempts`
    │   ├── InvalidRequest          bad_frame, unknown_type, invalid
    │   ├── TooLarge                too_large
    │   ├── NotAllowed              unauthorized, forbidden
    │   │   └── NotMember           not_member
    │   ├── NotFound                not_found
    │   ├── Conflict                conflict; `seq` is the chat's present one
    │   ├── DuplicateGroup          duplicate_group
    │   ├── GroupFull               group_full
    │   ├── RateLimited             rate_limited     (retryable)
    │   ├── Overloaded              overloaded       (retryable)
    │   ├── Unavailable             unavailable      (retryable)
    │   ├── ServerTimeout           timeout          (retryable)
    │   └── ServerError             internal, and codes unknown here
    ├── SendTimeout                 no answer before the deadline; `sent` says whether it ever left
    ├── TransferStalled             a file did not get on for too long
    ├── OutboxFull                  too much is waiting for an answer already
    ├── ConnectTimeout              not online within `open_timeout_s`
    ├── ClientClosed                the client was closed, or not started
    ├── CursorStoreError            the stored cursor cannot be read
    └── ConnectionStopped           the connection is over for good; `close_code`, `reason`
        ├── Unauthorized            4001: the token was refused
        ├── TokenExpired            4002: the token expired and there is no way to get another
        ├── TokenSourceFailed       the application's own token function raised
        ├── Forbidden               4003: origin, banned, or wrong user
        ├── TooManyConnections      4009
        ├── FrameTooLarge           4013
        ├── TooManyBadFrames        4022
        └── HandshakeRefused        no chat server there, by its HTTP status, address or certificate

A retryable error was already retried with the same `client_id` until the deadline of the request.
"""

from edge.frames import RETRYABLE, Error


class ClientError(Exception):
    """Base of all errors of the client."""

    code: str = "client"
    retryable: bool = False
    retry_after_s: float | None = None


class RequestFailed(ClientError):
    """The server answered a request with an `error` frame."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        client_id: str | None = None,
        retry_after_s: float | None = None,
        seq: int | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.client_id = client_id
        self.retryable = code in RETRYABLE
        self.retry_after_s = retry_after_s
        self.seq = seq
        self.attempts = attempts


class InvalidRequest(RequestFailed):
    """A field of the request is wrong; the message says which."""


class TooLarge(RequestFailed):
    """The content or the frame is over the server's limit."""


class NotAllowed(RequestFailed):
    """This user may not do that."""


class NotMember(NotAllowed):
    """This user is not a member of the group."""


class NotFound(RequestFailed):
    """There is no such group, user or message."""


class Conflict(RequestFailed):
    """The chat has moved on from `expect_seq`; `seq` is where it is now."""


class DuplicateGroup(RequestFailed):
    """The group id is taken."""


class GroupFull(RequestFailed):
    """The group has as many members as it may have."""


class RateLimited(RequestFailed):
    """Too many messages; `retry_after_s` says how long to wait."""


class Overloaded(RequestFailed):
    """The server has too much to do just now."""


class Unavailable(RequestFailed):
    """A part of the server is down; the message may or may not have been stored."""


class ServerTimeout(RequestFailed):
    """The server did not finish in its own time; the outcome is unknown."""


class ServerError(RequestFailed):
    """The server failed in a way that it did not foresee."""


_BY_CODE: dict[str, type[RequestFailed]] = {
    "bad_frame": InvalidRequest,
    "unknown_type": InvalidRequest,
    "invalid": InvalidRequest,
    "too_large": TooLarge,
    "unauthorized": NotAllowed,
    "forbidden": NotAllowed,
    "not_member": NotMember,
    "not_found": NotFound,
    "conflict": Conflict,
    "duplicate_group": DuplicateGroup,
    "group_full": GroupFull,
    "rate_limited": RateLimited,
    "overloaded": Overloaded,
    "unavailable": Unavailable,
    "timeout": ServerTimeout,
}


def request_failed(
    frame: Error, *, client_id: str | None = None, attempts: int = 1
) -> RequestFailed:
    """Build the exception for an `error` frame."""
    return _BY_CODE.get(frame.code, ServerError)(
        frame.code,
        frame.message,
        client_id=client_id,
        retry_after_s=None if frame.retry_after_ms is None else frame.retry_after_ms / 1000,
        seq=frame.seq,
        attempts=attempts,
    )


class SendTimeout(ClientError):
    """No answer before the deadline.

    When `sent` is true the request left this machine and its outcome is unknown: sending it again
    with the same `client_id` is safe and gives the first outcome.
    """

    code = "send_timeout"
    retryable = True

    def __init__(self, *, sent: bool, client_id: str | None = None) -> None:
        super().__init__("the outcome is unknown" if sent else "it could not be sent in time")
        self.sent = sent
        self.client_id = client_id


class TransferStalled(ClientError):
    """A file did not get on for too long; `__cause__` is the last failure, if there was one."""

    code = "transfer_stalled"
    retryable = True


class OutboxFull(ClientError):
    """More requests are waiting for an answer than `outbox_size` allows."""

    code = "outbox_full"
    retryable = True


class ConnectTimeout(ClientError):
    """The server was not reached in time; `__cause__` is the last failure, if one is known."""

    code = "connect_timeout"
    retryable = True


class ClientClosed(ClientError):
    """The client was closed, or not started yet."""

    code = "closed"


class CursorStoreError(ClientError):
    """The stored cursor is not one. Delete it to start from now."""

    code = "cursor_store"


class ConnectionStopped(ClientError):
    """The connection ended and the client will not try again."""

    code = "stopped"

    def __init__(self, reason: str, *, close_code: int | None = None) -> None:
        super().__init__(reason if close_code is None else f"{reason} ({close_code})")
        self.reason = reason
        self.close_code = close_code


class Unauthorized(ConnectionStopped):
    """The server refused the token."""


class TokenExpired(ConnectionStopped):
    """The token expired; give `Client` a function that fetches a new one."""


class TokenSourceFailed(ConnectionStopped):
    """The function that fetches tokens raised; `__cause__` is its error."""


class Forbidden(ConnectionStopped):
    """The server refuses this user here: banned, not the token's user, or a wrong origin."""


class TooManyConnections(ConnectionStopped):
    """This user is connected too many times already."""


class FrameTooLarge(ConnectionStopped):
    """A frame was over the server's limit."""


class TooManyBadFrames(ConnectionStopped):
    """The server could not understand more than ten frames in a minute."""


class HandshakeRefused(ConnectionStopped):
    """What answers at the address is not a chat server, or does not let this client in."""
