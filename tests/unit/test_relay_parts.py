"""Parts of the relay without servers: limits, and what is asked about who submits."""

import asyncio
from typing import Any, cast

import pytest

from broker import events, sites, subjects
from broker.bus import Bus
from store.directory import Directory, Role
from store.errors import NotMember
from workers.relay import limits
from workers.relay.homing import Homing, Members
from workers.relay.limits import Bucket, Limits

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
