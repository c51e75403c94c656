"""The past of a chat: how soon it is in MongoDB, and how fast it is read.

The load goes through the edges where they matter. What is to be read is written by
`store.messages`, and a backlog straight into the log, as edges write it.
"""

import asyncio
import os
import random
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from broker import events, subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.config import BrokerConfig
from broker.consumer import progress
from broker.log import Log
from broker.roles import OPERATOR
from deploy.home import role_password
from store.config import StoreConfig
from store.database import Database, connect
from store.documents import Entry
from store.messages import Messages
from workers.persist import CONSUMER

from . import messages
from .client import Client, in_batches
from .load import Loader
from .pace import Schedule
from .process import named
from .scenario import (
    BenchError,
    Context,
    Outcome,
    Scenario,
    check_alive,
    latency_metrics,
    percentile,
    reached,
)

RATE = 1000
PAIRS = 30
BATCH = 10_000
BODY = "x" * 120
UNREAD_CHATS = 200
UNREAD_EACH = 50
USER_CHATS = 1000
TIMEOUT_S = 120.0
WARM = 10


class Servers(NamedTuple):
    """The servers behind the edges, where the stack's own worker was told, as the operator."""

    broker: BrokerConfig
    store: StoreConfig
    metrics_port: int
    mongod: int


def servers(context: Context) -> Servers:
    """Find them. Raises `BenchError` when the stack is not the bench's own."""
    if context.target.supervisor is None:
        raise BenchError("the supervisor's pid must be known to find MongoDB and NATS")
    pids = {name: pid for pid, name in named(context.target.supervisor).items()}
    if "worker persist" not in pids or "mongod" not in pids:
        raise BenchError("the stack has no worker persist or no mongod of its own")
    environ = Path(f"/proc/{pids['worker persist']}/environ").read_text().split("\0")
    env = dict(each.split("=", 1) for each in environ if "=" in each)
    password = role_password(Path(env["HIKYAKU_HOME"]), OPERATOR)
    return Servers(
        broker=BrokerConfig(urls=(env["HIKYAKU_NATS_URL"],), role=OPERATOR, password=password),
        store=StoreConfig(url=env["HIKYAKU_MONGO_URL"], role=OPERATOR, password=password),
        metrics_port=int(env["HIKYAKU_WORKER_HEALTH_PORT"]),
        mongod=pids["mongod"],
    )


@asynccontextmanager
async def database_of(context: Context) -> AsyncIterator[Database]:
    """The MongoDB of the stack."""
    async with connect(servers(context).store) as database:
        yield database


def _message(number: int, sender: str, to: str) -> events.Chat:
    return events.Chat(
        id=str(number),
        chat_id=subjects.dm(sender, to),
        from_=sender,
        to=to,
        content=BODY,
        content_type="text",
        timestamp=time.time_ns() // 1_000_000,
        client_id=f"past {number}",
    )


async def delay(context: Context) -> Outcome:
    """`RATE` messages a second in open loop; what the worker says of how long each took."""
    receivers = [Loader(context.user(f"r{n}")) for n in range(PAIRS)]
    senders = [Loader(context.user(f"s{n}")) for n in range(PAIRS)]
    templates = [
        messages.Template(context.run, n, to=client.user) for n, client in enumerate(receivers)
    ]
    await in_batches(context.open(client, 1) for client in receivers)
    await in_batches(context.open(client, 0) for client in senders)

    def send(number: int, due_ns: int) -> None:
        senders[number % PAIRS].send(templates[number % PAIRS].frame(number, due_ns))

    before = await asyncio.to_thread(_delays, servers(context).metrics_port)
    count = int(RATE * context.scaled(22, 12))
    schedule = Schedule(RATE, count, send)
    context.say("sending")
    await schedule.run()
    await reached(lambda: sum(each.acked for each in senders), count, timeout_s=TIMEOUT_S)
    check_alive([*senders, *receivers])
    after = await asyncio.to_thread(_delays, servers(context).metrics_port)
    found = [(bound, after[bound] - before[bound]) for bound in after]
    late = [float(value) for value in schedule.late_ns]
    return Outcome(
        metrics={
            f"persist_p{percent}_ms": quantile(found, percent / 100) * 1e3 for percent in (50, 99)
        },
        notes={
            "messages": count,
            "left_late_p99_ms": round(percentile(late, 99) / 1e6, 3),
            "at_most_ms": round(quantile(found, 1.0) * 1e3, 1),
        },
    )


def _delays(port: int) -> dict[float, float]:
    """How many delays were at most so many seconds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    pattern = r'^hikyaku_persist_delay_seconds_bucket\{le="(\S+)"\} (\S+)$'
    found = re.findall(pattern, text, re.MULTILINE)
    return {float(bound): float(count) for bound, count in found}


def quantile(buckets: list[tuple[float, float]], part: float) -> float:
    """As Prometheus does: the values of a bucket lie evenly in it. The last bound if above all."""
    wanted = part * buckets[-1][1]
    low = below = 0.0
    for bound, up_to in buckets:
        if up_to >= wanted and up_to > below:
            within = (wanted - below) / (up_to - below)
            return low if bound == float("inf") else low + (bound - low) * within
        low, below = bound, up_to
    return 0.0


async def catch_up(context: Context) -> Outcome:
    """MongoDB is stopped while a backlog grows; from the first progress to the last message."""
    back = servers(context)
    count = int(context.scaled(150_000, 30_000))
    base = time.time_ns() % 2**62
    pairs = [(context.user(f"a{n}"), context.user(f"b{n}")) for n in range(100)]
    async with Bus(back.broker, name="bench") as bus:
        await bus.wait_connected(10)
        os.kill(back.mongod, signal.SIGSTOP)
        try:
            for start in range(0, count, BATCH):
                context.say(f"backlog of {start} while MongoDB is stopped")
                part = range(start, min(count, start + BATCH))
                await _commit(bus, [_message(base + n, *pairs[n % 100]) for n in part])
            waiting = (await progress(bus, CONSUMER)).behind
        finally:
            os.kill(back.mongod, signal.SIGCONT)
        context.say("catching up")
        resumed_s = time.monotonic()
        await _until(bus, lambda behind: behind < waiting)
        begin_s = time.monotonic()
        await _until(bus, lambda behind: behind == 0)
        end_s = time.monotonic()
    if waiting < count:
        raise BenchError(f"only {waiting} of {count} waited")
    return Outcome(
        metrics={"catch_up_per_s": count / (end_s - begin_s)},
        notes={"messages": count, "noticed_after_s": round(begin_s - resumed_s, 2)},
    )


async def _commit(bus: Bus, found: list[events.Chat]) -> None:
    done: list[object] = []
    async with Committer(bus, Log(bus)) as committer:
        for each in found:
            data = events.encode(each)
            committer.submit(each.chat_id, data, msg_id=uuid4().hex, done=done.append)
        await committer.drain(TIMEOUT_S)
        if committer.committed < len(found):
            raise BenchError(f"only {committer.committed} of {len(found)} were committed")


async def _until(bus: Bus, holds: Callable[[int], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            if holds((await progress(bus, CONSUMER)).behind):
                return
            await asyncio.sleep(0.01)


async def history(context: Context) -> Outcome:
    """Pages of 50 at random places of one chat, and its newest one."""
    count = int(context.scaled(1_000_000, 100_000))
    alice, bob = context.user("alice"), context.user("bob")
    base = time.time_ns() % 2**62
    async with database_of(context) as database:
        store = Messages(database)
        for start in range(0, count, BATCH):
            context.say(f"writing message {start:,} of {count:,}")
            part = range(start, start + BATCH)
            entries = [Entry(n + 1, _message(base + n, alice, bob)) for n in part]
            half = BATCH // 2
            await asyncio.gather(store.write(entries[:half]), store.write(entries[half:]))
    client = Client(alice)
    await context.open(client, 0)
    chat = subjects.dm(alice, bob)
    repeats = int(context.scaled(1000, 200))

    async def page(**window: str) -> float:
        begin_ns = time.monotonic_ns()
        found = await client.request({"type": "history", "chat_id": chat, "limit": 50, **window})
        taken_ns = time.monotonic_ns() - begin_ns
        if len(found["messages"]) != 50 or not found["more"]:
            raise BenchError(f"a page of {len(found['messages'])}")
        return float(taken_ns)

    context.say("reading pages")
    for _ in range(WARM):
        await page()
    newest = [await page() for _ in range(repeats // 10)]
    anywhere = [await page(before=str(base + random.randrange(100, count))) for _ in range(repeats)]
    client.close()
    return Outcome(
        metrics=latency_metrics(anywhere, "history"),
        notes={
            "messages": count,
            "pages": repeats,
            "newest_p50_ms": round(percentile(newest, 50) / 1e6, 2),
        },
    )


async def lists(context: Context) -> Outcome:
    """`unread` over 200 chats, and `chats` for a user in 1,000 of them."""
    metrics: dict[str, float] = {}
    async with database_of(context) as database:
        for name, each in (("unread", UNREAD_EACH), ("unread_full", 1000)):
            context.say(f"writing {each} messages into each of {UNREAD_CHATS} chats")
            user = context.user(name)
            chats = await fill(Messages(database), user, UNREAD_CHATS, each)
            question: dict[str, object] = {"type": "unread", "chat_ids": chats}
            times = await _asked(context, user, question, dict.fromkeys(chats, each).__eq__)
            metrics |= latency_metrics(times, name)
        context.say(f"writing into {USER_CHATS} chats")
        user = context.user("many")
        chats = await fill(Messages(database), user, USER_CHATS, 2)
    newest = chats[::-1][:50]

    def right(found: list[dict[str, object]]) -> bool:
        return [each["chat_id"] for each in found] == newest

    times = await _asked(context, user, {"type": "chats", "limit": 50}, right)
    metrics |= latency_metrics(times, "chats")
    return Outcome(metrics=metrics, notes={"unread_each": UNREAD_EACH, "chats": USER_CHATS})


async def fill(store: Messages, user: str, chats: int, each: int) -> list[str]:
    """Write messages to `user` from so many others; the chats, that of the newest message last."""
    base = time.time_ns() % 2**62
    found = []
    entries: list[Entry] = []
    for n in range(chats):
        peer = f"p{n}-{user}"
        found.append(subjects.dm(user, peer))
        numbers = range(n * each, n * each + each)
        entries += [Entry(number + 1, _message(base + number, peer, user)) for number in numbers]
        if len(entries) >= BATCH or n == chats - 1:
            await store.write(entries)
            entries = []
    return found


async def _asked(
    context: Context, user: str, question: dict[str, object], right: Callable[..., bool]
) -> list[float]:
    """How long each of many answers took; each must be `right`."""
    client = Client(user)
    await context.open(client, 0)
    context.say(f"asking {question['type']}")
    times: list[float] = []
    for turn in range(WARM + int(context.scaled(200, 40))):
        begin_ns = time.monotonic_ns()
        found = await client.request(question)
        if turn >= WARM:
            times.append(float(time.monotonic_ns() - begin_ns))
        if not right(found.get("counts") or found["chats"]):
            raise BenchError(f"{question['type']} is answered wrongly")
    client.close()
    return times


SCENARIOS = [
    Scenario(
        name="persist-delay",
        title=f"in MongoDB at {RATE:,}/s",
        expected_s=(24, 14),
        run=delay,
    ),
    Scenario(
        name="catch-up",
        title="catching up with the log",
        expected_s=(30, 10),
        run=catch_up,
    ),
    Scenario(
        name="history",
        title="pages of history",
        expected_s=(70, 12),
        run=history,
    ),
    Scenario(
        name="lists",
        title="unread counts and chats",
        expected_s=(90, 30),
        run=lists,
    ),
]
