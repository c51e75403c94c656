"""Reading the log by Direct Get, on a real server."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bench.proxy import Proxy
from broker import log as log_module
from broker.api_error import ApiError, api_error
from broker.bus import Bus, Reply
from broker.committer import Committer
from broker.errors import Overloaded, Refused, Unavailable
from broker.log import BATCH, Log, Stored, header_value, sequence_of, stored
from tests.brokers import Outcomes, api, commit_all, event_at, make_bus, prepare
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    server = Nats(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    server.process.kill()


@pytest.fixture
async def bus(server: Nats) -> AsyncIterator[Bus]:
    """With an empty log."""
    async with make_bus(server.url) as bus:
        await prepare(bus)
        await api(bus, "STREAM.DELETE.CHAT")
        await prepare(bus)
        yield bus


@pytest.fixture
def log(bus: Bus) -> Log:
    return Log(bus)


# --- headers ---

BLOCK = (
    b"NATS/1.0\r\nNats-Msg-Id: 7\r\nNats-Sequence: 1\r\nNats-Stream: CHAT\r\n"
    b"Nats-Subject: group.a\r\nNats-Sequence: 42\r\nNats-Last-Sequence: 41\r\n\r\n"
)


def test_the_servers_own_sequence_is_read() -> None:
    """It comes after whatever a publisher wrote."""
    assert sequence_of(BLOCK) == 42
    assert stored(Reply(BLOCK, b"data")) == Stored(42, "group.a", b"data")
    assert header_value(BLOCK, b"Nats-Msg-Id") == b"7"
    assert header_value(BLOCK, b"Msg-Id") == b""
    assert header_value(BLOCK, b"Nats-Last-Sequence") == b"41"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ApiError(code=400, err_code=10047, description="resources"), Overloaded),
        (ApiError(code=503, err_code=10077, description="maximum bytes exceeded"), Overloaded),
        (ApiError(code=503, err_code=10008, description="no leader"), Unavailable),
        (ApiError(code=409, err_code=10158, description="in flight"), Unavailable),
        (ApiError(code=429, err_code=10210, description="too many batches"), Unavailable),
        (ApiError(code=404, err_code=10059, description="stream not found"), Refused),
        (ApiError(code=400, err_code=10054, description="message size"), Refused),
    ],
)
def test_errors_say_whether_to_try_again(error: ApiError, kind: type[Exception]) -> None:
    made = api_error(error)
    assert type(made) is kind
    assert error.description in str(made)


# --- one event ---


async def test_state(bus: Bus, log: Log) -> None:
    empty = await log.state()
    assert empty.last_seq == 0
    assert len(empty.epoch) == 12
    await commit_all(bus, [("group.a", b"")] * 5)
    await api(bus, "STREAM.PURGE.CHAT", {"seq": 3})
    state = await log.state()
    assert state[:4] == (empty.epoch, 3, 5, 3)
    assert 0 < state.bytes < state.max_bytes


async def test_get(bus: Bus, log: Log) -> None:
    await commit_all(bus, [("group.a", b"one"), ("dm.a=2E.b", b"")])
    assert await log.get(1) == Stored(1, "group.a", b"one")
    assert await log.get(2) == Stored(2, "dm.a=2E.b", b"")
    assert await log.get(3) is None


async def test_next_tells_the_message_id(bus: Bus, log: Log) -> None:
    await commit_all(bus, [("group.a", b"1"), ("group.b", b"2"), ("group.a", b"3")])
    found = await log.next("group.a", 2)
    assert found is not None
    assert found == (Stored(3, "group.a", b"3"), (await event_at(bus, 3)).msg_id)
    assert await log.next("group.a", 4) is None
    assert await log.next("group.none", 1) is None


# --- many ---


async def test_find_by_message_id(bus: Bus, log: Log) -> None:
    """Over several pages, and not before the given time."""
    outcomes = Outcomes()
    count = BATCH + 50
    async with Committer(bus, log) as committer:
        for number in range(count):
            committer.submit("dm.a.b", b"x", msg_id=f"id{number}", done=outcomes(f"id{number}"))
            committer.submit("dm.a.c", b"x", msg_id=f"c{number}", done=outcomes(f"c{number}"))
        await committer.drain(60)
    since_s = time.time() - 60
    for name in ("id0", f"id{BATCH - 1}", f"id{count - 1}"):
        assert await log.find("dm.a.b", name, since_s=since_s) == outcomes.seq(name)
    assert await log.find("dm.a.b", "c0", since_s=since_s) == 0, "another subject"
    assert await log.find("dm.a.b", "id", since_s=since_s) == 0
    assert await log.find("dm.a.x", "id0", since_s=since_s) == 0
    assert await log.find("dm.a.b", "id0", since_s=time.time() + 60) == 0


async def test_read_pages(bus: Bus, log: Log) -> None:
    await commit_all(bus, [(f"group.{n % 2}", b"%d" % n) for n in range(2500)])
    page = await log.read("group.0", 1)
    assert [each.seq for each in page.events] == list(range(1, 2000, 2))
    assert page.pending == 250
    rest = await log.read("group.0", page.events[-1].seq + 1)
    assert [each.seq for each in rest.events] == list(range(2001, 2500, 2))
    assert rest.pending == 0
    few = await log.read(">", 100, 3)
    assert [each.data for each in few.events] == [b"99", b"100", b"101"]
    assert few.pending == 2500 - 102
    assert (await log.read("group.0", 2501)).events == []
    assert (await log.read("group.none", 1)).events == []
    assert (await log.read("group.0", -5, 1)).events[0].seq == 1


async def test_pages_are_bounded_in_bytes(
    bus: Bus, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "BATCH_BYTES", 50_000)
    await commit_all(bus, [("group.a", bytes(10_000))] * 20)
    seq, seen, pages = 1, 0, 0
    while seq <= 20:
        page = await log.read("group.a", seq)
        pages += 1
        seen += len(page.events)
        assert page.pending == 20 - seen
        seq = page.events[-1].seq + 1
    assert seen == 20
    assert 4 <= pages <= 7


async def test_count(bus: Bus, log: Log) -> None:
    await commit_all(bus, [("group.a", b""), ("group.b", b"")] * 600)
    assert await log.count("group.a", 1) == (600, 1)
    assert await log.count("group.a", 2) == (599, 3)
    assert await log.count("group.a", 1199) == (1, 1199)
    assert await log.count("group.a", 1200) == (0, 0)
    assert await log.count(">", 1101) == (100, 1101)


# --- what is last ---


async def test_last_of_each_subject(bus: Bus, log: Log) -> None:
    await commit_all(bus, [(f"group.{n % 3}", b"%d" % n) for n in range(9)])
    await commit_all(bus, [("dm.a.b", b"x"), ("dm.b.c", b"y")])
    assert [each.seq for each in await log.last(["group.*"])] == [7, 8, 9]
    assert [each.seq for each in await log.last(["group.*"], has=11)] == [7, 8, 9]
    assert [each.seq for each in await log.last(["dm.b.*", "dm.*.b", "group.0"])] == [7, 10, 11]
    assert await log.last([]) == []
    assert await log.last(["group.none"]) == []


class CountingBus:
    """Counts the requests that go over a bus."""

    def __init__(self, bus: Bus, monkeypatch: pytest.MonkeyPatch):
        self.requests = 0
        write = bus.write

        def count(commands: bytes) -> None:
            self.requests += 1
            write(commands)

        monkeypatch.setattr(bus, "write", count)


async def test_more_subjects_than_one_answer_holds(
    bus: Bus, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [f"group.{number}" for number in range(1500)]
    peers = [f"dm.a.{number}" for number in range(1500)]
    await commit_all(bus, [(each, b"") for each in [*groups, *peers]])
    await commit_all(bus, [("dm.a.7", b"newer"), ("group.9", b"newer")])
    counting = CountingBus(bus, monkeypatch)
    for filters in (["group.*"], groups, [*groups, "group.none"]):
        found = await log.last(filters, has=3002)
        assert sorted(each.subject for each in found) == sorted(groups)
        assert max(found) == Stored(3002, "group.9", b"newer")
    found = await log.last(["dm.a.*", "dm.*.a", *groups], has=3001)
    assert sorted(each.subject for each in found) == sorted([*groups, *peers])
    assert max(found) == Stored(3002, "group.9", b"newer")
    assert counting.requests < 50, "named subjects need not be looked up one by one"


async def test_last_events_that_are_large_come_in_parts(
    bus: Bus, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetStream ends an answer at its bound (64 MiB by default) and says how many are left."""
    monkeypatch.setattr(log_module, "BATCH_BYTES", 50_000)
    names = [f"group.{number}" for number in range(40)]
    await commit_all(bus, [(each, bytes(5_000)) for each in names])
    await commit_all(bus, [(each, b"newer") for each in names[:5]])
    for has in (0, 45):
        found = await log.last(["group.*"], has=has)
        assert sorted(each.subject for each in found) == sorted(names)
        assert [each.data for each in sorted(found)[-5:]] == [b"newer"] * 5


# --- no answers ---


async def test_no_log_is_an_error(bus: Bus, log: Log) -> None:
    await api(bus, "STREAM.DELETE.CHAT")
    with pytest.raises(Refused):
        await log.state()
    with pytest.raises(Refused):
        await log.next("group.a", 1)
    for read in (log.get(1), log.read(">", 1), log.last(["group.*"])):
        with pytest.raises(Unavailable):
            await read


async def test_an_answer_that_breaks_off(
    server: Nats, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "QUIET_S", 0.3)
    await commit_all(bus, [("group.a", bytes(20_000))] * 100)
    async with Proxy(server.port) as proxy, make_bus(proxy.url) as far:
        await far.wait_connected(10)
        log = Log(far)
        proxy.down.drop(after_bytes=200_000)
        with pytest.raises(Unavailable, match="silent"):
            await log.read(">", 1)
        proxy.reset()
        proxy.clear()
        await eventually(lambda: far.reconnects == 1)
        assert len((await log.read(">", 1)).events) == 100
        assert not far._answers


async def test_a_connection_lost_during_an_answer(server: Nats, bus: Bus) -> None:
    await commit_all(bus, [("group.a", bytes(20_000))] * 100)
    async with Proxy(server.port) as proxy, make_bus(proxy.url) as far:
        await far.wait_connected(10)
        proxy.down.hold()

        reading = asyncio.create_task(Log(far).read(">", 1))
        await eventually(lambda: proxy.down.held_bytes > 0)
        proxy.reset()
        with pytest.raises(Unavailable, match="lost"):
            await reading
        assert not far._answers


async def test_a_slow_answer_is_waited_for(
    server: Nats, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as something comes, however long it takes in all."""
    monkeypatch.setattr(log_module, "QUIET_S", 0.3)
    await commit_all(bus, [("group.a", bytes(20_000))] * 100)
    async with Proxy(server.port) as proxy, make_bus(proxy.url) as far:
        await far.wait_connected(10)
        proxy.down.delay_s = 0.02
        assert len((await Log(far).read(">", 1)).events) == 100
