"""The durable pull consumer, on a real nats-server: nothing is lost, late or waited for in vain."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import pytest

from broker import consumer as module
from broker.bus import Bus
from broker.consumer import Delivery, Progress, Puller, durable, progress
from broker.errors import Refused, Unavailable
from broker.log import STREAM
from broker.streams import Consumer, ensure
from tests.brokers import api, commit_all, make_bus, prepare
from tests.mirror import until
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio

ACK_WAIT_S = 0.5
SUBJECT = "dm.a.b"


def declare(ack_wait_s: float = 30.0) -> Consumer:
    return durable(STREAM, "test", ack_wait_s=ack_wait_s)


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with make_bus(nats.url) as bus:
        await prepare(bus)
        yield bus


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.2)


async def put(bus: Bus, *words: str) -> list[int]:
    return await commit_all(bus, [(SUBJECT, word.encode()) for word in words])


def texts(deliveries: Iterable[Delivery]) -> list[str]:
    return [each.data.decode() for each in deliveries]


async def fetch_some(puller: Puller, limit: int = 100) -> list[Delivery]:
    """Fetch until there is something."""
    async with asyncio.timeout(20):
        while not (found := await puller.fetch(limit)):
            pass
    return found


async def waits(bus: Bus) -> bool:
    """Whether a pull waits for a message."""
    waiting: int = (await api(bus, f"CONSUMER.INFO.{STREAM}.test"))["num_waiting"]
    return waiting == 1


async def test_what_is_there_comes_in_order_and_at_once(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    before_ns = time.time_ns()
    seqs = await put(bus, *"abcde")
    puller = Puller(bus, declare())
    first = await puller.fetch(3)
    assert (texts(first), [each.seq for each in first]) == (["a", "b", "c"], seqs[:3])
    assert {(each.subject, each.delivered) for each in first} == {(SUBJECT, 1)}
    assert [each.pending for each in first] == [4, 3, 2]
    assert all(before_ns - 10**9 < each.stored_ns < time.time_ns() + 10**9 for each in first)
    assert texts(await puller.fetch(3)) == ["d", "e"]


async def test_a_filter_of_an_older_version_goes(bus: Bus) -> None:
    """With a filter of several subjects each message cost the server half as much again."""
    new = declare()
    old = new.config | {"filter_subjects": ["dm.*.*", "group.*", "user.*"]}
    await ensure(bus, [], [Consumer(STREAM, "test", old)])
    await put(bus, *"ab")
    first = await Puller(bus, new).fetch(1)
    await ensure(bus, [], [new])
    config = (await api(bus, f"CONSUMER.INFO.{STREAM}.test"))["config"]
    assert not {"filter_subject", "filter_subjects"} & config.keys()
    assert texts(first) + texts(await fetch_some(Puller(bus, new))) == ["a", "b"]


async def test_waits_for_the_first(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    fetching = asyncio.create_task(puller.fetch(10))
    await until(lambda: waits(bus))
    await put(bus, "now")
    async with asyncio.timeout(module.WAIT_S / 2):
        assert texts(await fetching) == ["now"]


@pytest.mark.usefixtures("short_waits")
async def test_nothing_is_an_answer_too(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    assert await Puller(bus, declare()).fetch(10) == []


async def test_what_is_acknowledged_does_not_come_again(bus: Bus) -> None:
    await ensure(bus, [], [declare(ACK_WAIT_S)])
    await put(bus, "done", "not done")
    puller = Puller(bus, declare())
    done, not_done = await puller.fetch(10)
    puller.ack([done])
    (again,) = await fetch_some(puller)
    assert (again.seq, again.delivered) == (not_done.seq, 2)
    assert time.time_ns() - again.stored_ns > ACK_WAIT_S * 0.9e9
    puller.ack([again])

    async def all_done() -> bool:
        return (await progress(bus, declare())).behind == 0

    await until(all_done)


@pytest.mark.usefixtures("short_waits")
async def test_what_is_worked_on_does_not_come_again(bus: Bus) -> None:
    await ensure(bus, [], [declare(ACK_WAIT_S)])
    await put(bus, "hard")
    puller, other = Puller(bus, declare()), Puller(bus, declare())
    held = await puller.fetch(10)
    deadline = time.monotonic() + 4 * ACK_WAIT_S
    while time.monotonic() < deadline:
        puller.working(held)
        assert await other.fetch(10) == []
    assert texts(await fetch_some(other)) == ["hard"]


async def test_what_is_given_back_comes_at_once(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    await put(bus, *"abc")
    puller, other = Puller(bus, declare()), Puller(bus, declare())
    held = await puller.fetch(10)
    puller.give_back(held[1:])
    found = await fetch_some(other)
    if len(found) < 2:
        found += await fetch_some(other)
    assert sorted(texts(found)) == ["b", "c"]
    assert {each.delivered for each in found} == {2}


@pytest.mark.usefixtures("short_waits")
async def test_two_share_the_work(nats: Nats, bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    count = 3000
    seqs = await put(bus, *map(str, range(count)))
    found: list[list[int]] = [[], []]

    async def work(name: int, mine: Bus) -> None:
        puller = Puller(mine, declare())
        while sum(map(len, found)) < count:
            deliveries = await puller.fetch(100)
            found[name] += [each.seq for each in deliveries]
            puller.ack(deliveries)

    async with make_bus(nats.url) as other, asyncio.timeout(30):
        await other.wait_connected(5)
        await asyncio.gather(work(0, bus), work(1, other))
    assert sorted(found[0] + found[1]) == seqs
    assert all(found)


async def test_nats_killed_in_the_middle(nats: Nats, bus: Bus) -> None:
    await ensure(bus, [], [declare(ACK_WAIT_S)])
    seqs = set(await put(bus, *map(str, range(500))))
    done: set[int] = set()
    killed = asyncio.Event()
    refusals = 0

    async def work() -> None:
        nonlocal refusals
        puller = Puller(bus, declare())
        while True:
            try:
                deliveries = await puller.fetch(7)
                puller.ack(deliveries)
                done.update(each.seq for each in deliveries)
                if not killed.is_set() and len(done) > 50:
                    nats.process.kill()
                    killed.set()
            except Unavailable:
                refusals += 1
                await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    await eventually(killed.is_set)
    assert len(done) < 500
    await eventually(lambda: refusals > 0)
    await nats.start()
    await bus.wait_connected(10)
    seqs |= set(await put(bus, "after"))
    await eventually(lambda: done == seqs, within_s=20)

    async def all_done() -> bool:
        return (await progress(bus, declare())).behind == 0

    await until(all_done)
    working.cancel()
    await asyncio.wait([working])


async def test_a_reconnect_ends_a_wait(nats: Nats, bus: Bus) -> None:
    """The pull was lost with the connection; nobody waits for it until its time is over."""
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    fetching = asyncio.create_task(puller.fetch(10))
    await until(lambda: waits(bus))
    began = time.monotonic()
    nats.process.kill()
    await nats.start()
    await fetching
    assert time.monotonic() - began < module.WAIT_S


async def test_what_a_cancelled_fetch_asked_for_is_in_the_next(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    fetching = asyncio.create_task(puller.fetch(10))
    await until(lambda: waits(bus))
    fetching.cancel()
    await asyncio.wait([fetching])
    await put(bus, "late")
    (found,) = await fetch_some(puller)
    assert (found.data, found.delivered) == (b"late", 1)


async def test_the_end_of_an_old_pull_does_not_end_a_new_one(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    ended: list[bytes] = []
    bus.subscribe(f"{puller._inbox}*", lambda subject, *_: ended.append(subject))
    monkeypatch.setattr(module, "WAIT_S", 0.6)
    old = asyncio.create_task(puller.fetch(10))
    await until(lambda: waits(bus))
    old.cancel()
    await asyncio.wait([old])
    monkeypatch.setattr(module, "WAIT_S", 10.0)
    seen = len(ended)
    new = asyncio.create_task(puller.fetch(10))
    name = f"{puller._inbox}2".encode()
    await eventually(lambda: name in ended[seen:], what="the old pull ends")
    await put(bus, "for the new one")
    assert texts(await new) == ["for the new one"]


async def test_progress(bus: Bus) -> None:
    with pytest.raises(Refused):
        await progress(bus, declare())
    await ensure(bus, [], [declare()])
    assert (await progress(bus, declare())).reached(0)
    seqs = await put(bus, *"abcd")
    puller = Puller(bus, declare())
    now = await progress(bus, declare())
    assert now.behind == 4
    assert not now.reached(seqs[0])
    a, b, c, d = await puller.fetch(10)
    assert (await progress(bus, declare())).behind == 4
    puller.ack([a, c])

    async def acked(behind: int) -> bool:
        return (await progress(bus, declare())).behind == behind

    await until(lambda: acked(2))
    now = await progress(bus, declare())
    assert now.floor == seqs[0], "the second one is still missing"
    assert now.reached(seqs[0])
    assert not now.reached(seqs[1])
    puller.ack([b])
    await until(lambda: acked(1))
    assert (await progress(bus, declare())).floor == seqs[2]
    puller.ack([d])
    await until(lambda: acked(0))
    assert (await progress(bus, declare())).reached(seqs[3])


async def test_progress_is_not_said_to_be_made_before_it_is(bus: Bus) -> None:
    """The server's count of what waits is behind its acknowledgements to publishers.

    On a busy machine it said 0 to one in sixteen of those who asked at once.
    """
    assert not Progress(floor=5, behind=0).reached(6)
    await ensure(bus, [], [declare()])
    for _ in range(300):
        (seq,) = await put(bus, "new")
        assert not (await progress(bus, declare())).reached(seq)


async def test_progress_over_what_was_deleted_last(bus: Bus) -> None:
    """The last message is gone before anybody fetched it: there is nothing to wait for."""
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    _, *gone = await put(bus, *"abc")
    for seq in gone:
        await api(bus, f"STREAM.MSG.DELETE.{STREAM}", {"seq": seq})
    assert not (await progress(bus, declare(), to=gone[-1])).reached(gone[-1])
    puller.ack(await puller.fetch(10))

    async def reached() -> bool:
        return (await progress(bus, declare(), to=gone[-1])).reached(gone[-1])

    await until(reached, within_s=10)
    assert not (await progress(bus, declare())).reached(gone[-1]), "or else `to` is not needed"
    (last,) = await put(bus, "d")
    assert not (await progress(bus, declare(), to=last)).reached(last)


async def test_a_consumer_that_is_gone_is_told(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    puller = Puller(bus, declare())
    waiting = asyncio.create_task(puller.fetch(10))
    await until(lambda: waits(bus))
    await api(bus, f"CONSUMER.DELETE.{STREAM}.test")
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await puller.fetch(10)
    await ensure(bus, [], [declare()])
    await put(bus, "back")
    assert texts(await fetch_some(puller)) == ["back"]


async def test_a_closed_puller_hears_nothing(bus: Bus) -> None:
    await ensure(bus, [], [declare()])
    before = (len(bus._listeners), len(bus._subscriptions))
    puller = Puller(bus, declare())
    puller.close()
    assert (len(bus._listeners), len(bus._subscriptions)) == before
