"""What every scenario is given and gives back, and the small things that all of them need."""

import asyncio
import math
import secrets
import statistics
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

from .client import Client

MESSAGE_PATH = ("index", "notify")
"""What the message path and persistence do without: search and pushes read the log beside it."""

OTHERS = "cores_used_by_others"
"""A note: what else ran on the machine meanwhile, as a number of cores."""


class BenchError(Exception):
    """A measurement that cannot count: messages missing, connections lost, requests refused."""


class Target(Struct, frozen=True, kw_only=True):
    """A running stack: `host:port` of each edge, the token secret.

    Of a stack that it started itself the bench also knows the supervisor's pid and the logs.
    """

    edges: tuple[str, ...]
    secret: str
    supervisor: int | None = None
    logs: str | None = None

    def edge(self, index: int) -> str:
        """The address of an edge; with fewer edges than asked for, they take turns."""
        return self.edges[index % len(self.edges)]


class Outcome(Struct, kw_only=True):
    """What one run of a scenario found.

    `metrics` are the figures; `cpu_us` is server CPU per operation by process, in microseconds;
    `curves` are series for the plot; `notes` say what helps to judge the figures.
    """

    metrics: dict[str, float]
    cpu_us: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    notes: dict[str, float | str] = {}


class Context:
    """One run of a scenario: where the stack is, how long to measure, names that are new."""

    def __init__(
        self, target: Target, *, quick: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.target = target
        self.quick = quick
        self.say = say
        self.run = secrets.token_hex(3)

    def scaled(self, full: float, quick: float) -> float:
        """A duration or a count: in full, or for `--quick`."""
        return quick if self.quick else full

    def user(self, name: str) -> str:
        """A user id that no other run has."""
        return f"{name}-{self.run}"

    async def open(self, client: Client, edge: int) -> None:
        """Connect a client to the edge of that index."""
        await client.open(self.target.edge(edge), self.target.secret)


class Scenario(Struct, frozen=True, kw_only=True):
    """A named measurement. `expected_s` (full, quick) is for the progress bar and the deadline.

    `without` are workers that the bench's own stack does not run while this is measured.
    """

    name: str
    title: str
    expected_s: tuple[float, float]
    run: Callable[[Context], Coroutine[Any, Any, Outcome]]
    without: tuple[str, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not below `percent` of all (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latency_metrics(values_ns: Sequence[float], prefix: str) -> dict[str, float]:
    """p50, p99 and maximum in milliseconds."""
    return {
        f"{prefix}_p50_ms": percentile(values_ns, 50) / 1e6,
        f"{prefix}_p99_ms": percentile(values_ns, 99) / 1e6,
        f"{prefix}_max_ms": max(values_ns) / 1e6,
    }


def curve(values_ns: Sequence[float]) -> list[float]:
    """The 0.5, 1.5, … 99.5 percentiles in milliseconds, for the plot."""
    return [round(percentile(values_ns, step + 0.5) / 1e6, 4) for step in range(100)]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(statistics.median(values))


async def reached(count: Callable[[], int], goal: int, *, timeout_s: float) -> None:
    """Wait until `count()` is `goal`; raise `BenchError` with what is missing at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while (now := count()) < goal:
        if loop.time() > deadline:
            raise BenchError(f"{goal - now} of {goal} missing after {timeout_s:g} s")
        await asyncio.sleep(0.02)
    if now > goal:
        raise BenchError(f"{now - goal} more than the {goal} expected")


def check_alive(clients: Sequence[Client]) -> None:
    """Raise `BenchError` when a connection has ended or a request was refused for good."""
    for client in clients:
        if client.closed.done():
            raise BenchError(f"{client.user}: {client.closed.result()}")
        for error in client.errors:
            if not error.get("retryable"):
                raise BenchError(f"{client.user}: {error.get('code')}: {error.get('message')}")
