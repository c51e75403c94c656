"""What the supervisor runs, declared as data, and what it tells about it."""

from collections.abc import Awaitable, Callable, Mapping
from signal import SIGTERM, Signals

from msgspec import Struct


class NotReady(Exception):
    """A probe failed; the text says what is missing. The next probe may succeed."""


Probe = Callable[[], Awaitable[None]]
"""One attempt, with its own deadline.

Returns when the service is ready, raises `NotReady` when it is not yet, and `StartError` when it
never will be.
"""


class Service(Struct, frozen=True, kw_only=True):
    """A process to keep running.

    It starts when all in `after` are ready. It is stopped before all in `after` and in `uses`,
    with `stop_signal`, and killed when it has not ended `stop_s` later.
    """

    name: str
    command: tuple[str, ...]
    probe: Probe
    env: Mapping[str, str]
    address: str = ""
    after: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    ready_s: float = 30.0
    stop_signal: Signals = SIGTERM
    stop_s: float = 2.0


class Starting(Struct, frozen=True, kw_only=True):
    """The process was started."""

    name: str
    pid: int


class Waiting(Struct, frozen=True, kw_only=True):
    """The process says that it waits, and for what; reported once for each."""

    name: str
    why: str


class Ready(Struct, frozen=True, kw_only=True):
    """The service answers. `again` is true after a restart."""

    name: str
    after_s: float
    again: bool


class AllReady(Struct, frozen=True, kw_only=True):
    """Every service is ready for the first time."""

    after_s: float


class Failed(Struct, frozen=True, kw_only=True):
    """The service could not start; everything is about to be stopped."""

    name: str


class Died(Struct, frozen=True, kw_only=True):
    """The service ended, or did not become ready; it is started again after `delay_s`."""

    name: str
    how: str
    delay_s: float
    lines: list[str]


class Stopping(Struct, frozen=True, kw_only=True):
    """The service was asked to stop."""

    name: str


class Stopped(Struct, frozen=True, kw_only=True):
    """The service has ended, `killed` if it had to be."""

    name: str
    killed: bool


Event = Starting | Waiting | Failed | Ready | AllReady | Died | Stopping | Stopped
Report = Callable[[Event], None]


def describe_exit(code: int) -> str:
    """How a process ended, as the end of a sentence that begins with its name."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
