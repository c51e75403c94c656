"""Pushes to members who are not here: reads the log, plans, and sends.

A message waits a moment, in case that it is read on another device or deleted; then `Planner` puts
its pushes into MongoDB, and the log's event is acknowledged. From there `Delivery` sends them, one
for each provider, so that a slow one holds up neither the log nor the others. Several processes may
share the work, and any may be killed anywhere. See `docs/architecture.md`.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from broker import consumer, events
from broker.bus import Bus
from broker.consumer import Delivery as LogDelivery
from broker.consumer import Lag, Puller, durable
from broker.dead import DeadLetters
from broker.errors import BrokerError
from broker.following import Following, trace_of
from broker.lease import LivingEdges
from broker.log import STREAM
from broker.metrics import counter, gauge, histogram
from broker.streams import ensure
from store.errors import StoreError
from store.pushes import Pushes

from .notify_passed import Passed
from .notify_plan import Fresh, Planner
from .persist import decoded
from .push.delivery import Delivery

BATCH = 500
HELD = 15_000
"""Each waits 2 s, so a process plans up to 7,500 messages a second to users with devices."""

ACK_WAIT_S = 30.0
WORKING_S = 8.0
OLD_S = 10.0
"""A message that is older did wait elsewhere, as while no worker ran."""

TICK_S = 1.0
REFRESH_S = 5.0
NEWS_AT_ONCE = 200
NEWS_LEASE_S = 60.0
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 3.0
COUNTED = 10_000

SKIPPED = ("online", "no_device", "muted", "quiet", "read", "delivered", "deleted", "old")
"""Why a message is not pushed."""

NAME = "notify"
CONSUMER = durable(STREAM, NAME, ack_wait_s=ACK_WAIT_S)

_log = logging.getLogger("hikyaku.notify")


class _Held(NamedTuple):
    """A message that waits; `ripe_at` and `since` are monotonic."""

    delivery: LogDelivery
    event: events.Message
    since: float
    ripe_at: float


class NotifyWorker:
    """One process. `run` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        living: LivingEdges,
        planner: Planner,
        passed: Passed,
        pushes: Pushes,
        deliveries: Iterable[Delivery],
        dead: DeadLetters,
        *,
        wait_s: float,
        ttl_s: float,
        following: Following | None = None,
    ):
        self._bus = bus
        self._living = living
        self._planner = planner
        self._passed = passed
        self._pushes = pushes
        self._deliveries = {each.provider.name: each for each in deliveries}
        self._dead = dead
        self._wait_s = wait_s
        self._ttl_s = ttl_s
        self._following = following
        self._puller = Puller(bus, CONSUMER)
        self._held: deque[_Held] = deque()
        self._moved = asyncio.Event()
        self._doubted = asyncio.Event()
        self._counts: Counter[str] = Counter()
        self._lag = Lag()
        self._waiting = dict.fromkeys(self._deliveries, (0, 0.0))
        self._reconnects = 0

    async def run(self) -> None:
        """Read, plan, send."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat("the log", self._read))
                group.create_task(self._repeat("planning", self._plan))
                group.create_task(self._repeat("chats of many", self._tell_news))
                group.create_task(self._repeat("those who vanished", self._tell_left))
                group.create_task(self._repeat("watching", self._watch))
                for each in self._deliveries.values():
                    group.create_task(each.run())
        finally:
            self._puller.close()
            with suppress(BrokerError):
                self._puller.give_back([each.delivery for each in self._held])

    def wake(self, providers: Iterable[str]) -> None:
        """There is something to send."""
        for each in providers:
            if each in self._deliveries:
                self._deliveries[each].wake()

    async def _repeat(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do `step` for ever; after a failure of MongoDB or NATS again, after a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await step()
                pause_s = FIRST_PAUSE_S
            except (StoreError, BrokerError) as error:
                _log.warning("%s: next try in %g s: %s", what, pause_s, error)
                self._counts["failures"] += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
                with suppress(BrokerError):
                    await ensure(self._bus, [], [CONSUMER])

    # --- the log ---

    async def _read(self) -> None:
        """Fetch what there is room for, and hold the messages."""
        room = HELD - len(self._held)
        if room <= 0:
            self._moved.clear()
            await self._moved.wait()
            return
        idle: list[LogDelivery] = []
        messages: list[tuple[LogDelivery, events.Message]] = []
        for each in await self._puller.fetch(min(BATCH, room)):
            try:
                event = decoded(each.subject, each.data)
            except ValueError as error:
                # Whoever stores the log keeps such an event among the dead letters.
                _log.error("event %d on %s is not readable: %s", each.seq, each.subject, error)
                self._counts["unreadable"] += 1
                idle.append(each)
                continue
            if not isinstance(event, events.Message):
                idle.append(each)
            elif self._until_ms(each) <= time.time() * 1000:
                self._planner.skipped["old"] += 1
                idle.append(each)
            else:
                messages.append((each, event))
        idle += await self._hold(messages)
        self._puller.ack(idle)
        self._moved.set()

    async def _hold(self, messages: list[tuple[LogDelivery, events.Message]]) -> list[LogDelivery]:
        """Hold what may be pushed, and give back what concerns nobody with a device."""
        concerned = await self._planner.concerned([event for _, event in messages])
        now, unix_s = time.monotonic(), time.time()
        idle = []
        for (each, event), held in zip(messages, concerned, strict=True):
            if not held:
                idle.append(each)
                continue
            age_s = unix_s - each.stored_ns / 1e9
            wait_s = 0.0 if age_s > self._wait_s + OLD_S else self._wait_s
            self._held.append(_Held(each, event, now, now + wait_s))
        return idle

    def _until_ms(self, delivery: LogDelivery) -> int:
        return delivery.stored_ns // 1_000_000 + int(self._ttl_s * 1000)

    async def _plan(self) -> None:
        """Plan what has waited long enough; it stays in hand until that is done."""
        if not self._held:
            self._moved.clear()
            await self._moved.wait()
            return
        wait_s = self._held[0].ripe_at - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        now = time.monotonic()
        count = 0
        while count < min(BATCH, len(self._held)) and self._held[count].ripe_at <= now:
            count += 1
        batch = [self._held[index] for index in range(count)]
        await self._know_edges()
        await self._planned(batch)
        for _ in batch:
            self._held.popleft()
        self._puller.ack([each.delivery for each in batch])
        self._counts["messages"] += count
        if self._following is not None:
            for each in batch:
                self._following.step(
                    "planned",
                    each.event.id,
                    trace=trace_of(each.delivery.header),
                    took_s=time.monotonic() - each.since,
                    seq=each.delivery.seq,
                    chat=each.event.chat_id,
                )
        self._moved.set()

    async def _know_edges(self) -> None:
        """What was told of edges while NATS was away was missed."""
        reconnects = self._bus.reconnects
        if reconnects != self._reconnects:
            await self._living.refresh()
            self._reconnects = reconnects

    async def _planned(self, batch: list[_Held]) -> None:
        fresh = [self._fresh(each) for each in batch]
        try:
            await self._planner.plan(fresh)
        except (StoreError, BrokerError):
            raise
        except Exception:
            _log.exception("%d messages are planned one by one", len(batch))
            for each in batch:
                await self._planned_alone(each)

    async def _planned_alone(self, held: _Held) -> None:
        """One that can never be planned goes to the dead letters and holds up no other."""
        try:
            await self._planner.plan([self._fresh(held)])
        except (StoreError, BrokerError):
            raise
        except Exception as error:
            _log.exception("message %d is not pushed", held.delivery.seq)
            reason = f"{type(error).__name__}: {error}"
            await self._dead.bury(NAME, held.delivery, reason)
            self._counts["dead_letters"] += 1

    def _fresh(self, held: _Held) -> Fresh:
        return Fresh(held.delivery.seq, held.event, self._until_ms(held.delivery))

    # --- beside it ---

    async def _tell_news(self) -> None:
        """Plan the pushes of chats of many whose time has come."""
        news = await self._pushes.claim_news(NEWS_AT_ONCE, NEWS_LEASE_S)
        if news:
            await self._know_edges()
            await self._planner.plan_news(news)
        if len(news) < NEWS_AT_ONCE:
            await asyncio.sleep(TICK_S)

    def edges_changed(self) -> None:
        """An edge came or went."""
        self._passed.doubt_edges()
        self._doubted.set()

    def connection_lost(self, token: str, connection: str, silent_s: float) -> None:
        """A user's connection ended without a word, after so long a silence."""
        if self._passed.lost(token, connection, silent_s, asyncio.get_running_loop().time()):
            self._doubted.set()

    def reconnected(self) -> None:
        """What was told of connections while NATS was away was missed."""
        self._passed.doubt_all()
        self._doubted.set()

    async def _tell_left(self) -> None:
        """Plan for users whose edge or connection had died while it still seemed to live."""
        await self._doubted.wait()
        self._doubted.clear()
        await self._know_edges()
        try:
            await self._planner.plan_left()
        except (StoreError, BrokerError):
            self._doubted.set()
            raise

    async def _watch(self) -> None:
        """Know which edges live and how much waits; tell the log what is still in hand."""
        await self._living.refresh()
        self._lag = await consumer.lag(self._bus, CONSUMER)
        for name in self._deliveries:
            self._waiting[name] = await self._pushes.waiting(name, COUNTED)
        began = time.monotonic()
        while time.monotonic() - began < REFRESH_S:
            late = time.monotonic() - WORKING_S
            self._puller.working([e.delivery for e in self._held if e.since < late])
            await asyncio.sleep(TICK_S)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        counts = self._counts
        yield from consumer.metrics(
            NAME, self._lag, retries=counts["failures"], buried=counts["dead_letters"]
        )
        text = "Messages looked at for pushes."
        yield counter("hikyaku_notify_messages_total", text, counts["messages"])
        text = "Events of the log that could not be read."
        yield counter("hikyaku_notify_unreadable_total", text, counts["unreadable"])
        text = "Messages that wait a moment before they are pushed."
        yield gauge("hikyaku_notify_held", text, len(self._held))
        skipped = {reason: self._planner.skipped[reason] for reason in SKIPPED}
        text = "Messages not pushed as their users are here, until that is sure."
        yield gauge("hikyaku_notify_passed", text, len(self._passed))
        text = "Such messages that were forgotten before that, as there were too many."
        yield counter("hikyaku_notify_forgotten_total", text, self._passed.forgotten)
        text = "Pushes that are not needed, by reason."
        yield counter("hikyaku_notify_skipped_total", text, skipped, "reason")
        yield counter("hikyaku_push_planned_total", "Pushes planned.", self._planner.planned)
        yield from self._of_providers()

    def _of_providers(self) -> Iterator[Metric]:
        label, each = "provider", self._deliveries
        waiting = {name: float(count) for name, (count, _) in self._waiting.items()}
        text = f"Pushes not yet sent, counted up to {COUNTED}."
        yield gauge("hikyaku_push_waiting", text, waiting, label)
        overdue = {name: late_s for name, (_, late_s) in self._waiting.items()}
        text = "For how long the first push that waits has been due."
        yield gauge("hikyaku_push_overdue_seconds", text, overdue, label)
        in_flight = {name: delivery.in_flight for name, delivery in each.items()}
        yield gauge("hikyaku_push_in_flight", "Pushes on their way.", in_flight, label)
        broken = {name: delivery.broken for name, delivery in each.items()}
        text = "Servers of a provider that are left alone for a while."
        yield gauge("hikyaku_push_broken_servers", text, broken, label)
        results = CounterMetricFamily(
            "hikyaku_push_results_total",
            "What became of pushes; again: tried and to be sent once more.",
            labels=[label, "result"],
        )
        for name, delivery in each.items():
            for result, count in delivery.results.items():
                results.add_metric([name, result], count)
        yield results
        times = {name: delivery.seconds for name, delivery in each.items()}
        yield histogram("hikyaku_push_seconds", "Time of one request to a provider.", times, label)
