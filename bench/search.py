"""The search: how soon after its ack a message is found, and how long a question takes.

Texts are of random words, for what an index costs depends on how many different ones there are.
"""

import asyncio
import random
import time
from uuid import uuid4

import msgspec

from broker import subjects
from store.messages import Messages

from . import wire
from .client import Client, in_batches
from .load import Loader
from .pace import Schedule
from .past import USER_CHATS, database_of, fill
from .scenario import (
    BenchError,
    Context,
    Outcome,
    Scenario,
    check_alive,
    curve,
    latency_metrics,
    percentile,
)

RATE = 100
PROBES_PER_S = 10
PAIRS = 30
WORDS = 20_000
WORDS_EACH = 15
WINDOW_MS = 8000
FOUND_WITHIN_S = 30.0
POLL_S = 0.02
WARM = 10


class _Texts:
    """Sentences of words as common as those of a language: the n-th as often as 1 in n."""

    def __init__(self) -> None:
        rng = random.Random(1)
        letters = "etaoinshrdlu"
        self._words = ["".join(rng.choices(letters, k=rng.randint(3, 10))) for _ in range(WORDS)]
        self._weights = [1 / n for n in range(1, WORDS + 1)]

    def some(self, count: int = WORDS_EACH) -> str:
        return " ".join(random.choices(self._words, self._weights, k=count))


class _Probes:
    """Messages with one word in common, from their ack to the search that finds them."""

    def __init__(self, sender: Client, searcher: Client, texts: _Texts):
        self._sender = sender
        self._searcher = searcher
        self._texts = texts
        self._word = "probe" + "".join(random.choices("bcdfgh", k=8))
        self._acked: dict[str, float] = {}
        self.found_ns: list[float] = []
        self.question_ns: list[float] = []

    async def send(self, count: int) -> None:
        """Send so many, evenly spaced."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / PROBES_PER_S - loop.time()))
            content = f"{self._texts.some()} {self._word}"
            ack = await self._sender.request(
                {
                    "type": "chat",
                    "client_id": uuid4().hex,
                    "to": self._searcher.user,
                    "content": content,
                }
            )
            self._acked[ack["message_id"]] = time.monotonic_ns()

    async def look(self, sending: asyncio.Task[None]) -> None:
        """Ask again and again until all are found."""
        chat = subjects.dm(self._sender.user, self._searcher.user)
        deadline = 0.0
        while self._acked or not sending.done():
            begin_ns = time.monotonic_ns()
            page = await self._searcher.request(
                {
                    "type": "search",
                    "query": self._word,
                    "chat_id": chat,
                    "since": time.time_ns() // 1_000_000 - WINDOW_MS,
                    "limit": 100,
                }
            )
            now_ns = time.monotonic_ns()
            self.question_ns.append(float(now_ns - begin_ns))
            for hit in page["hits"]:
                if (acked_ns := self._acked.pop(hit["id"], None)) is not None:
                    self.found_ns.append(float(now_ns - acked_ns))
            if sending.done():
                deadline = deadline or time.monotonic() + FOUND_WITHIN_S
                if time.monotonic() > deadline:
                    raise BenchError(f"{len(self._acked)} messages are not found")
            await asyncio.sleep(POLL_S)


async def found(context: Context) -> Outcome:
    """`RATE` messages a second; some of them are searched for until they are found."""
    texts = _Texts()
    receivers = [Loader(context.user(f"r{n}")) for n in range(PAIRS)]
    senders = [Loader(context.user(f"s{n}")) for n in range(PAIRS)]
    prober, searcher = Client(context.user("prober")), Client(context.user("searcher"))
    await in_batches(context.open(client, 1) for client in [*receivers, searcher])
    await in_batches(context.open(client, 0) for client in [*senders, prober])

    def send(number: int, _: int) -> None:
        turn = number % PAIRS
        frame = {
            "type": "chat",
            "client_id": str(number),
            "to": receivers[turn].user,
            "content": texts.some(),
        }
        senders[turn].send(wire.frame(msgspec.json.encode(frame)))

    seconds = context.scaled(60, 8)
    schedule = Schedule(RATE - PROBES_PER_S, int((RATE - PROBES_PER_S) * seconds), send)
    probes = _Probes(prober, searcher, texts)
    context.say("sending and searching")
    async with asyncio.TaskGroup() as group:
        group.create_task(schedule.run())
        sending = group.create_task(probes.send(int(PROBES_PER_S * seconds)))
        group.create_task(probes.look(sending))
    check_alive([*senders, *receivers, prober, searcher])
    return Outcome(
        metrics={
            **latency_metrics(probes.found_ns, "found"),
            **latency_metrics(probes.question_ns, "search"),
        },
        curves={"found_ms": curve(probes.found_ns)},
        notes={
            "probes": len(probes.found_ns),
            "questions": len(probes.question_ns),
            "left_late_p99_ms": round(percentile(list(map(float, schedule.late_ns)), 99) / 1e6, 3),
        },
    )


async def many_chats(context: Context) -> Outcome:
    """Questions of a user in 1,000 chats, whose filter names all of them."""
    user = context.user("many")
    async with database_of(context) as database:
        context.say(f"writing into {USER_CHATS} chats")
        await fill(Messages(database), user, USER_CHATS, 2)
    client = Client(user)
    await context.open(client, 0)
    texts = _Texts()
    times: list[float] = []
    context.say("searching")
    for turn in range(WARM + int(context.scaled(300, 40))):
        question = {"type": "search", "query": texts.some(2)}
        begin_ns = time.monotonic_ns()
        await client.request(question)
        if turn >= WARM:
            times.append(float(time.monotonic_ns() - begin_ns))
    client.close()
    return Outcome(metrics=latency_metrics(times, "search_many_chats"), notes={"chats": USER_CHATS})


SCENARIOS = [
    Scenario(
        name="search",
        title=f"found after its ack at {RATE}/s",
        expected_s=(64, 12),
        run=found,
    ),
    Scenario(
        name="search-many-chats",
        title="search in 1,000 chats",
        expected_s=(15, 8),
        run=many_chats,
    ),
]
