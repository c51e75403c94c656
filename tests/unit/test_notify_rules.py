"""Who gets a push, and when, as pure functions."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.events import Chat, GroupChat
from broker.presence import Connection, Setting, State
from store.devices import DEFAULTS, SettingsRecord
from workers import notify_rules as rules
from workers.push.breaker import FAILURES, FIRST_PAUSE_S, LAST_PAUSE_S, Breaker
from workers.push.delivery import FIRST_PAUSE_S as FIRST_RETRY_S
from workers.push.delivery import LAST_PAUSE_S as LAST_RETRY_S
from workers.push.delivery import pause_after

NIGHT = ("22:00", "07:00", "Europe/Zurich")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "quiet"),
    [
        ("2026-01-15 20:59:59", False),  # 21:59:59 in Zurich
        ("2026-01-15 21:00:00", True),
        ("2026-01-15 23:30:00", True),
        ("2026-01-16 05:59:59", True),
        ("2026-01-16 06:00:00", False),
        ("2026-07-15 20:00:00", True),  # 22:00 in summer
        ("2026-07-15 19:59:59", False),
        ("2026-07-16 05:00:00", False),
        ("2026-03-29 00:30:00", True),  # an hour before the clocks go forward
        ("2026-03-29 05:00:00", False),
    ],
)
def test_quiet_hours_past_midnight(now: str, quiet: bool) -> None:
    assert rules.is_quiet(NIGHT, at(now)) is quiet


def test_quiet_hours_of_one_day_and_none() -> None:
    lunch = ("12:00", "13:30", "America/New_York")
    assert rules.is_quiet(lunch, at("2026-01-15 17:00:00"))
    assert not rules.is_quiet(lunch, at("2026-01-15 18:30:00"))
    assert not rules.is_quiet(None, at("2026-01-15 18:30:00"))
    assert "Europe/Zurich" in rules.zones()


def known(*statuses: Any, mode: Any = "") -> State:
    return State([Connection(0, each) for each in statuses], Setting(mode), None)


@pytest.mark.parametrize(
    ("state", "away_counts", "here"),
    [
        (known(), True, False),
        (known("online"), False, True),
        (known("away"), True, True),
        (known("away"), False, False),
        (known("away", "online"), False, True),
        (known("online", mode="invisible"), True, True),
        (known(mode="invisible"), True, False),
        (known("online", mode="dnd"), True, True),
    ],
)
def test_who_is_here(state: State, away_counts: bool, here: bool) -> None:
    assert rules.is_here(state, away_counts=away_counts) is here


@pytest.mark.parametrize(
    ("state", "settings", "muted", "mention", "expected"),
    [
        (known(), DEFAULTS, False, False, None),
        (known(), DEFAULTS, True, False, "muted"),
        (known(), DEFAULTS, True, True, None),
        (known(), SettingsRecord(mentions=False), True, True, "muted"),
        (known(), SettingsRecord(mentions=False), False, True, None),
        (known(), SettingsRecord(quiet=NIGHT), False, True, "quiet"),
        (known(mode="dnd"), DEFAULTS, False, True, "quiet"),
        (known(mode="invisible"), DEFAULTS, False, False, None),
    ],
)
def test_what_silences(
    state: State, settings: SettingsRecord, muted: bool, mention: bool, expected: str | None
) -> None:
    now = at("2026-01-15 23:00:00")
    found = rules.silenced(state, settings, muted=muted, mention=mention, now=now)
    assert found == expected


@pytest.mark.parametrize(
    ("size", "kind", "vip", "mention", "expected"),
    [
        (2, "group", False, False, "now"),
        (50, "group", False, False, "now"),
        (51, "group", False, False, "coalesced"),
        (51, "group", False, True, "now"),
        (51, "group", True, False, "now"),
        (500, "channel", False, False, "coalesced"),
        (501, "channel", False, False, None),
        (501, "channel", False, True, "now"),
        (501, "channel", True, False, "now"),
        (501, "group", False, False, "coalesced"),
    ],
)
def test_when(size: int, kind: Any, vip: bool, mention: bool, expected: str | None) -> None:
    assert rules.when(size, kind, vip=vip, mention=mention) == expected


def said(kind: type[Any], **fields: Any) -> Any:
    common = {"id": "1", "chat_id": "x", "content": "", "content_type": "text"}
    return kind(from_="alice", timestamp=1, client_id="1", **common, **fields)


def test_nobody_is_told_of_what_he_wrote() -> None:
    assert rules.readers_of_dm(said(Chat, to="alice")) == []
    assert rules.readers_of_dm(said(Chat, to="bob")) == ["bob"]
    event = said(GroupChat, group_id="g", mentions=["bob", "alice", "bob"])
    assert rules.asked_in_large(event, ["carol", "alice", "bob"]) == ["bob", "carol"]


# --- what fails -----------------------------------------------------------------------------------


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert not breaker.open
        breaker.begin()
        breaker.failed(now)
    assert breaker.open
    return breaker


def test_a_breaker_opens_after_failures_in_a_row() -> None:
    breaker = opened()
    assert breaker.wait_s(100.0) == FIRST_PAUSE_S
    assert breaker.wait_s(100.0 + FIRST_PAUSE_S) == 0.0
    breaker = Breaker()
    for _ in range(FAILURES * 3):
        breaker.begin()
        breaker.failed(100.0)
        breaker.begin()
        breaker.succeeded()
    assert not breaker.open


def test_one_push_probes_and_the_pause_grows_to_a_limit() -> None:
    breaker, now, pauses = opened(), 100.0, []
    for _ in range(10):
        now += breaker.wait_s(now)
        breaker.begin()
        assert breaker.wait_s(now) > 0, "a second one waits"
        breaker.failed(now)
        pauses.append(breaker.wait_s(now))
    assert pauses[:3] == [FIRST_PAUSE_S * 2, FIRST_PAUSE_S * 4, FIRST_PAUSE_S * 8]
    assert pauses[-1] == LAST_PAUSE_S
    now += breaker.wait_s(now)
    breaker.begin()
    breaker.succeeded()
    assert not breaker.open
    assert breaker.wait_s(now) == 0.0


def test_a_probe_that_is_broken_off_leaves_room_for_another() -> None:
    breaker = opened()
    breaker.begin()
    breaker.unclear()
    assert breaker.wait_s(100.0 + FIRST_PAUSE_S) == 0.0
    assert breaker.open


def test_pauses_grow_with_jitter() -> None:
    for attempts in (1, 2, 5, 9, 1000):
        most_s = min(FIRST_RETRY_S * 2.0 ** (attempts - 1), LAST_RETRY_S)
        found = {pause_after(attempts) for _ in range(50)}
        assert all(most_s / 2 <= each <= most_s for each in found)
        assert len(found) > 1
