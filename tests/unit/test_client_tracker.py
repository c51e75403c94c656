"""Which events are new, where to resume, and what a catch-up that was cut means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.position import Position
from client.tracker import STALLS_BEFORE_SKIP, Tracker
from edge.frames import CaughtUp, Limits, MemberAdded, Missing, ServerInfo, Welcome

from .test_client_server import message


def welcome(cursor: str) -> Welcome:
    return Welcome(
        user_id="alice",
        device="d",
        session="s",
        epoch=cursor.rpartition(":")[0],
        cursor=cursor,
        heartbeat_s=30,
        limits=Limits(),
        server=ServerInfo(name="n", version="0", site="s"),
    )


def caught_up(cursor: str, *, recovered: bool = True) -> CaughtUp:
    return CaughtUp(cursor=cursor, recovered=recovered)


@pytest.mark.parametrize("text", ["", "e", "e:", ":5", "e:-1", "e:1/", "e:1/x", "e:1.5", "e:٣"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Position.parse(text)


@given(st.text(min_size=1), st.integers(0, 2**63), st.none() | st.integers(0, 2**63))
def test_a_position_survives_its_text(epoch: str, seq: int, since: int | None) -> None:
    position = Position(epoch, seq, since)
    assert Position.parse(str(position)) == position


def test_without_a_cursor_it_begins_where_the_server_is() -> None:
    tracker = Tracker(None)
    assert tracker.resume_cursor() is None
    tracker.welcome(welcome("e1:40"))
    assert tracker.position == Position("e1", 40)
    assert tracker.resume_cursor() == "e1:40"


def test_a_restored_log_may_go_on_from_where_it_is() -> None:
    tracker = Tracker(Position("old", 7))
    tracker.welcome(welcome("new:7"))
    assert tracker.admit(message(8))
    assert tracker.resume_cursor() == "new:7"
    assert tracker.caught_up(caught_up("new:9")).recovered
    assert tracker.position == Position("new", 9)


@pytest.mark.parametrize("start", [Position("old", 8), Position("old", 8, 7), Position("old", 6)])
def test_a_restored_log_that_does_not_is_another(start: Position) -> None:
    tracker = Tracker(start)
    tracker.welcome(welcome("new:7"))
    assert tracker.position is None
    assert not tracker.caught_up(caught_up("new:9")).recovered


def test_each_event_is_taken_once() -> None:
    tracker = Tracker(None)
    tracker.welcome(welcome("e1:0"))
    assert tracker.admit(message(1))
    assert not tracker.admit(message(1)), "the same seq again"
    assert not tracker.admit(message(2, id=message(1).id)), "the same message with another seq"
    assert tracker.admit(message(3))
    assert tracker.admit(MemberAdded(seq=4, chat_id="group.g", group_id="g", by="b", users=["c"]))
    assert tracker.resume_cursor() == "e1:4"


def test_remembered_ids_are_bounded() -> None:
    tracker = Tracker(None, remember=2)
    tracker.welcome(welcome("e1:0"))
    assert [tracker.admit(message(n, id=str(n))) for n in (1, 2, 3)] == [True, True, True]
    assert tracker.admit(message(4, id="1")), "1 is forgotten by now"
    assert not tracker.admit(message(5, id="3"))


def test_a_catch_up_that_was_cut_is_begun_again() -> None:
    tracker = Tracker(Position("e1", 100))
    tracker.welcome(welcome("e1:300"))
    assert tracker.admit(message(150))
    assert tracker.position == Position("e1", 150, since=100)
    assert tracker.resume_cursor() == "e1:100", "or what was missing before 150 is never told"
    tracker.welcome(welcome("e1:300"))
    assert not tracker.admit(message(150))
    assert tracker.admit(message(300))
    missing = [Missing(chat_id="c", from_seq=101, to_seq=149)]
    end = tracker.caught_up(CaughtUp(cursor="e1:310", recovered=True, missing=missing))
    assert end.recovered
    assert end.missing == missing
    assert tracker.position == Position("e1", 310)


def test_a_catch_up_that_never_gets_further_is_skipped_and_said_so() -> None:
    tracker = Tracker(Position("e1", 100))
    tracker.welcome(welcome("e1:300"))
    assert tracker.admit(message(150))
    for _ in range(STALLS_BEFORE_SKIP):
        assert tracker.resume_cursor() == "e1:100"
        assert tracker.resume_cursor() == "e1:100", "failing to connect is no stall"
        tracker.welcome(welcome("e1:300"))
        assert not tracker.admit(message(150))
    assert tracker.resume_cursor() == "e1:150"
    tracker.welcome(welcome("e1:300"))
    assert tracker.admit(message(300))
    assert not tracker.caught_up(caught_up("e1:300")).recovered
    assert tracker.caught_up(caught_up("e1:301")).recovered, "said only once"


def test_a_new_epoch_is_said_even_if_the_connection_was_cut_before() -> None:
    tracker = Tracker(Position("old", 500))
    tracker.welcome(welcome("new:10"))
    assert tracker.admit(message(11)), "numbers of another log say nothing"
    assert tracker.position is None, "nothing is stored before the application knows"
    assert tracker.resume_cursor() == "old:500"
    tracker.welcome(welcome("new:12"))
    assert not tracker.caught_up(caught_up("new:12")).recovered
    assert tracker.position == Position("new", 12)
    assert tracker.admit(message(13))
    assert not tracker.admit(message(12))


def test_the_end_of_a_catch_up_never_goes_back() -> None:
    tracker = Tracker(Position("e1", 100))
    tracker.welcome(welcome("e1:100"))
    assert tracker.admit(message(120))
    tracker.caught_up(caught_up("e1:110"))
    assert tracker.position == Position("e1", 120)


@given(st.data())
def test_over_any_cuts_every_event_comes_once_and_in_order(data: st.DataObject) -> None:
    """The server replays from the cursor it is given; connections end at random places."""
    log = data.draw(st.lists(st.integers(1, 60), unique=True, max_size=25).map(sorted))
    tracker = Tracker(Position("e", 0))
    taken: list[int] = []
    for _ in range(data.draw(st.integers(0, 6))):
        cursor = tracker.resume_cursor()
        assert cursor is not None
        after = Position.parse(cursor).seq
        tracker.welcome(welcome(f"e:{log[-1] if log else 0}"))
        replay = [seq for seq in log if seq > after]
        sent = data.draw(st.integers(0, len(replay)))
        taken += [seq for seq in replay[:sent] if tracker.admit(message(seq))]
        if sent == len(replay) and data.draw(st.booleans()):
            tracker.caught_up(caught_up(f"e:{log[-1] if log else 0}"))
    assert taken == log[: len(taken)]
