"""A client that was away: from its TCP connect to the last of 1,000 missed messages."""

import asyncio
import time

from . import messages, wire
from .client import Client
from .load import Loader
from .scenario import MESSAGE_PATH, Context, Outcome, Scenario, check_alive, median, reached

MISSED = 1000
OUTSTANDING = 64
TIMEOUT_S = 20.0


class _Returning(Client):
    """Notes when the last missed message and `caught_up` came; each sender's must be in order."""

    def __init__(self, user: str, cursor: str) -> None:
        super().__init__(user, cursor=cursor)
        self.seen = 0
        self.complete: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.caught_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._next: dict[int, int] = {}

    def text(self, data: bytes, start: int, end: int) -> None:
        """Count a message, check its place, note the last one's time. Wrong order ends it."""
        mark = data.find(messages.MARK, start, end)
        if mark < 0:
            self.control(data[start:end])
            return
        sender, number = messages.sender(data, mark), messages.number(data, mark)
        if number != self._next.get(sender, 0):
            raise wire.WireError(f"message {number} came, not {self._next.get(sender, 0)}")
        self._next[sender] = number + 1
        self.seen += 1
        if self.seen == MISSED and not self.complete.done():
            self.complete.set_result(time.monotonic_ns())

    def other(self, fields: dict[str, object]) -> None:
        """Note `caught_up`."""
        if fields.get("type") == "caught_up" and not self.caught_up.done():
            self.caught_up.set_result(time.monotonic_ns())


async def _once(context: Context, name: str, senders: int) -> tuple[float, float]:
    user = context.user(name)
    away = Client(user)
    await context.open(away, 1)
    cursor = str(away.welcome["cursor"])
    away.close()
    loaders = [
        Loader(context.user(f"{name}s{n}"), messages.Template(context.run, n, to=user))
        for n in range(senders)
    ]
    for loader in loaders:
        await context.open(loader, 0)
    for loader in loaders:
        loader.start(OUTSTANDING, limit=MISSED // senders)
    await reached(lambda: sum(loader.acked for loader in loaders), MISSED, timeout_s=TIMEOUT_S)
    check_alive(loaders)
    await asyncio.sleep(0.3)
    back = _Returning(user, cursor)
    begin_ns = time.monotonic_ns()
    await context.open(back, 1)
    complete_ns = await back.until(back.complete, timeout_s=TIMEOUT_S)
    caught_up_ns = await back.until(back.caught_up, timeout_s=TIMEOUT_S)
    for client in [*loaders, back]:
        client.close()
    return (complete_ns - begin_ns) / 1e6, (caught_up_ns - begin_ns) / 1e6


async def resume(context: Context) -> Outcome:
    """The median of several returns: all missed in one chat, and in ten."""
    repeats = int(context.scaled(9, 3))
    one, ten = [], []
    for turn in range(repeats):
        context.say(f"return {turn + 1} of {repeats}")
        one.append(await _once(context, f"one{turn}", 1))
        ten.append(await _once(context, f"ten{turn}", 10))
    return Outcome(
        metrics={
            "resume_ms": median([complete for complete, _ in one]),
            "resume_max_ms": max(complete for complete, _ in one),
            "resume_ten_chats_ms": median([complete for complete, _ in ten]),
        },
        notes={"returns": repeats, "caught_up_ms": round(median([last for _, last in one]), 2)},
    )


SCENARIOS = [
    Scenario(
        name="resume",
        title="resume of 1,000 missed messages",
        expected_s=(16, 6),
        run=resume,
        without=MESSAGE_PATH,
    )
]
