"""Answers of a replica that is behind are not taken for the whole; one server is asked once."""

import math
import random
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from broker import events, query
from broker import lag as lag_module
from broker import log as log_module
from broker.bus import Bus
from broker.committer import Committed, Committer, Outcome
from broker.errors import Conflict, Unavailable
from broker.log import Log, Stored
from broker.replay import Range, Replay
from edge.opening import _stays
from store.audience import Said
from tests.brokers import api, make_bus, prepare
from tests.replicas import Replicas
from tests.servers import Nats
from workers.notify_note import Notes
from workers.query import QueryWorker

pytestmark = pytest.mark.anyio

HAS = 30
ALL = 50


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Nats]]:
    servers = [Nats(tmp_path_factory.mktemp("nats")) for _ in range(2)]
    for each in servers:
        await each.start()
    yield servers
    for each in servers:
        each.process.kill()


class Pair(NamedTuple):
    """The same log twice; the other one is behind."""

    bus: Bus
    behind: Bus

    def log(self, *, stale: int) -> Replicas:
        return Replicas(self.bus, self.behind, stale=stale)

    async def write(self, subjects: list[str], *, has: int) -> None:
        """One event for each; the other has the first `has` of them."""
        for bus, some in ((self.bus, subjects), (self.behind, subjects[:has])):
            for number, each in enumerate(some, 1):
                header = b"NATS/1.0\r\nNats-Msg-Id: m%d\r\n\r\n" % number
                ack = await bus.request(each, b"%d" % number, header=header, timeout_s=5)
                assert not ack.status


@pytest.fixture
async def pair(servers: list[Nats]) -> AsyncIterator[Pair]:
    async with make_bus(servers[0].url) as bus, make_bus(servers[1].url) as behind:
        for each in (bus, behind):
            await prepare(each)
            await api(each, "STREAM.DELETE.CHAT")
            await prepare(each)
        yield Pair(bus, behind)


@pytest.mark.parametrize("has", [0, 1, HAS, ALL - 1])
async def test_a_resume_misses_nothing(pair: Pair, has: int) -> None:
    """Also chats of which the replica has nothing at all."""
    choices = random.Random(has)
    subjects = choices.choices(["dm.a.b", "dm.c.a", "group.x", "user.a", "dm.b.c"], k=ALL - 1)
    await pair.write([*subjects, "group.new"], has=has)
    wanted = [n for n, each in enumerate([*subjects, "group.new"], 1) if each != "dm.b.c"]
    filters = ["user.a", "dm.a.*", "dm.*.a", "group.x", "group.new"]
    for after in (0, 10, ALL - 2, ALL - 1):
        for stale in (1, 2, 3, 5):
            replay = Replay(pair.log(stale=stale), after=after, up_to=ALL, first_seq=1)
            found = [each.seq async for each in replay.events(filters)]
            assert found == [seq for seq in wanted if seq > after], (after, stale)
            assert replay.missing == []


async def test_a_group_that_was_left_misses_nothing(pair: Pair) -> None:
    await pair.write(["group.gone"] * ALL, has=HAS)
    for stale in (1, 2, 3):
        replay = Replay(pair.log(stale=stale), after=5, up_to=ALL, first_seq=1)
        found = replay.events(["user.a"], left=[Range("group.gone", 1, 45)])
        assert [each.seq async for each in found] == list(range(6, 46))


async def test_what_changed_of_the_groups_is_read_to_the_end(pair: Pair) -> None:
    for bus in pair:
        await bus.request("group.other", b"{}", timeout_s=5)
    who = events.MemberRemoved(
        chat_id="group.x", group_id="x", by="b", users=["a"], name="x", kind="group", size=2
    )
    removed = events.encode(who)
    await pair.bus.request("user.a", removed, timeout_s=5)
    for stale in (0, 1, 2, 3):
        stays = await _stays(pair.log(stale=stale), "user.a", 0, 2, all_live=False)
        assert stays.left == [Range("group.x", 1, 1)], stale


@pytest.mark.parametrize("filters", [["group.none"], ["group.*"], ["dm.a.*", "group.late"]])
async def test_last_is_as_of_what_is_known_to_be_there(pair: Pair, filters: list[str]) -> None:
    await pair.write(["group.first", *["group.x"] * 10, "group.late"], has=8)
    wanted = {each.subject: each for each in await Log(pair.bus).last(filters)}
    for stale in (0, 1, 2, 3):
        found = await pair.log(stale=stale).last(filters, has=12)
        assert {each.subject: each for each in found} == wanted


async def test_parts_of_one_answer_come_from_replicas_that_have_it_all(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "BATCH_BYTES", 200)

    class FirstPartOnly(Replicas):
        def _answers_late(self) -> bool:
            self.stale += 1
            return self.stale == 2

    names = [f"group.{number}" for number in range(20)]
    await pair.write(names, has=8)
    found = await FirstPartOnly(pair.bus, pair.behind, stale=0).last(["group.*"], has=20)
    assert sorted(each.subject for each in found) == sorted(names)


async def test_what_stays_behind_is_an_error_in_the_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_module, "LAG_S", 0.1)
    await pair.write(["group.x"] * ALL, has=HAS)
    log = pair.log(stale=1_000_000)
    with pytest.raises(Unavailable):
        await log.last(["group.x"], has=ALL)
    with pytest.raises(Unavailable):
        await log.existing(ALL)
    with pytest.raises(Unavailable):
        async for _ in log.read_all("group.x", 1):
            pass


async def test_an_event_is_gone_only_when_the_leader_says_so(pair: Pair) -> None:
    await pair.write(["group.x"] * ALL, has=HAS)
    assert await pair.log(stale=3).existing(ALL) == Stored(ALL, "group.x", b"50")
    await api(pair.bus, "STREAM.MSG.DELETE.CHAT", {"seq": ALL})
    assert await pair.log(stale=3).existing(ALL) is None


async def test_all_of_a_chat_that_was_there_when_it_was_asked_for(pair: Pair) -> None:
    await pair.write(["group.x", "group.y"] * 25, has=HAS)
    for stale in (0, 1, 2, 3):
        pages = pair.log(stale=stale).read_all("group.y", 10)
        assert [each.seq async for page in pages for each in page] == list(range(10, 51, 2))


async def test_a_message_id_is_found_wherever_it_is(pair: Pair) -> None:
    await pair.write(["group.x"] * ALL, has=HAS)
    since = time.time() - 600
    for stale in (0, 1, 2):
        log = pair.log(stale=stale)
        assert await log.find("group.x", f"m{ALL}", since_s=since) == ALL
    assert await pair.log(stale=1).find("group.x", "none", since_s=since) == 0
    assert await pair.log(stale=1).find("group.none", "m1", since_s=since) == 0


async def test_a_conflict_with_oneself_is_seen_though_the_replica_is_behind(pair: Pair) -> None:
    """Stored, the acknowledgement lost, sent again."""
    await pair.write(["group.x"] * 3, has=1)
    async with Committer(pair.bus, pair.log(stale=1_000_000)) as committer:
        for msg_id in ("m2", "other"):
            outcomes: list[Outcome] = []
            committer.submit("group.x", b"2", msg_id=msg_id, expect_seq=1, done=outcomes.append)
            await committer.drain(5)
            if msg_id == "m2":
                assert outcomes == [Committed(2, b"2")]
            else:
                assert [each.seq for each in outcomes if isinstance(each, Conflict)] == [3]


MESSAGE = events.Chat(
    id="7",
    chat_id="dm.a.b",
    from_="a",
    to="b",
    client_id="c",
    content="hello",
    content_type="text",
    timestamp=1,
)


async def test_a_message_that_was_just_written_can_be_edited(pair: Pair) -> None:
    """MongoDB does not have it yet, nor does the replica."""
    await pair.bus.request("dm.a.b", events.encode(MESSAGE), timeout_s=5)
    nothing: Any = SimpleNamespace(message=_none)
    async with Committer(pair.bus, Log(pair.bus)) as committer:
        worker = QueryWorker(
            *(pair.bus, committer),
            **dict.fromkeys(("directory", "reads", "indexes", "search_numbers"), nothing),
            history=nothing,
        )
        worker._log = pair.log(stale=1)
        worker._progress_at = math.inf
        found = await worker._message(query.FindMessage(by="a", chat_id="dm.a.b", message_id="7"))
        assert (found.seq, found.author) == (1, "a")


async def _none(*_: object) -> None:
    pass


async def test_a_push_of_a_message_that_only_the_leader_has_is_sent(pair: Pair) -> None:
    await pair.bus.request("dm.a.b", events.encode(MESSAGE), timeout_s=5)

    async def messages(_: object) -> dict[int, Said]:
        return {}

    rest: Any = SimpleNamespace(messages=messages)
    notes = Notes(pair.bus, devices=rest, audience=rest, history=rest, content=True, site=None)
    notes._log = pair.log(stale=1)
    record: Any = SimpleNamespace(message_id=7, seq=1)
    assert (await notes._messages([record]))[7].content == "hello"


class Counted(Log):
    """A log on one server; counts what it is asked."""

    asked = 0

    async def _direct(self, *args: object) -> tuple[list[object], int, int]:  # type: ignore[override]
        self.asked += 1
        return await super()._direct(*args)  # type: ignore[arg-type]


async def test_one_server_is_asked_no_more_than_before(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.write(["group.x", "user.a"], has=0)
    log = Counted(pair.bus)
    await log.state()
    asked: list[str] = []
    request = pair.bus.request

    async def counted(subject: str, *args: object, **options: object) -> object:
        asked.append(subject)
        return await request(subject, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pair.bus, "request", counted)
    assert await log.last(["group.none"], has=2) == []
    assert len(await log.last(["group.x"], has=2)) == 1
    assert [page async for page in log.read_all("dm.none", 1)] == []
    assert len([page async for page in log.read_all("user.a", 1, 2)]) == 1
    assert await log.existing(9) is None
    assert (log.asked, asked) == (4, ["$JS.API.DIRECT.GET.CHAT"])
