"""What a resuming client gets, compared with what is in the log."""

import os
import random
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import pytest

from broker import replay as replay_module
from broker.bus import Bus
from broker.errors import Unavailable
from broker.log import Log, Page, Stored
from broker.replay import CHAT_EVENTS, Range, Replay
from tests.brokers import api, commit_all, make_bus, prepare
from tests.servers import Nats

pytestmark = pytest.mark.anyio


class Result(NamedTuple):
    events: list[Stored]
    missing: list[Range]

    @property
    def seqs(self) -> list[int]:
        return [each.seq for each in self.events]


class Written:
    """A log, and what was written to it."""

    def __init__(self, bus: Bus, log: Log):
        self.bus = bus
        self.log = log
        self.events: list[Stored] = []

    async def write(self, subjects: list[str]) -> list[int]:
        """One event for each; returns their seqs."""
        start = len(self.events)
        payloads = [b"%d in %b" % (start + n, each.encode()) for n, each in enumerate(subjects)]
        seqs = await commit_all(self.bus, list(zip(subjects, payloads, strict=True)))
        self.events += [
            Stored(seq, subject, payload)
            for seq, subject, payload in zip(seqs, subjects, payloads, strict=True)
        ]
        return seqs

    async def replay(
        self,
        filters: list[str],
        *,
        after: int,
        up_to: int | None = None,
        first_seq: int = 1,
        floors: dict[str, int] | None = None,
        left: Sequence[Range] = (),
        log: Log | None = None,
    ) -> Result:
        end = len(self.events) if up_to is None else up_to
        replay = Replay(log or self.log, after=after, up_to=end, first_seq=first_seq)
        found = floors or {}
        missed = replay.events(filters, lambda name: found.get(name, 0), left)
        events = [each async for each in missed]
        return Result(events, replay.missing)

    def of(self, *subjects: str) -> list[Stored]:
        return [each for each in self.events if each.subject in subjects]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    server = Nats(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    server.process.kill()


@pytest.fixture
async def written(server: Nats) -> AsyncIterator[Written]:
    """An empty log."""
    async with make_bus(server.url) as bus:
        await prepare(bus)
        await api(bus, "STREAM.DELETE.CHAT")
        yield Written(bus, await prepare(bus))


# --- the model ---


def matches(pattern: str, subject: str) -> bool:
    one, other = pattern.split("."), subject.split(".")
    return len(one) == len(other) and all(a in ("*", b) for a, b in zip(one, other, strict=True))


def expected(
    events: list[Stored],
    filters: list[str],
    *,
    after: int,
    up_to: int,
    floors: dict[str, int],
    left: Sequence[Range],
) -> Result:
    """The rules of resuming, said in the plainest way."""
    found: list[Stored] = []
    missing: list[Range] = []
    wanted = [
        Range(subject, floors.get(subject, 0), up_to)
        for subject in sorted({each.subject for each in events})
        if any(matches(pattern, subject) for pattern in filters)
    ]
    for subject, begin, end in [*wanted, *left]:
        start, end = max(after + 1, begin), min(end, up_to)
        news = [each for each in events if each.subject == subject and start <= each.seq <= end]
        kept = news[-CHAT_EVENTS:]
        if len(kept) < len(news):
            missing.append(Range(subject, start, kept[0].seq - 1))
        found += kept
    return Result(sorted(found), sorted(missing))


async def test_random_resumes(written: Written) -> None:
    seed = int(os.environ.get("HIKYAKU_TEST_SEED", random.randrange(2**32)))
    print(f"HIKYAKU_TEST_SEED={seed}")
    choices = random.Random(seed)
    users = ["a", "b", "c", "d=2E"]
    chats = [f"dm.{one}.{other}" for one in users for other in users if one <= other]
    chats += [f"group.{number}" for number in range(20)] + [f"user.{user}" for user in users]
    weights = [choices.choice((1, 1, 10, 100)) for _ in chats]
    await written.write(choices.choices(chats, weights, k=12_000))
    end = len(written.events)
    for _ in range(25):
        user = choices.choice(users)
        groups = choices.sample([each for each in chats if each.startswith("group")], 12)
        gone = [groups.pop() for _ in range(4)]
        filters = [f"user.{user}", f"dm.{user}.*", f"dm.*.{user}", *groups]
        up_to = choices.randint(0, end)
        after = choices.randint(0, choices.choice((up_to, end)))
        floors = {group: choices.randint(0, end) for group in groups[:3]}
        left = [Range(each, *sorted(choices.choices(range(end), k=2))) for each in gone]
        wanted = expected(
            written.events, filters, after=after, up_to=up_to, floors=floors, left=left
        )
        result = await written.replay(filters, after=after, up_to=up_to, floors=floors, left=left)
        assert result.events == wanted.events
        assert sorted(result.missing) == wanted.missing


# --- many events of one chat ---


@pytest.mark.parametrize("count", [CHAT_EVENTS - 1, CHAT_EVENTS, CHAT_EVENTS + 1, 2500])
async def test_a_chat_gives_its_newest_1000(written: Written, count: int) -> None:
    await written.write(["group.other"] * 7)
    await written.write(["group.a", "group.other"] * count)
    result = await written.replay(["group.a"], after=3)
    newest = written.of("group.a")[-CHAT_EVENTS:]
    assert result.events == newest
    left_out = [Range("group.a", 4, newest[0].seq - 1)] if count > CHAT_EVENTS else []
    assert result.missing == left_out


@pytest.mark.parametrize("count", [CHAT_EVENTS - 1, CHAT_EVENTS, CHAT_EVENTS + 1])
async def test_what_is_newer_than_the_end_does_not_count(written: Written, count: int) -> None:
    """It comes live; 1,000 up to the end are not too many."""
    await written.write(["group.other"] * 7)
    await written.write(["group.a"] * count)
    end = len(written.events)
    await written.write(["group.a"] * 3)
    result = await written.replay(["group.a"], after=3, up_to=end)
    newest = [each for each in written.of("group.a") if each.seq <= end][-CHAT_EVENTS:]
    assert result.events == newest
    left_out = [Range("group.a", 4, newest[0].seq - 1)] if count > CHAT_EVENTS else []
    assert result.missing == left_out


async def test_chats_with_many_and_with_few_are_merged(written: Written) -> None:
    await written.write(["group.a", "group.a", "dm.a.b", "group.a", "user.a"] * 700)
    result = await written.replay(["group.a", "dm.a.*", "user.a"], after=0)
    newest = written.of("group.a")[-CHAT_EVENTS:]
    assert result.events == sorted(newest + written.of("dm.a.b", "user.a"))
    assert result.missing == [Range("group.a", 1, newest[0].seq - 1)]


# --- many chats ---


@pytest.mark.parametrize("each", [1, 3])
async def test_more_chats_with_news_than_one_answer_holds(written: Written, each: int) -> None:
    """JetStream tells the last of at most 1,024 subjects at once (413 beyond)."""
    peers = [f"dm.me.{number}" for number in range(700)] + [f"dm.{n}.me" for n in range(500)]
    groups = [f"group.{number}" for number in range(1100)]
    await written.write(["group.a", *(peers + groups) * each])
    await written.write(["dm.not.mine"])
    result = await written.replay(["user.me", "dm.me.*", "dm.*.me", *groups], after=1)
    assert result.events == written.of(*peers, *groups)
    assert result.missing == []


# --- edges ---


async def test_only_what_is_between_cursor_and_end(written: Written) -> None:
    await written.write(["group.a", "group.b"] * 10)
    result = await written.replay(["group.a", "group.b"], after=5, up_to=12)
    assert result.seqs == list(range(6, 13))
    assert (await written.replay(["group.a"], after=20)).seqs == []
    assert (await written.replay(["group.a"], after=19)).seqs == []
    assert (await written.replay(["group.b"], after=19)).seqs == [20]


@pytest.mark.parametrize("filters", [[], ["group.none"], ["dm.x.*", "dm.*.x"]])
async def test_nothing_is_missed_in_nothing(written: Written, filters: list[str]) -> None:
    assert await written.replay(filters, after=0) == ([], [])
    await written.write(["group.a"])
    assert await written.replay(filters, after=0) == ([], [])


async def test_a_floor_is_where_a_chat_begins(written: Written) -> None:
    await written.write(["group.a", "group.b"] * 10)
    floors = {"group.a": 9, "group.b": 99}
    result = await written.replay(["group.a", "group.b"], after=2, floors=floors)
    assert result.seqs == [9, 11, 13, 15, 17, 19]
    assert result.missing == []


# --- a log that has lost its beginning ---


@pytest.mark.parametrize("request_", [{"seq": 13}, {"keep": 8}], ids=["seq", "keep"])
async def test_what_has_left_the_log_is_missing(written: Written, request_: dict[str, int]) -> None:
    await written.write(["group.a", "dm.a.b"] * 10)
    await api(written.bus, "STREAM.PURGE.CHAT", request_)
    first_seq = (await written.log.state()).first_seq
    assert first_seq == 13
    filters = ["group.a", "group.quiet", "dm.a.*"]
    result = await written.replay(filters, after=4, first_seq=first_seq)
    assert result.seqs == list(range(13, 21))
    # All that may have had something: also a group of which nothing is left to see.
    assert result.missing == [
        Range("dm.a.b", 5, 12),
        Range("group.a", 5, 12),
        Range("group.quiet", 5, 12),
    ]


async def test_a_cursor_at_the_very_beginning_of_the_log_misses_nothing(written: Written) -> None:
    await written.write(["group.a"] * 20)
    await api(written.bus, "STREAM.PURGE.CHAT", {"seq": 13})
    result = await written.replay(["group.a"], after=12, first_seq=13)
    assert (result.seqs, result.missing) == (list(range(13, 21)), [])
    result = await written.replay(["group.a"], after=11, first_seq=13)
    assert (result.seqs, result.missing) == (list(range(13, 21)), [Range("group.a", 12, 12)])


async def test_a_long_chat_in_a_log_that_has_lost_its_beginning(written: Written) -> None:
    await written.write(["group.a"] * 2000)
    await api(written.bus, "STREAM.PURGE.CHAT", {"seq": 501})
    result = await written.replay(["group.a"], after=0, first_seq=501)
    assert result.seqs == list(range(1001, 2001))
    assert result.missing == [Range("group.a", 1, 500), Range("group.a", 501, 1000)]


async def test_an_empty_log_that_was_longer(written: Written) -> None:
    await written.write(["group.a"] * 10)
    await api(written.bus, "STREAM.PURGE.CHAT")
    state = await written.log.state()
    assert (state.first_seq, state.last_seq) == (11, 10)
    result = await written.replay(["group.a"], after=4, first_seq=11)
    assert (result.events, result.missing) == ([], [Range("group.a", 5, 10)])


# --- replicas that lag, and no answers ---


class Lagging(Log):
    """Reads are answered by a replica that does not have the newest yet, for a while."""

    def __init__(self, bus: Bus, *, has: int, reads: int):
        super().__init__(bus)
        self._has = has
        self.reads = reads

    async def read(self, subject: str, seq: int, limit: int = 1000) -> Page:
        page = await super().read(subject, seq, limit)
        self.reads -= 1
        if self.reads < 0:
            return page
        return Page([each for each in page.events if each.seq <= self._has], 0)


async def test_a_replica_that_lags_is_asked_again(written: Written) -> None:
    await written.write(["group.a"] * 50)
    for has in (0, 30, 49):
        lagging = Lagging(written.bus, has=has, reads=5)
        result = await written.replay(["group.a"], after=10, log=lagging)
        assert result.seqs == list(range(11, 51))
        assert lagging.reads < 0


async def test_a_replica_that_lags_for_ever_is_an_error(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better to resume again later than to lose the end in silence."""
    monkeypatch.setattr(replay_module, "LAG_RETRIES", 5)
    await written.write(["group.a"] * 50)
    lagging = Lagging(written.bus, has=30, reads=1_000_000)
    with pytest.raises(Unavailable):
        await written.replay(["group.a"], after=10, log=lagging)


class Purging(Log):
    """Everything leaves the log just after the chats with news were found."""

    async def last(self, filters: list[str], *, has: int = 0) -> list[Stored]:
        found = await super().last(filters, has=has)
        await api(self._bus, "STREAM.PURGE.CHAT")
        return found


async def test_what_leaves_the_log_meanwhile_is_not_waited_for(written: Written) -> None:
    await written.write(["group.a"] * 50)
    result = await written.replay(["group.a"], after=10, log=Purging(written.bus))
    assert result.events == []


async def test_no_answer_is_unavailable(written: Written) -> None:
    await written.write(["group.a"] * 5)
    await api(written.bus, "STREAM.DELETE.CHAT")
    with pytest.raises(Unavailable):
        await written.replay(["group.a"], after=0)
