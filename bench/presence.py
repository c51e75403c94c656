"""How soon those who watch learn that a user came or went, on the other edge."""

import asyncio
import time

from .client import Client, in_batches
from .pace import Schedule
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

USERS, WATCHERS, RATE = 400, 10, 20
SETTLE_S = 10.0
_ONLINE, _OFFLINE = b'"status":"online"', b'"status":"offline"'


class _Watcher(Client):
    """Notes how long after a user came or went it was told."""

    def __init__(self, user: str, came: dict[str, int], left: dict[str, int]) -> None:
        super().__init__(user)
        self.online_ns: list[float] = []
        self.offline_ns: list[float] = []
        self._came = came
        self._left = left

    def other(self, fields: dict[str, object]) -> None:
        """Note a presence frame."""
        if fields.get("type") != "presence":
            return
        user, now = str(fields["user_id"]), time.monotonic_ns()
        if fields["status"] == "online":
            self.online_ns.append(now - self._came[user])
        else:
            self.offline_ns.append(now - self._left[user])


async def presence(context: Context) -> Outcome:
    """Open loop at `RATE`: users connect to the first edge, then leave; watched from the second."""
    came: dict[str, int] = {}
    left: dict[str, int] = {}
    count = int(context.scaled(USERS, 60))
    users = [Client(context.user(f"p{n}")) for n in range(count)]
    watchers = [_Watcher(context.user(f"w{n}"), came, left) for n in range(WATCHERS)]
    owner = Client(watchers[0].user, device="owner")
    await context.open(owner, 0)
    await owner.request(
        {
            "type": "group_create",
            "client_id": f"{context.run}-presence",
            "name": "presence",
            "members": [client.user for client in (*users, *watchers[1:])],
        }
    )
    owner.close()
    await in_batches(context.open(client, 1) for client in watchers)
    names = [client.user for client in users]
    took_ns: list[float] = []
    for watcher in watchers:
        begin_ns = time.monotonic_ns()
        answer = await watcher.request({"type": "presence_subscribe", "users": names})
        took_ns.append(time.monotonic_ns() - begin_ns)
        if len(answer["presence"]) != count:
            raise BenchError(f"{count - len(answer['presence'])} users may not be watched")

    def come(number: int, due_ns: int) -> None:
        came[users[number].user] = due_ns
        opening.create_task(context.open(users[number], 0))

    def go(number: int, due_ns: int) -> None:
        left[users[number].user] = due_ns
        users[number].close()

    context.say("coming")
    async with asyncio.TaskGroup() as opening:
        await Schedule(RATE, count, come).run()
    total = count * WATCHERS
    await reached(lambda: sum(len(each.online_ns) for each in watchers), total, timeout_s=SETTLE_S)
    context.say("going")
    await Schedule(RATE, count, go).run()
    await reached(lambda: sum(len(each.offline_ns) for each in watchers), total, timeout_s=SETTLE_S)
    check_alive(watchers)
    online = [value for each in watchers for value in each.online_ns]
    offline = [value for each in watchers for value in each.offline_ns]
    return Outcome(
        metrics={
            **latency_metrics(online, "presence_online"),
            **latency_metrics(offline, "presence_offline"),
            **latency_metrics(took_ns, "presence_subscribe"),
        },
        curves={"presence_online_ms": curve(online), "presence_offline_ms": curve(offline)},
        notes={"users": count, "watchers": WATCHERS},
    )


SCENARIOS = [
    Scenario(
        name="presence",
        title=f"presence, {RATE}/s come and go",
        expected_s=(45, 9),
        run=presence,
    )
]
