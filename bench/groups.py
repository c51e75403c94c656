"""Messages to a group with half of its members on each edge."""

import time
from collections.abc import Sequence

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
    reached,
)

SMALL, LARGE = 50, 500
RATE = 4
WARM = 4
SENDERS, OUTSTANDING = 10, 8
JOIN_TIMEOUT_S = 30.0


class _Last:
    """When the last member got each message."""

    def __init__(self, members: int) -> None:
        self.latencies_ns: list[float] = []
        self._members = members
        self._seen: dict[int, int] = {}

    def saw(self, number: int, due_ns: int) -> None:
        """One member got one message."""
        seen = self._seen[number] = self._seen.get(number, 0) + 1
        if seen == self._members:
            self.latencies_ns.append(time.monotonic_ns() - due_ns)


class _Member(Loader):
    """Tells `_Last` of each message, and counts it."""

    def __init__(self, user: str, last: _Last) -> None:
        super().__init__(user)
        self._last = last

    def text(self, data: bytes, start: int, end: int) -> None:
        """Note a delivery."""
        mark = data.find(messages.MARK, start, end)
        if mark >= 0:
            self.delivered += 1
            self._last.saw(messages.number(data, mark), messages.due_ns(data, mark))
        else:
            super().text(data, start, end)


async def create(context: Context, members: Sequence[Client], name: str) -> str:
    """Make a group of the users of `members`; the first owns it. Returns the group's id."""
    owner = Client(members[0].user, device="owner")
    await context.open(owner, 0)
    answer = await owner.request(
        {
            "type": "group_create",
            "client_id": f"{context.run}-create",
            "name": name,
            "group_id": f"{name}-{context.run}",
            "members": [client.user for client in members[1:]],
        }
    )
    owner.close()
    return str(answer["group"]["group_id"])


async def join(context: Context, members: Sequence[Loader], template: messages.Template) -> None:
    """Connect every member, half on each edge, and wait until a first message reaches all."""
    context.say(f"connecting {len(members)} members")
    await in_batches(context.open(client, n % 2) for n, client in enumerate(members))
    members[0].send(template.frame(0, time.monotonic_ns()))
    await reached(
        lambda: sum(client.delivered for client in members),
        len(members),
        timeout_s=JOIN_TIMEOUT_S,
    )
    await reached(lambda: members[0].acked, 1, timeout_s=JOIN_TIMEOUT_S)


async def latency(context: Context) -> Outcome:
    """Open loop at `RATE` to the large group: from due to the last member."""
    last = _Last(LARGE)
    members = [_Member(context.user(f"m{n}"), last) for n in range(LARGE)]
    group_id = await create(context, members, "large")
    template = messages.Template(context.run, 0, group_id=group_id)
    await join(context, members, template)
    count = int(RATE * context.scaled(60, 5))
    context.say("sending")
    await Schedule(
        RATE, WARM + count, lambda number, due: members[0].send(template.frame(number + 1, due))
    ).run()
    check_alive(members)
    await reached(lambda: len(last.latencies_ns), 1 + WARM + count, timeout_s=10)
    measured = last.latencies_ns[1 + WARM :]
    return Outcome(
        metrics=latency_metrics(measured, "group500"),
        curves={"group500_ms": curve(measured)},
        notes={"messages": count},
    )


async def saturation(context: Context, size: int) -> Outcome:
    """Closed loop: `SENDERS` of the members, half on each edge, `OUTSTANDING` each."""
    group_id = f"group{size}-{context.run}"
    templates = [
        messages.Template(context.run, n + 1, group_id=group_id) if n < SENDERS else None
        for n in range(size)
    ]
    members = [Loader(context.user(f"m{n}"), template) for n, template in enumerate(templates)]
    await create(context, members, f"group{size}")
    await join(context, members, messages.Template(context.run, 0, group_id=group_id))
    outcome = await saturate(
        context, members[:SENDERS], members, outstanding=OUTSTANDING, copies=size
    )
    return Outcome(
        metrics={
            f"group{size}_per_s": outcome.metrics["per_s"],
            f"group{size}_cpu_us": outcome.metrics["cpu_us"],
        },
        cpu_us=outcome.cpu_us,
        notes=outcome.notes,
    )


async def small_saturation(context: Context) -> Outcome:
    """The group of 50."""
    return await saturation(context, SMALL)


async def large_saturation(context: Context) -> Outcome:
    """The group of 500."""
    return await saturation(context, LARGE)


SCENARIOS = [
    Scenario(
        name="group50-saturation",
        title="group of 50, saturation",
        expected_s=(16, 6),
        run=small_saturation,
        without=MESSAGE_PATH,
    ),
    Scenario(
        name="group500-latency",
        title=f"group of 500, last member at {RATE}/s",
        expected_s=(64, 10),
        run=latency,
        without=MESSAGE_PATH,
    ),
    Scenario(
        name="group500-saturation",
        title="group of 500, saturation",
        expected_s=(20, 9),
        run=large_saturation,
        without=MESSAGE_PATH,
    ),
]
