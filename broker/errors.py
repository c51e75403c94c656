"""Errors of the broker package.

    BrokerError
    ├── InvalidName      an id that cannot be a subject token; the caller's fault
    ├── Refused          the server answered no, and would again
    ├── Conflict         `expect_seq` was not the chat's last seq
    └── Retryable
        ├── Unavailable  NATS or JetStream does not answer, or not in time
        │   └── NoResponders  nobody serves the subject just now; nothing was done
        └── Overloaded   a bound was reached: the commit queue's, or the log's size

`retryable` says whether the same call may succeed later. Nothing was lost with any of them: a write
that failed with `Unavailable` may still be in the log, so repeat it with the same message id.
"""


class BrokerError(Exception):
    """Base of all errors of this package."""

    retryable = False


class InvalidName(BrokerError):
    """An id that is empty, too long, or has control characters. `field` names where it was."""

    def __init__(self, field: str, why: str):
        super().__init__(f"{field}: {why}")
        self.field = field


class Refused(BrokerError):
    """JetStream refused the request; `err_code` is its code (ADR-7)."""

    def __init__(self, err_code: int, description: str):
        super().__init__(f"JetStream refused: {description} ({err_code})")
        self.err_code = err_code


class Conflict(BrokerError):
    """The chat's last sequence is `seq`, not the expected one."""

    def __init__(self, seq: int):
        super().__init__(f"the chat's last seq is {seq}")
        self.seq = seq


class Retryable(BrokerError):
    """The same call may succeed later."""

    retryable = True


class Unavailable(Retryable):
    """No answer, or not in time; the outcome of a write is unknown."""


class NoResponders(Unavailable):
    """Nobody serves the subject just now; certainly nothing was done."""


class Overloaded(Retryable):
    """A bound was reached; nothing was stored."""
