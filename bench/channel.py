"""A channel of 20,000 members: one write for a message, live to those who have it open."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from . import messages
from .client import Client, in_batches
from .load import Loader
from .pace import Schedule
from .process import CpuMeter
from .scenario import (
    BenchError,
    Context,
    Outcome,
    Scenario,
    check_alive,
    curve,
    latency_metrics,
    reached,
)

MEMBERS, OPEN, QUIET, RATE = 20_000, 400, 200, 10
WARM = 10
A_CHUNK = 500
SETTLE_S = 3.0


class _Open(Loader):
    """Notes when it is the last of all that have the channel open to get a message."""

    def __init__(self, user: str, seen: Counter[int], latencies_ns: list[float]) -> None:
        super().__init__(user)
        self._seen = seen
        self._latencies_ns = latencies_ns

    def text(self, data: bytes, start: int, end: int) -> None:
        """Note a delivery."""
        mark = data.find(messages.MARK, start, end)
        if mark < 0:
            self.control(data[start:end])
            return
        number = messages.number(data, mark)
        self._seen[number] += 1
        if self._seen[number] == OPEN:
            self._latencies_ns.append(time.monotonic_ns() - messages.due_ns(data, mark))


class _Quiet(Loader):
    """A member that does not have the channel open: counts what it is told of it."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.activities = 0

    def other(self, fields: dict[str, object]) -> None:
        """Count an `activity`."""
        self.activities += fields.get("type") == "activity"


async def _create(context: Context, owner: Client, members: Sequence[str]) -> str:
    """The channel's id, once all are in it."""
    group_id = f"channel-{context.run}"
    await owner.request(
        {
            "type": "group_create",
            "client_id": f"{context.run}-channel",
            "name": "channel",
            "kind": "channel",
            "group_id": group_id,
        }
    )
    for start in range(0, len(members), A_CHUNK):
        context.say(f"adding members, {start} of {len(members)}")
        users = list(members[start : start + A_CHUNK])
        answer = await owner.request({"type": "group_add", "group_id": group_id, "users": users})
    if answer["group"]["member_count"] != len(members) + 1:
        raise BenchError(f"the channel has {answer['group']['member_count']} members")
    return group_id


async def channel(context: Context) -> Outcome:
    """Open loop at `RATE`; half of the sessions on each edge, some of them without it open."""
    total = int(context.scaled(MEMBERS, 2000))
    latencies: list[float] = []
    seen: Counter[int] = Counter()
    opened = [_Open(context.user(f"o{n}"), seen, latencies) for n in range(OPEN)]
    quiet = [_Quiet(context.user(f"q{n}")) for n in range(QUIET)]
    present = [client.user for client in (*opened, *quiet)]
    absent = [context.user(f"a{n}") for n in range(total - len(present) - 1)]
    owner = Loader(context.user("owner"))
    await context.open(owner, 0)
    begin_s = time.monotonic()
    group_id = await _create(context, owner, present + absent)
    filling_s = time.monotonic() - begin_s
    context.say(f"connecting {len(present)} members")
    await in_batches(context.open(client, n % 2) for n, client in enumerate([*opened, *quiet]))
    chat_id = f"group.{group_id}"
    await in_batches(client.request({"type": "open", "chat_id": chat_id}) for client in opened)
    template = messages.Template(context.run, 0, group_id=group_id)
    count = int(RATE * context.scaled(20, 4))
    cpu = CpuMeter(context.target.supervisor)
    context.say("sending")
    cpu.start()
    begin_s = time.monotonic()
    await Schedule(
        RATE, WARM + count, lambda number, due: owner.send(template.frame(number, due))
    ).run()
    await reached(lambda: len(latencies), WARM + count, timeout_s=10)
    seconds, used = time.monotonic() - begin_s, cpu.used_s()
    await asyncio.sleep(SETTLE_S)
    check_alive([owner, *opened, *quiet])
    if stray := sum(client.delivered for client in quiet) + owner.delivered:
        raise BenchError(f"{stray} deliveries to members who do not have it open")
    most = max(client.activities for client in quiet)
    least = min(client.activities for client in quiet)
    if not least or most > (seconds + SETTLE_S) / 2 + 2:
        raise BenchError(f"from {least} to {most} activities in {seconds:g} s")
    measured = latencies[WARM:]
    return Outcome(
        metrics={
            **latency_metrics(measured, "channel"),
            "channel_cpu_us": sum(used.values()) / (WARM + count) / OPEN * 1e6,
            "channel_fill_s": filling_s,
        },
        cpu_us={name: spent / (WARM + count) * 1e6 for name, spent in used.items()},
        curves={"channel_ms": curve(measured)},
        notes={"members": total, "open": OPEN, "messages": count, "most_activities": most},
    )


SCENARIOS = [
    Scenario(
        name="channel",
        title=f"channel of {MEMBERS:,}, {OPEN} have it open, {RATE}/s",
        expected_s=(60, 25),
        run=channel,
    )
]
