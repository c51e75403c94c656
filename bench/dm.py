"""Messages between two users: delivery time at a fixed rate, and how many at most."""

import gc
import time

from . import messages
from .client import Client, in_batches
from .load import Loader, saturate
from .pace import Schedule
from .scenario import (
    MESSAGE_PATH,
    Context,
    Outcome,
    Scenario,
    check_alive,
    curve,
    latency_metrics,
    percentile,
    reached,
)

RATE = 300
LATENCY_PAIRS = 30
CROWD = 10_000
PAIRS, OUTSTANDING = 100, 8


class _Timed(Client):
    """Notes how long after it was due each message arrived."""

    def __init__(self, user: str, latencies_ns: list[float]) -> None:
        super().__init__(user)
        self._latencies_ns = latencies_ns

    def text(self, data: bytes, start: int, end: int) -> None:
        """Note the time of a delivery."""
        mark = data.find(messages.MARK, start, end)
        if mark < 0:
            self.control(data[start:end])
        else:
            self._latencies_ns.append(time.monotonic_ns() - messages.due_ns(data, mark))


async def latency(context: Context) -> Outcome:
    """Open loop at `RATE`: senders on the first edge, receivers on the second."""
    return await _latency(context, "dm")


async def crowded(context: Context) -> Outcome:
    """The same among `CROWD` users who are connected and quiet, but for their pongs."""
    crowd = [Client(context.user(f"c{n}")) for n in range(int(context.scaled(CROWD, 1000)))]
    context.say(f"connecting {len(crowd):,}")
    await in_batches(context.open(client, n % 2) for n, client in enumerate(crowd))
    # The generator's own collections of garbage would look like the server's delays.
    gc.freeze()
    try:
        outcome = await _latency(context, "crowded")
    finally:
        gc.unfreeze()
    check_alive(crowd)
    outcome.notes["connections"] = len(crowd)
    return outcome


async def _latency(context: Context, prefix: str) -> Outcome:
    latencies: list[float] = []
    receivers = [_Timed(context.user(f"r{n}"), latencies) for n in range(LATENCY_PAIRS)]
    senders = [Loader(context.user(f"s{n}")) for n in range(LATENCY_PAIRS)]
    templates = [
        messages.Template(context.run, n, to=client.user) for n, client in enumerate(receivers)
    ]
    await in_batches(context.open(client, 1) for client in receivers)
    await in_batches(context.open(client, 0) for client in senders)

    def send(number: int, due_ns: int) -> None:
        turn = number % LATENCY_PAIRS
        senders[turn].send(templates[turn].frame(number, due_ns))

    warm, count = RATE * 2, int(RATE * context.scaled(30, 4))
    schedule = Schedule(RATE, warm + count, send)
    context.say("sending")
    await schedule.run()
    check_alive([*senders, *receivers])
    await reached(lambda: len(latencies), warm + count, timeout_s=10)
    measured = latencies[warm:]
    late = [float(value) for value in schedule.late_ns[warm:]]
    return Outcome(
        metrics=latency_metrics(measured, prefix),
        curves={f"{prefix}_ms": curve(measured)},
        notes={"messages": count, "left_late_p99_ms": round(percentile(late, 99) / 1e6, 3)},
    )


async def saturation(context: Context) -> Outcome:
    """Closed loop: `PAIRS` senders on the first edge, each with `OUTSTANDING` without an ack."""
    receivers = [Loader(context.user(f"r{n}")) for n in range(PAIRS)]
    senders = [
        Loader(context.user(f"s{n}"), messages.Template(context.run, n, to=client.user))
        for n, client in enumerate(receivers)
    ]
    await in_batches(context.open(client, 1) for client in receivers)
    await in_batches(context.open(client, 0) for client in senders)
    outcome = await saturate(context, senders, receivers, outstanding=OUTSTANDING, copies=1)
    return Outcome(
        metrics={
            "dm_per_s": outcome.metrics["per_s"],
            "dm_cpu_ms": outcome.metrics["cpu_us"] / 1e3,
        },
        cpu_us=outcome.cpu_us,
        notes=outcome.notes,
    )


async def whole(context: Context) -> Outcome:
    """The same with all workers, on the same cores: search and pushes read every message too."""
    outcome = await saturation(context)
    outcome.metrics = {
        "whole_per_s": outcome.metrics["dm_per_s"],
        "whole_cpu_ms": outcome.metrics["dm_cpu_ms"],
    }
    return outcome


SCENARIOS = [
    Scenario(
        name="dm-latency",
        title=f"DM delivery at {RATE}/s",
        expected_s=(34, 8),
        run=latency,
        without=MESSAGE_PATH,
    ),
    Scenario(
        name="dm-saturation",
        title=f"DM saturation, {PAIRS} pairs x {OUTSTANDING}",
        expected_s=(15, 5),
        run=saturation,
        without=MESSAGE_PATH,
    ),
    Scenario(
        name="dm-crowded",
        title=f"DM delivery at {RATE}/s, {CROWD:,} connections",
        expected_s=(50, 10),
        run=crowded,
        without=MESSAGE_PATH,
    ),
    Scenario(
        name="dm-whole",
        title=f"DM saturation with search and pushes, {PAIRS} pairs x {OUTSTANDING}",
        expected_s=(15, 5),
        run=whole,
    ),
]
