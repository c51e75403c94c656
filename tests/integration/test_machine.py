"""The lease on a machine number: one holder at a time, and no id twice, whatever happens."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from broker import machine, snowflake
from broker.bucket import Bucket
from broker.bus import Bus
from broker.errors import BrokerError, Unavailable
from broker.machine import MachineLease
from broker.snowflake import timestamp_ms
from tests.brokers import api, make_bus, prepare
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with make_bus(nats.url) as bus:
        await prepare(bus)
        yield bus


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of 1 s, the shortest there is."""
    monkeypatch.setattr(machine, "TTL_S", 1)
    monkeypatch.setattr(machine, "RENEW_S", 0.1)
    monkeypatch.setattr(machine, "RETRY_S", 0.05)
    monkeypatch.setattr(machine, "RECORD_AHEAD_MS", 500)


@pytest.fixture
def only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number, so that every holder gets the same."""
    monkeypatch.setattr(machine, "MACHINES", 1)


class Clock:
    """The wall clock, with a step."""

    def __init__(self) -> None:
        self.step_ms = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.step_ms * 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(snowflake, "time", clock)
    return clock


def number_of(message_id: int) -> int:
    return message_id >> 12 & 0x3FF


def number(lease: MachineLease) -> int:
    return number_of(lease.ids.next())


async def recorded_ms(bus: Bus, number: int) -> int:
    entry = await Bucket(bus, machine.BUCKET).last(f"high.{number}")
    assert entry is not None
    return int(entry.data)


async def owner(bus: Bus, number: int) -> tuple[int, bytes] | None:
    """Revision and value of the lease."""
    entry = await Bucket(bus, machine.BUCKET).last(str(number))
    return None if entry is None else (entry.seq, entry.data)


async def take_when_free(bus: Bus, within_s: float = 10) -> MachineLease:
    """A lease that is entered, as soon as there is one."""
    deadline = time.monotonic() + within_s
    while True:
        lease = MachineLease(bus)
        try:
            return await lease.__aenter__()
        except Unavailable:
            if time.monotonic() > deadline:
                raise


async def kill(lease: MachineLease) -> None:
    """As if its process were killed: nothing is released, and nothing renewed."""
    assert lease._task is not None
    lease._task.cancel()
    await asyncio.wait([lease._task])


def ids_of(lease: MachineLease) -> list[int]:
    """One id, if it has one."""
    try:
        return [lease.ids.next()]
    except Unavailable:
        return []


def has_ids(lease: MachineLease) -> bool:
    return bool(ids_of(lease))


def renewed(lease: MachineLease, since: int) -> bool:
    """Whether a renewal began after `since` and ended; each writes the lease and the record."""
    return lease._revision > since + 2


# --- one holder ---


async def test_holders_never_share_a_number(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MACHINES", 6)
    async with AsyncExitStack() as stack:
        leases = await asyncio.gather(
            *(stack.enter_async_context(MachineLease(bus)) for _ in range(6))
        )
        assert sorted(map(number, leases)) == list(range(6))
        with pytest.raises(Unavailable, match="all 6 machine numbers"):
            await stack.enter_async_context(MachineLease(bus))


@pytest.mark.usefixtures("quick", "only_one")
async def test_a_lease_is_renewed_for_as_long_as_it_is_held(bus: Bus) -> None:
    async with MachineLease(bus) as lease:
        deadline = time.monotonic() + 1.6
        records: set[int] = set()
        while time.monotonic() < deadline:
            assert number(lease) == 0
            records.add(await recorded_ms(bus, 0))
            with pytest.raises(Unavailable):
                await MachineLease(bus).__aenter__()
        assert len(records) > 5
        assert lease.ids.ceiling_ms > lease.ids.last_ms


@pytest.mark.usefixtures("only_one")
async def test_a_clean_end_returns_the_number(bus: Bus) -> None:
    """In a second; otherwise a number would be gone for a minute."""
    async with MachineLease(bus) as first:
        made = first.ids.next()
    released = time.monotonic()
    second = await take_when_free(bus)
    assert time.monotonic() - released < 5
    assert second.ids.next() > made
    assert await recorded_ms(bus, 0) > timestamp_ms(made)
    await second.__aexit__()


@pytest.mark.usefixtures("only_one")
async def test_after_the_end_no_id_is_above_the_record(
    bus: Bus, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last request may still be under way while the number is given back."""
    made: list[int] = []
    async with MachineLease(bus) as lease:
        made.append(lease.ids.next())
        put = Bucket.put

        async def put_while_others_make_ids(*arguments: Any, **options: Any) -> int:
            clock.step_ms += 10
            made.extend(ids_of(lease))
            revision = await put(*arguments, **options)
            clock.step_ms += 10
            made.extend(ids_of(lease))
            return revision

        monkeypatch.setattr(Bucket, "put", put_while_others_make_ids)
    monkeypatch.setattr(Bucket, "put", put)
    assert max(map(timestamp_ms, made)) <= await recorded_ms(bus, 0)


# --- takeover ---


@pytest.mark.usefixtures("quick", "only_one")
@pytest.mark.parametrize("step_ms", [-HOUR_MS, HOUR_MS])
async def test_whoever_takes_over_starts_above_the_record(
    bus: Bus, clock: Clock, step_ms: int
) -> None:
    first = await MachineLease(bus).__aenter__()
    made = [first.ids.next() for _ in range(10_000)]
    await kill(first)
    record = await recorded_ms(bus, 0)
    made.append(first.ids.next())
    clock.step_ms = step_ms
    second = await take_when_free(bus)
    later = [second.ids.next() for _ in range(10_000)]
    assert all(timestamp_ms(each) <= record for each in made)
    assert all(timestamp_ms(each) > record for each in later)
    await kill(second)


@pytest.mark.usefixtures("only_one")
async def test_the_clock_steps_back_between_two_clean_holders(bus: Bus, clock: Clock) -> None:
    made: set[int] = set()
    lease = await take_when_free(bus)
    made.update(lease.ids.next() for _ in range(100))
    await lease.__aexit__()
    clock.step_ms = -HOUR_MS
    lease = await take_when_free(bus)
    later = {lease.ids.next() for _ in range(100)}
    assert not made & later
    await lease.__aexit__()


@pytest.mark.usefixtures("quick", "only_one")
async def test_the_clock_steps_back_under_a_holder(bus: Bus, clock: Clock) -> None:
    async with MachineLease(bus) as lease:
        made = [lease.ids.next()]
        for step_ms in (-HOUR_MS, HOUR_MS, -10 * HOUR_MS):
            clock.step_ms = step_ms
            await eventually(partial(renewed, lease, lease._revision))
            made += [lease.ids.next() for _ in range(5000)]
            assert lease.ids.last_ms <= lease.ids.ceiling_ms
            assert lease.ids.ceiling_ms <= await recorded_ms(bus, 0)
        assert made == sorted(set(made))


# --- NATS away ---


@pytest.mark.usefixtures("quick", "only_one")
async def test_without_nats_ids_end_at_the_record(nats: Nats, bus: Bus) -> None:
    async with MachineLease(bus) as lease:
        made = [lease.ids.next()]
        record = await recorded_ms(bus, 0)
        nats.process.kill()
        await eventually(lambda: not bus.connected)
        record = max(record, lease.ids.ceiling_ms)

        def over() -> bool:
            found = [each for _ in range(1000) for each in ids_of(lease)]
            made.extend(found)
            return not found

        await eventually(over)
        assert max(map(timestamp_ms, made)) <= record
        await nats.start()
        await eventually(lambda: has_ids(lease))
        assert number(lease) == 0
        assert lease.ids.next() > made[-1]
        assert await recorded_ms(bus, 0) >= record


@pytest.mark.usefixtures("quick")
async def test_a_lost_lease_is_replaced_by_another(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MACHINES", 2)
    async with MachineLease(bus) as lease:
        had = number(lease)
        await rob(bus, had)
        await eventually(lambda: has_ids(lease) and number(lease) != had)
        assert (await owner(bus, 1 - had) or (0, b""))[1] == lease._owner


async def rob(bus: Bus, number: int) -> None:
    """Make another one the holder, as after an expiry that was not noticed."""
    key = f"$KV.{machine.BUCKET}.{number}"
    await api(bus, f"STREAM.PURGE.KV_{machine.BUCKET}", {"filter": key})
    await Bucket(bus, machine.BUCKET).put(str(number), b"another", revision=0)


@pytest.mark.usefixtures("quick")
async def test_a_takeover_that_fails_halfway_does_not_revive_the_lost_number(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS goes away between the lease on the new number and the reading of its record."""
    monkeypatch.setattr(machine, "MACHINES", 4)
    last = Bucket.last
    unread: set[str] = set()
    failures = 0

    async def fail_once(self: Bucket, key: str) -> Any:
        nonlocal failures
        if key in unread:
            failures += 1
            if failures == 1:
                raise Unavailable("on purpose")
        return await last(self, key)

    async with MachineLease(bus) as lease:
        had = number(lease)
        unread = {f"high.{each}" for each in range(4) if each != had}
        monkeypatch.setattr(Bucket, "last", fail_once)
        await rob(bus, had)
        made: list[int] = []

        def moved() -> bool:
            found = ids_of(lease)
            made.extend(found)
            return failures > 0 and any(number_of(each) != had for each in found)

        await eventually(moved)
        old = [timestamp_ms(each) for each in made if number_of(each) == had]
        assert max(old) <= await recorded_ms(bus, had)
        holder = await owner(bus, number(lease))
        assert holder is not None
        assert holder[1] == lease._owner


# --- two that both believe to be the holder ---


class Gate:
    """Stops one lease before it writes its record, as a pause of its process would."""

    def __init__(self, lease: MachineLease, monkeypatch: pytest.MonkeyPatch):
        self.records: list[bytes] = []
        self.passed = 0
        self.opened = asyncio.Event()
        put = lease._bucket.put

        async def wait(key: str, value: bytes, **options: Any) -> int:
            if not key.startswith("high."):
                return await put(key, value, **options)
            self.records.append(value)
            await self.opened.wait()
            try:
                return await put(key, value, **options)
            finally:
                self.passed += 1

        monkeypatch.setattr(lease._bucket, "put", wait)


@pytest.mark.usefixtures("quick", "only_one")
async def test_a_holder_that_slept_through_its_lease_makes_no_more_ids(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps just between renewing the lease and recording how far its ids may go."""
    first = await MachineLease(bus).__aenter__()
    made = {first.ids.next()}
    gate = Gate(first, monkeypatch)
    await eventually(lambda: bool(gate.records))
    second = await take_when_free(bus)
    await kill(second)
    record = await recorded_ms(bus, 0)
    # The clock of the next holder is behind: just where the first is going to make ids.
    behind_ms = int(gate.records[0])
    second.ids._clock = lambda: behind_ms
    made_by_second = {second.ids.next() for _ in range(100)}
    gate.opened.set()
    await eventually(lambda: gate.passed > 0)
    for _ in range(100):
        made.update(ids_of(first))
        await asyncio.sleep(0)
    assert not made & made_by_second
    assert await recorded_ms(bus, 0) >= record
    await kill(first)


@pytest.mark.usefixtures("quick", "only_one")
async def test_an_end_after_the_lease_was_lost_changes_nothing(bus: Bus) -> None:
    first = await MachineLease(bus).__aenter__()
    await kill(first)
    second = await take_when_free(bus)
    await kill(second)
    lease, record = await owner(bus, 0), await recorded_ms(bus, 0)
    await first.__aexit__()
    assert await owner(bus, 0) == lease
    assert await recorded_ms(bus, 0) == record


# --- lost answers ---


@pytest.mark.usefixtures("quick", "only_one")
async def test_a_number_that_comes_back_is_begun_anew(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another had it meanwhile, with a clock ahead; the answer to leasing it again is lost."""
    async with MachineLease(bus) as lease:
        put = lease._bucket.put
        lost = False

        async def lose_the_answer(key: str, *arguments: Any, **options: Any) -> int:
            nonlocal lost
            revision = await put(key, *arguments, **options)
            if options.get("revision") == 0 and not lost:
                lost = True
                raise Unavailable("on purpose")
            return revision

        monkeypatch.setattr(lease._bucket, "put", lose_the_answer)
        ours = lease.ids.ceiling_ms
        theirs = ours + HOUR_MS
        await rob(bus, 0)
        await Bucket(bus, machine.BUCKET).put("high.0", b"%d" % theirs)
        await api(bus, f"STREAM.PURGE.KV_{machine.BUCKET}", {"filter": "$KV.machines.0"})
        made: list[int] = []

        def new_ones() -> bool:
            made.extend(each for each in map(timestamp_ms, ids_of(lease)) if each > ours)
            return lost and bool(made)

        await eventually(new_ones)
        assert min(made) > theirs


@pytest.mark.usefixtures("quick", "only_one")
@pytest.mark.parametrize("kind", ["", "high."], ids=["lease", "record"])
async def test_a_lost_answer_does_not_cost_the_number(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async with MachineLease(bus) as lease:
        put = lease._bucket.put
        lost = 0

        async def lose_the_answer(key: str, *arguments: Any, **options: Any) -> int:
            nonlocal lost
            revision = await put(key, *arguments, **options)
            if key == f"{kind}0" and lost < 3:
                lost += 1
                raise Unavailable("on purpose")
            return revision

        monkeypatch.setattr(lease._bucket, "put", lose_the_answer)
        await eventually(lambda: lost == 3)
        before = await recorded_ms(bus, 0)
        await eventually(lambda: lease.ids.ceiling_ms > before)
        assert number(lease) == 0
    second = await take_when_free(bus, within_s=5)
    assert number(second) == 0
    await second.__aexit__()


async def test_no_nats_at_the_end_is_no_error(nats: Nats, bus: Bus) -> None:
    async with MachineLease(bus):
        nats.process.kill()
        await eventually(lambda: not bus.connected)


async def test_no_nats_at_the_start_is_an_error(nats: Nats, bus: Bus) -> None:
    nats.process.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(BrokerError):
        await MachineLease(bus).__aenter__()
