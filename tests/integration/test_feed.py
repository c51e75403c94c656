"""The live feed: every event once, in order, with its bytes, whatever the live messages do."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from bench.proxy import Proxy
from broker import feed as feed_module
from broker.committer import Committer
from broker.config import BrokerConfig
from broker.errors import BrokerError, Unavailable
from broker.feed import Feed
from broker.log import Log, LogState, Page
from broker.streams import Stream, chat_stream, ensure
from tests.brokers import (
    api,
    commit_all,
    last_seq,
    make_bus,
    prepare,
    until_stored,
)
from tests.feeds import Live, Loss, LossyBus, Site
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site(nats: Nats) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(LossyBus(nats.url))
        good = await stack.enter_async_context(make_bus(nats.url, "good"))
        await prepare(good)
        await live.wait_connected(10)
        yield Site(nats, live, good)


async def test_all_events_come_in_order(site: Site) -> None:
    await site.write(3)
    async with site.feed() as feed:
        assert feed.position == 3
        await commit_all(
            site.good, [(subject, subject.encode()) for subject in ("dm.a.b", "group.g", "user.u")]
        )
        await site.write(1000)
        await site.delivered(1006)
        assert feed.position == 1006
        assert feed.epoch == (await site.log.state()).epoch
        assert (feed.gaps, feed.repaired) == (0, 0)
    await site.assert_exact(after=3)


async def test_it_starts_while_others_write(site: Site) -> None:
    """Between subscribing and asking where the log stands nothing falls out."""
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await site.write(20)

    writing = asyncio.create_task(write())
    await until_stored(site.good, 20)
    for _ in range(10):
        site.events.clear()
        async with site.feed() as feed:
            start = feed.position
            await eventually(lambda: len(site.events) > 50)
            seqs = [seq for seq, _, _ in site.events]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            assert seqs[0] <= start + 1
    stop.set()
    await writing


# --- losses ---


def random_loss(choices: random.Random) -> Loss:
    """Random gaps of random lengths, doubles, and messages that come too late."""
    late: list[Live] = []
    gap = 0

    def lose(message: Live) -> list[Live]:
        nonlocal gap
        if gap:
            gap -= 1
            return []
        match choices.choices(("pass", "gap", "double", "late", "return"), (80, 4, 4, 6, 6))[0]:
            case "gap":
                gap = choices.choice((0, 1, 5, 50, 1200))
                return []
            case "double":
                return [message, message]
            case "late":
                late.append(message)
                return []
            case "return":
                choices.shuffle(late)
                passing = [*late, message]
                late.clear()
                return passing
            case _:
                return [message]

    return lose


@pytest.mark.parametrize("run", range(2))
async def test_random_losses_are_repaired(site: Site, run: int) -> None:
    seed = int(os.environ.get("HIKYAKU_TEST_SEED", random.randrange(2**32))) + run
    print(f"HIKYAKU_TEST_SEED={seed}")
    choices = random.Random(seed)
    async with site.feed() as feed:
        site.live.loss = random_loss(choices)
        total = 0
        while total < 4000:
            count = choices.choice((1, 1, 1, 10, 100, 1500))
            await site.write(count, f"group.{choices.randrange(9)}")
            total += count
        await site.delivered(total)
        assert site.live.lost > 0
        assert feed.gaps > 0
        assert feed.repaired >= 1
    await site.assert_exact()


async def test_a_missed_last_event_is_found(site: Site) -> None:
    async with site.feed():
        site.live.loss = lambda message: []
        await site.write(3)
        await site.delivered(3, within_s=10)
        site.live.loss = lambda message: [message]
        await site.write(1)
        await site.delivered(4)
    await site.assert_exact()


async def test_a_gap_is_repaired_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only by the check that comes every second."""
    monkeypatch.setattr(feed_module, "CHECK_S", 3600)
    async with site.feed() as feed:
        site.live.loss = lambda message: []
        await site.write(5)
        await eventually(lambda: site.live.lost == 5)
        site.live.loss = lambda message: [message]
        await site.write(1)
        await site.delivered(6)
        assert (feed.gaps, feed.repaired) == (1, 6)
    await site.assert_exact()


async def test_more_is_missed_than_the_stash_holds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "STASH_EVENTS", 10)
    sizes: set[int] = set()
    async with site.feed() as feed:

        def look(message: Live) -> list[Live]:
            sizes.add(len(feed._stash))
            return [message]

        site.live.loss = lambda message: []
        await site.write(1)
        await eventually(lambda: site.live.lost == 1)
        site.live.loss = look
        await site.write(1500)
        await site.delivered(1501)
        assert max(sizes) == 10
    await site.assert_exact()


async def test_what_comes_late_during_a_repair_is_not_doubled(site: Site) -> None:
    late: list[Live] = []

    class LateLog(Log):
        """The missing message arrives while the answer to the repair is on its way."""

        async def read(self, subject: str, seq: int, limit: int = 1000) -> Page:
            page = await super().read(subject, seq, limit)
            for message in late:
                feed._on_live(*message)
            return page

    site.log = LateLog(site.good)
    async with site.feed() as feed:
        site.live.loss = lambda message: late.append(message) or []  # type: ignore[func-returns-value]
        await site.write(1)
        await eventually(lambda: bool(late))
        site.live.loss = lambda message: [message]
        await site.write(5)
        await site.delivered(6)
        await site.write(5)
        await site.delivered(11)
    await site.assert_exact()


async def test_what_has_left_the_log_is_passed_over(site: Site) -> None:
    async with site.feed() as feed:
        await site.write(2)
        await site.delivered(2)
        site.live.loss = lambda message: []
        await site.write(8)
        await api(site.good, "STREAM.PURGE.CHAT", {"seq": 6})
        site.live.loss = lambda message: [message]
        await site.write(1)
        await site.delivered(11)
        assert [seq for seq, _, _ in site.events] in (
            [1, 2, 6, 7, 8, 9, 10, 11],
            list(range(1, 12)),  # the check of each second may have come before the purge
        )
        assert feed.position == 11


# --- outages ---


async def test_after_a_reconnect_it_looks_at_once(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "CHECK_S", 3600)
    async with (
        Proxy(nats.port) as proxy,
        LossyBus(proxy.url) as live,
        make_bus(nats.url, "good") as good,
    ):
        await prepare(good)
        await live.wait_connected(10)
        site = Site(nats, live, good)
        async with site.feed():
            for count in range(1, 6):
                proxy.sever()
                await eventually(lambda: not live.connected)
                await site.write(20)
                proxy.refusing = False
                await site.delivered(20 * count)
        await site.assert_exact()


async def test_a_server_killed_in_the_middle(site: Site) -> None:
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        async with Committer(site.good, site.log) as committer:
            while not stop.is_set():
                try:
                    await committer.commit("group.a", b"%d" % number, msg_id=f"m{number}")
                    number += 1
                except BrokerError:
                    await site.good.wait_connected(20)

    async with site.feed() as feed:
        writing = asyncio.create_task(write())
        for count in (50, 150, 250):
            await site.delivered(count)
            site.nats.process.kill()
            await site.nats.start()
        await site.delivered(350)
        stop.set()
        await writing
        last = await last_seq(site.good)
        await site.delivered(last)
        assert feed.position == last
    await site.assert_exact()


async def test_a_log_that_does_not_answer_is_asked_again(nats: Nats) -> None:
    async with (
        Proxy(nats.port) as proxy,
        LossyBus(nats.url) as live,
        make_bus(proxy.url, "ask") as ask,
        make_bus(nats.url, "good") as good,
    ):
        await prepare(good)
        for each in (live, ask):
            await each.wait_connected(10)
        site = Site(nats, live, good)
        site.log = Log(ask)
        async with site.feed() as feed:
            proxy.sever()
            live.loss = lambda message: []
            await site.write(10)
            await eventually(lambda: live.lost == 10)
            live.loss = lambda message: [message]
            await site.write(10)
            await eventually(lambda: feed.gaps == 1)
            assert feed.position == 0
            proxy.refusing = False
            await site.delivered(20)
        await site.assert_exact()


# --- another log ---


@pytest.mark.parametrize("events", [0, 20], ids=["empty", "longer"])
async def test_a_replaced_log_is_noticed(
    site: Site, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "CHECK_S", 0.1)
    async with site.feed():
        await site.write(10)
        await site.delivered(10)
        await api(site.good, "STREAM.DELETE.CHAT")
        await ensure(site.good, [chat_stream(BrokerConfig())])
        await site.write(events)
        await eventually(lambda: site.resets == 1, within_s=10)
    assert site.resets == 1


async def test_a_log_that_went_back_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old copy was restored: the same epoch, but it ends before what was delivered."""
    monkeypatch.setattr(feed_module, "CHECK_S", 0.1)
    declared = chat_stream(BrokerConfig())
    epoch = (await site.log.state()).epoch
    async with site.feed():
        await site.write(10)
        await site.delivered(10)
        await api(site.good, "STREAM.DELETE.CHAT")
        same = Stream(declared.name, {**declared.config, "metadata": {"epoch": epoch}})
        await ensure(site.good, [same])
        await site.write(5)
        await eventually(lambda: site.resets == 1, within_s=10)


async def test_a_log_that_went_back_and_has_grown_again_is_noticed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "CHECK_S", 1000.0)
    declared = chat_stream(BrokerConfig())
    epoch = (await site.log.state()).epoch

    async def check(feed: Feed) -> None:
        before = feed.checked_at
        feed._check_wanted.set()
        await eventually(lambda: feed.checked_at > before)

    async with site.feed() as feed:
        await site.write(10)
        await site.delivered(10)
        await check(feed)
        await api(site.good, "STREAM.DELETE.CHAT")
        same = Stream(declared.name, {**declared.config, "metadata": {"epoch": epoch}})
        await ensure(site.good, [same])
        await site.write(5)
        await check(feed)
        assert site.resets == 0
        await site.write(20)
        await check(feed)
        await eventually(lambda: site.resets == 1)


async def test_one_who_says_that_the_log_is_shorter_is_not_believed_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does that led, and was cut off meanwhile."""
    monkeypatch.setattr(feed_module, "CHECK_S", 0.1)
    asked = 0
    state = site.log.state

    async def stale(*, timeout_s: float = 5.0) -> LogState:
        nonlocal asked
        asked += 1
        told = await state(timeout_s=timeout_s)
        return told._replace(last_seq=3) if 3 <= asked < 6 else told

    monkeypatch.setattr(site.log, "state", stale)
    async with site.feed():
        await site.write(10)
        await site.delivered(10)
        asked = 2
        await eventually(lambda: asked > 10)
        await site.write(10)
        await site.delivered(20)
    await site.assert_exact()


async def test_a_missing_log_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "CHECK_S", 0.1)
    async with site.feed():
        await site.write(1)
        await api(site.good, "STREAM.DELETE.CHAT")
        with pytest.raises(BrokerError):
            await site.log.state()
        await ensure(site.good, [chat_stream(BrokerConfig())])
        await eventually(lambda: site.resets == 1, within_s=10)


# --- reached, and the end ---


async def test_reached_waits_for_a_sequence(site: Site) -> None:
    await site.write(2)
    async with site.feed() as feed:
        await feed.reached(1)
        await feed.reached(2)
        waiting = [asyncio.create_task(feed.reached(seq)) for seq in (3, 5, 5)]
        async with asyncio.timeout(10):
            await site.write(1)
            await waiting[0]
            assert not waiting[1].done()
            waiting[2].cancel()
            await asyncio.wait([waiting[2]])
            await site.write(4)
            await waiting[1]
        assert not feed._waiters


async def test_reached_counts_repaired_events(site: Site) -> None:
    async with site.feed() as feed:
        site.live.loss = lambda message: []
        await site.write(3)
        async with asyncio.timeout(10):
            await feed.reached(3)
        assert feed.position == 3


async def test_whoever_waits_at_the_end_is_told(site: Site) -> None:
    async with site.feed() as feed:
        waiting = asyncio.create_task(feed.reached(99))
        await eventually(lambda: bool(feed._waiters))
    with pytest.raises(Unavailable):
        await waiting


async def test_a_feed_that_ended_is_silent(site: Site) -> None:
    """An edge begins anew on the same connection when the log was replaced."""
    before = dict(site.live._subscriptions)
    async with site.feed():
        await site.write(1)
        await site.delivered(1)
    assert site.live._subscriptions == before
    assert not site.live._listeners
    async with site.feed():
        await site.write(5)
        await site.delivered(6)
    await site.assert_exact()


async def test_a_feed_that_could_not_start_leaves_nothing(site: Site) -> None:
    await api(site.good, "STREAM.DELETE.CHAT")
    before = dict(site.live._subscriptions)
    with pytest.raises(BrokerError):
        async with site.feed():
            pass
    assert site.live._subscriptions == before
    assert not site.live._listeners
