"""The committer when the connection or the server fails at the worst moment."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from bench.proxy import Direction, Proxy
from broker import committer as committer_module
from broker.bus import Bus
from broker.committer import Committed, Committer
from broker.errors import Conflict, Unavailable
from broker.log import Log
from tests.brokers import Outcomes, all_events, api, commit_all, make_bus, prepare, until_stored
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


class Setup:
    """A committer behind a proxy, and a bus beside it that sees the truth."""

    def __init__(self, nats: Nats, proxy: Proxy, bus: Bus, truth: Bus, committer: Committer):
        self.nats = nats
        self.proxy = proxy
        self.bus = bus
        self.truth = truth
        self.committer = committer
        self.outcomes = Outcomes()

    def submit(self, name: str, *, subject: str = "group.a", expect_seq: int | None = None) -> None:
        self.committer.submit(
            subject,
            name.encode(),
            msg_id=name,
            done=self.outcomes(name),
            expect_seq=expect_seq,
        )

    async def stored(self, seq: int) -> None:
        """Wait until the log has come this far."""
        await until_stored(self.truth, seq)

    async def assert_exactly_once(self, names: list[str]) -> None:
        """All are acknowledged, and the log has them once, in order, where it was said."""
        await self.committer.drain(20)
        assert self.outcomes.complete
        stored = await all_events(self.truth)
        assert [each.msg_id for each in stored] == names
        assert [self.outcomes.seq(name) for name in names] == [each.seq for each in stored]


@pytest.fixture
async def setup(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setattr(committer_module, "ATTEMPT_S", 0.3)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        proxy = await enter(Proxy(nats.port))
        truth = await enter(make_bus(nats.url, "truth"))
        bus = await enter(make_bus(proxy.url))
        await prepare(truth)
        await bus.wait_connected(10)
        committer = await enter(Committer(bus, Log(bus)))
        yield Setup(nats, proxy, bus, truth, committer)


MANY = [f"m{number}" for number in range(50)]


@pytest.mark.parametrize("names", [MANY[:1], MANY], ids=["single", "batch"])
async def test_a_lost_acknowledgement(setup: Setup, names: list[str]) -> None:
    setup.proxy.down.drop()
    for name in names:
        setup.submit(name)
    await setup.stored(len(names))
    setup.submit("newer")
    setup.proxy.reset()
    setup.proxy.clear()
    await setup.assert_exactly_once([*names, "newer"])
    assert setup.outcomes.one("newer") == Committed(len(names) + 1)
    # A repetition of our own is answered with what is stored, which is the same event.
    assert setup.outcomes.one("m0") == Committed(1, b"m0")


@pytest.mark.parametrize("names", [MANY[:1], MANY], ids=["single", "batch"])
async def test_a_lost_message(setup: Setup, names: list[str]) -> None:
    setup.proxy.up.drop()
    for name in names:
        setup.submit(name)
    await eventually(lambda: setup.proxy.up.dropped_bytes > 0)
    setup.proxy.reset()
    setup.proxy.clear()
    await setup.assert_exactly_once(names)


@pytest.mark.parametrize("names", [MANY[:1], MANY], ids=["single", "batch"])
async def test_a_message_that_arrives_late(setup: Setup, names: list[str]) -> None:
    """Its repetition is stored first, on another connection."""
    late = setup.proxy.up
    late.hold()
    for name in names:
        setup.submit(name)
    await eventually(lambda: late.held_bytes > 0)
    setup.proxy.up = Direction()
    setup.proxy.cut()
    setup.submit("newer")
    await setup.assert_exactly_once([*names, "newer"])
    late.release()
    await eventually(lambda: setup.proxy.open == 1)
    await setup.assert_exactly_once([*names, "newer"])


@pytest.mark.parametrize("names", [MANY[:1], MANY], ids=["single", "batch"])
async def test_a_message_that_overtakes_its_repetition(setup: Setup, names: list[str]) -> None:
    """No answer in time, so it is sent again behind itself."""
    setup.proxy.up.hold()
    for name in names:
        setup.submit(name)
    retries = setup.committer.retries
    await eventually(lambda: setup.committer.retries > retries)
    setup.submit("newer")
    setup.proxy.up.release()
    await setup.assert_exactly_once([*names, "newer"])


async def test_half_a_batch_arrives(setup: Setup) -> None:
    """JetStream keeps its first part for 10 s in wait for the rest; that is in nobody's way."""
    setup.proxy.up.drop(after_bytes=3_000)
    for name in MANY:
        setup.submit(name)
    await eventually(lambda: setup.proxy.up.dropped_bytes > 0)
    setup.proxy.reset()
    setup.proxy.clear()
    await setup.assert_exactly_once(MANY)


# --- a killed server ---


async def test_a_server_killed_under_way_loses_nothing(setup: Setup) -> None:
    names = [f"m{number}" for number in range(2000)]
    for name in names:
        setup.submit(name)
    await setup.stored(400)
    setup.nats.process.kill()
    for name in ("later1", "later2"):
        setup.submit(name)
    await setup.nats.start()
    await setup.truth.wait_connected(10)
    await setup.assert_exactly_once([*names, "later1", "later2"])


async def test_a_server_that_stays_away(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent waits for its deadline; what was not, and what is new, is told at once."""
    monkeypatch.setattr(committer_module, "DOWN_S", 0.3)
    monkeypatch.setattr(committer_module, "DEADLINE_S", 1.0)
    setup.nats.process.send(signal.SIGSTOP)
    setup.submit("sent")
    await eventually(lambda: not setup.committer._waiting)
    setup.nats.process.kill()
    await eventually(lambda: not setup.bus.connected)
    for name in MANY:
        setup.submit(name)
    await eventually(lambda: setup.bus.down_s > committer_module.DOWN_S)
    with pytest.raises(Unavailable) as caught:
        setup.submit("new")
    assert caught.value.retryable
    assert setup.outcomes.of.pop("new") == []
    await setup.committer.drain(10)
    assert setup.outcomes.complete
    assert all(isinstance(setup.outcomes.one(name), Unavailable) for name in ("sent", *MANY))

    await setup.nats.start()
    await setup.bus.wait_connected(10)
    await setup.truth.wait_connected(10)
    setup.submit("back")
    await setup.committer.drain(10)
    assert isinstance(setup.outcomes.one("back"), Committed)
    assert "m0" not in [each.msg_id for each in await all_events(setup.truth)]


async def test_what_was_never_sent_need_not_wait_for_its_deadline(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is known: it is not stored."""
    monkeypatch.setattr(committer_module, "DOWN_S", 0.3)
    setup.nats.process.kill()
    await eventually(lambda: not setup.bus.connected)
    started = asyncio.get_running_loop().time()
    for name in MANY:
        setup.submit(name)
    await setup.committer.drain(20)
    assert asyncio.get_running_loop().time() - started < committer_module.DEADLINE_S / 2
    assert all(isinstance(setup.outcomes.one(name), Unavailable) for name in MANY)


async def test_a_paused_server_fails_at_the_deadline(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "DEADLINE_S", 0.5)
    setup.nats.process.send(signal.SIGSTOP)
    for name in MANY:
        setup.submit(name)
    await setup.committer.drain(10)
    assert all(isinstance(setup.outcomes.one(name), Unavailable) for name in MANY)
    assert setup.committer.failed == len(MANY)
    setup.nats.process.send(signal.SIGCONT)
    # Unknown means unknown: they may be there now, and repeating them adds nothing.
    await setup.bus.wait_connected(10)
    again = Outcomes()
    for name in MANY:
        setup.committer.submit("group.a", name.encode(), msg_id=name, done=again(name))
    await setup.committer.drain(10)
    assert {name: again.seq(name) for name in MANY} == {
        each.msg_id: each.seq for each in await all_events(setup.truth)
    }


# --- expected sequences ---


async def end_of_the_duplicate_window(bus: Bus) -> None:
    """Return when what was stored before this call is no longer known as a duplicate."""
    log = Log(bus)
    async with Committer(bus, log) as committer:
        await committer.commit("user.probe", b"", msg_id="probe")
        async with asyncio.timeout(10):
            while (await committer.commit("user.probe", b"", msg_id="probe")).first is not None:
                pass


@pytest.mark.parametrize("newer", [False, True], ids=["last", "not last"])
async def test_the_conflict_with_oneself_is_none(setup: Setup, newer: bool) -> None:
    """The acknowledgement is lost and the server has forgotten the message id."""
    config = (await api(setup.truth, "STREAM.INFO.CHAT"))["config"]
    await api(setup.truth, "STREAM.UPDATE.CHAT", {**config, "duplicate_window": 100_000_000})
    await commit_all(setup.truth, [("group.a", b"1")])
    late = setup.proxy.up
    setup.proxy.down.drop()
    setup.submit("mine", expect_seq=1)
    await setup.stored(2)
    if newer:
        await commit_all(setup.truth, [("group.a", b"by another edge")])
    late.hold()  # until then nothing more of it arrives
    await end_of_the_duplicate_window(setup.truth)
    setup.proxy.up = Direction()
    setup.proxy.down = Direction()
    setup.proxy.reset()
    await setup.committer.drain(20)
    assert setup.outcomes.one("mine") == Committed(2, b"mine")


async def test_the_conflict_with_another_is_one(setup: Setup) -> None:
    """The message is lost, and another edge writes before it is repeated."""
    await commit_all(setup.truth, [("group.a", b"1")])
    setup.proxy.up.drop()
    setup.submit("mine", expect_seq=1)
    await eventually(lambda: setup.proxy.up.dropped_bytes > 0)
    await commit_all(setup.truth, [("group.a", b"by another edge")])
    setup.proxy.reset()
    setup.proxy.clear()
    await setup.committer.drain(20)
    conflict = setup.outcomes.one("mine")
    assert isinstance(conflict, Conflict)
    assert conflict.seq == 2
