"""Parts of the relay without servers: limits, and what is asked about who submits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from msgspec import Raw

from broker import events, lag, outbox, sites, subjects
from broker.bus import Bus
from broker.errors import Unavailable
from broker.federation import Postal
from broker.links import Links
from broker.log import Page, Stored
from broker.sites import Sites
from store.directory import Directory, Role
from store.errors import NotMember
from store.mirrored import Mirrored
from workers.relay import limits
from workers.relay.homing import Homing, Members
from workers.relay.limits import Bucket, Limits
from workers.relay.submissions import Submissions
from workers.relay.telling import Teller
from workers.relay.whispers import Whispers

pytestmark = pytest.mark.anyio


def test_a_bucket_gives_what_came_in() -> None:
    bucket = Bucket(10, 0.0)
    assert bucket.take(1000, 0.0) == 20, "two seconds' worth"
    assert bucket.take(1000, 0.0) == 0
    assert bucket.take(3, 0.5) == 3
    assert bucket.take(1000, 0.5) == 2
    assert bucket.take(1000, 99.0) == 20


async def test_some_are_always_let_through() -> None:
    """Also when fewer than one a second are; whoever waits is counted."""
    allowed = Limits(5.0, lambda _: True)
    assert await allowed.parcels("osaka", 10) == 10
    assert not allowed.slowed
    assert 1 <= await allowed.parcels("osaka", 10) <= 6
    assert allowed.slowed == {"osaka": 1}
    assert await allowed.parcels("kyoto", 10) == 10, "each site has its own"


async def test_strangers_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names they give themselves."""
    monkeypatch.setattr(limits, "QUESTIONS_PER_S", 2.0)
    allowed = Limits(5.0, lambda site: site == "osaka")
    answered = sum(allowed.question(f"x{n}") for n in range(100))
    assert answered == 4
    assert allowed.unanswered == {"a site that is not linked": 96}
    assert allowed.question("osaka")


async def test_what_comes_at_once_after_a_cut_names_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(limits, "_now", lambda: now)
    allowed = Limits(5.0, lambda _: True)
    for at in (1000.0, 1000.1, 1100.0, 1100.5):
        now = at
        allowed.drop("osaka", "over 16 questions at a time")
    assert allowed.unanswered == {"osaka": 4}
    assert not caplog.records
    now = 1103.0
    allowed.drop("osaka", "over 16 questions at a time")
    (said,) = [each.getMessage() for each in caplog.records]
    assert said == "osaka is over its limit, over 16 questions at a time: some are not answered"


class _Directory:
    """Has one member, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def role(self, group_id: str, user: str) -> Role:
        self.asked += 1
        await asyncio.sleep(0)
        if user != "bob@osaka":
            raise NotMember(f"{user!r} is not in {group_id!r}")
        return "member"


async def test_a_member_is_asked_for_once_a_batch() -> None:
    directory = _Directory()
    homing = Homing(cast(Bus, None), cast(Directory, directory))
    members: Members = set()
    for number in range(3):
        assert await homing.refusal(_said("bob@osaka", number), members) is None
    assert directory.asked == 1
    for number in range(2):
        refusal = await homing.refusal(_said("eve@osaka", number), members)
        assert refusal is not None
        assert refusal.code == "not_member"
    assert directory.asked == 3
    assert await homing.refusal(_said("bob@osaka", 9), set()) is None
    assert directory.asked == 4


class _Lagging:
    """An outbox with one submission, that a replica has only when it is read the third time."""

    def __init__(self, event: events.GroupChat):
        parcel = outbox.Submitted(chat_id=event.chat_id, data=Raw(events.encode(event)))
        subject = outbox.submission("osaka", event.chat_id)
        self.stored = [Stored(7, subject, outbox.encode(parcel))]
        self.read_times = 0

    async def read(self, subject: str, seq: int) -> Page:
        await asyncio.sleep(0)
        assert subject == self.stored[0].subject
        self.read_times += 1
        there = self.stored if self.read_times > 2 else []
        return Page([each for each in there if each.seq >= seq], 0)

    async def newest(self, subject: str) -> int:
        await asyncio.sleep(0)
        assert subject == self.stored[0].subject
        return 7


async def test_what_a_replica_has_not_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    event = _said("alice", 1)
    refusal = outbox.Refusal(
        chat_id=event.chat_id, by="alice", client_id="1", id="1", code="not_member", message=""
    )
    asked: list[tuple[Callable[[Submissions], Awaitable[bool]], bool]] = [
        (lambda found: found.find("osaka", event), True),
        (lambda found: found.refused("osaka", refusal), True),
        (lambda found: found.find("osaka", _said("alice", 2)), False),
    ]
    for find, there in asked:
        found = Submissions(cast(Bus, None))
        log = _Lagging(event)
        monkeypatch.setattr(found, "_log", log)
        assert await find(found) is there
        assert log.read_times >= 3


async def test_a_replica_that_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of what it may have; the peer sends it again."""
    monkeypatch.setattr(lag, "LAG_S", 0.2)
    log = _Lagging(_said("alice", 1))
    log.read_times = -(10**6)
    found = Submissions(cast(Bus, None))
    monkeypatch.setattr(found, "_log", log)
    with pytest.raises(Unavailable, match="behind"):
        await found.find("osaka", _said("alice", 1))


LATER = b'{"type":"of a later version","chat_id":"dm.bob=40osaka.alice"}'
"""An event of a kind that is not known here, as while edges are updated before the relay."""


def _one_peer() -> Sites:
    linked = Sites("tokyo", cast(Bus, None), cast(Bus, None), lambda: None)
    linked.peers = {"osaka": sites.Peer()}
    linked.names = sites.Names("tokyo", frozenset(linked.peers))
    return linked


async def test_an_event_of_a_later_version_is_not_told() -> None:
    """And nothing else is held up."""
    teller = Teller(
        *(cast(Bus, None), cast(Links, None), _one_peer(), cast(Mirrored, None)), lambda: None
    )
    event = Stored(5, subjects.user("bob@osaka"), LATER)
    assert await teller._parcels(event) == {}
    assert teller.unreadable == 1


async def test_a_whisper_of_a_later_version_is_not_told() -> None:
    chat_id = subjects.dm("alice", "bob@osaka")
    typing = events.Typing(chat_id=chat_id, from_="alice")
    whispers = Whispers(cast(Bus, None), cast(Postal, None), _one_peer(), cast(Mirrored, None))
    heard = [LATER, b"\xff", events.encode(typing)]
    await whispers._sort([(chat_id, b"alice\n" + each) for each in heard])
    await whispers._sort([(chat_id, b"\xff\n" + events.encode(typing))])
    assert whispers._waiting == {"osaka": [typing]}
    assert whispers.unreadable == 3


async def test_a_submission_of_a_later_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is before another one that came back."""
    event = _said("alice", 1)
    log = _Lagging(event)
    log.read_times = 2
    later = outbox.encode(outbox.Submitted(chat_id=event.chat_id, data=Raw(LATER)))
    log.stored.insert(0, Stored(6, log.stored[0].subject, later))
    found = Submissions(cast(Bus, None))
    monkeypatch.setattr(found, "_log", log)
    assert await found.find("osaka", event)


def _said(by: str, number: int) -> events.GroupChat:
    fields: dict[str, Any] = {"id": f"{number}", "client_id": f"{number}", "timestamp": number}
    return events.GroupChat(
        **fields,
        chat_id=subjects.group("g"),
        from_=by,
        group_id="g",
        content="x",
        content_type="text",
    )


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [((0, 31), (32, 63), False), ((0, 31), (31, 63), True), ((0, 1023), (5, 5), True)],
)
def test_machine_numbers(one: tuple[int, int], other: tuple[int, int], share: bool) -> None:
    assert sites.overlap(one, other) is share
    assert sites.overlap(other, one) is share
