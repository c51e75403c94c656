"""Messages between two users: delivery time at a fixed rate, and how many at most."""

import time

from . import messages
from .client import Client, in_batches
from .load import Loader, saturate
from .pace import Schedule
from .scenario import (
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
        metrics=latency_metrics(measured, "dm"),
        curves={"dm_ms": curve(measured)},
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


SCENARIOS = [
    Scenario(
        name="dm-latency",
        title=f"DM delivery at {RATE}/s",
        expected_s=(34, 8),
        run=latency,
    ),
    Scenario(
        name="dm-saturation",
        title=f"DM saturation, {PAIRS} pairs x {OUTSTANDING}",
        expected_s=(15, 5),
        run=saturation,
    ),
]
