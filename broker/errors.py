"""Errors of the broker package.

    BrokerError
    ├── InvalidName      an id that cannot be a subject token; the caller's fault
    ├── Refused          the server answered no, and would again
    │   └── NewerLayout  a stream was laid out by a later version, which this one cannot use
    ├── OlderLog         the log ends before what was read from it: an older copy of NATS' data
    ├── Conflict         `expect_seq` was not the chat's last seq
    └── Retryable
        ├── Unavailable  NATS or JetStream does not answer, or not in time
        │   ├── HalfMade      the log is being made; it is there in a moment
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


class NewerLayout(Refused):
    """A stream has layout `found`, and only versions that know layout `least` can use it."""

    def __init__(self, stream: str, found: int, least: int, known: int):
        super().__init__(
            0,
            f"the stream {stream} has layout {found}, which needs a version of Hikyaku that knows"
            f" layout {least}; this one knows {known}. Run the newer version, or restore a backup"
            " that this version made",
        )
        self.stream, self.found, self.least = stream, found, least


class OlderLog(BrokerError):
    """The log ends at `last_seq`, but events up to `seen` have been read from it."""

    def __init__(self, last_seq: int, seen: int, who: str):
        super().__init__(
            f"the log ends at {last_seq}, but {who} events up to {seen}: NATS' data is an older"
            " copy, and its log would give numbers a second time. Stop NATS, empty its data folder,"
            " and start it: a new log then begins after all that MongoDB has"
        )
        self.last_seq, self.seen = last_seq, seen


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


class HalfMade(Unavailable):
    """The log is being made (`broker.making`), and not to be used yet."""

    def __init__(self) -> None:
        super().__init__("the log is being made")


class NoResponders(Unavailable):
    """Nobody serves the subject just now; certainly nothing was done."""


class Overloaded(Retryable):
    """A bound was reached; nothing was stored."""
