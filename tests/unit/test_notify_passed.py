"""What is remembered of messages that were not pushed, and when it is decided."""

import pytest

from broker.mirror import Value
from workers import notify_passed
from workers.notify_passed import Ask, Passed

THERE = Value(1, b"{}")
GONE = Value(2, b"")


def ask(user: str = "bob", seq: int = 1) -> Ask:
    return Ask(user, False, f"dm.alice.{user}", None, seq, seq, 0)


def passed(*living: str) -> Passed:
    return Passed(set(living), lease_s=10, pong_timeout_s=90)


def fate(of: Passed, keys: dict[str, Value], now: float) -> str:
    [entry] = of.doubted(now)
    return of.fate(entry, keys, now)


def test_who_said_goodbye_has_got_it() -> None:
    found = passed("e1", "e2")
    found.add(ask(), ["e1.a", "e2.b"], 100)
    assert found.lost("bob", "a", 80, 150)
    assert fate(found, {"e1.a": GONE}, 150) == "got"


def test_who_was_heard_after_it_was_sent_has_got_it() -> None:
    found = passed("e1")
    found.add(ask(), ["e1.a"], 100)
    found.lost("bob", "a", 30, 150)
    assert fate(found, {}, 150) == "got"


@pytest.mark.parametrize("keys", [{}, {"e1.a": GONE}, {"e1.a": THERE}])
def test_who_was_not_heard_since_has_not(keys: dict[str, Value]) -> None:
    """Whether its key has gone already or not."""
    found = passed("e1")
    found.add(ask(), ["e1.a"], 100)
    found.lost("bob", "a", 90, 150)
    assert fate(found, keys, 150) == "lost"
    assert list(found.connections(keys)) == []


def test_what_was_told_while_nats_was_away_is_found_in_the_bucket() -> None:
    found = passed("e1")
    found.add(ask(), ["e1.a"], 100)
    found.doubt_all()
    assert fate(found, {"lost.a": THERE}, 150) == "lost"


def test_who_is_here_on_another_device_stays_in_doubt() -> None:
    found = passed("e1", "e2")
    found.add(ask(), ["e1.a", "e2.b"], 100)
    keys = {"e1.a": THERE, "e2.b": THERE}
    assert list(found.connections(keys)) == ["e1.a", "e2.b"]
    found.lost("bob", "a", 90, 150)
    assert fate(found, keys, 150) == "here"
    assert list(found.connections(keys)) == ["e2.b"]
    found.lost("bob", "b", 90, 151)
    assert fate(found, keys, 151) == "lost"


def test_an_edge_that_died_takes_along_what_came_since_its_lease_may_have_ended() -> None:
    living = {"e1"}
    found = Passed(living, lease_s=10, pong_timeout_s=90)
    found.add(ask(seq=1), ["e1.a"], 100)
    found.add(ask(seq=2), ["e1.a"], 140)
    found.doubt_edges()
    assert found.doubted(150) == []
    living.clear()
    found.doubt_edges()
    entries = found.doubted(150)
    assert [found.fate(each, {}, 150) for each in entries] == ["got", "lost"]


def test_it_is_remembered_as_long_as_a_silent_connection_lasts() -> None:
    found = passed("e1")
    found.add(ask(), ["e1.a"], 100)
    found.doubt(["bob"])
    assert len(found.doubted(199)) == 1
    assert found.doubted(199) == [], "each doubt is looked at once"
    found.doubt(["bob"])
    assert found.doubted(201) == []
    assert not found.lost("bob", "a", 90, 201)


def test_beyond_the_bound_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_passed, "PASSED", 2)
    found = passed("e1")
    for number, user in enumerate(("bob", "carol", "bob")):
        found.add(ask(user, number), ["e1.a"], 100 + number)
    assert (len(found), found.forgotten) == (2, 1)
    found.doubt_all()
    entries = found.doubted(110)
    assert [each.ask.seq for each in entries] == [1, 2]
    found.drop(entries)
    assert len(found) == 0
