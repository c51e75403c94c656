"""Message ids: never the same twice, whatever the clock does."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import Unavailable
from broker.snowflake import EPOCH_MS, MACHINES, SEQUENCES, Snowflake, timestamp_ms, unix_ms

START_MS = EPOCH_MS + 1_000_000_000
HOUR_MS = 3_600_000

unhurried = settings(deadline=None, max_examples=50)
machines = st.integers(0, MACHINES - 1)
jumps = st.one_of(
    st.integers(-3, 3), st.integers(-2000, 2000), st.sampled_from([-HOUR_MS, HOUR_MS, -START_MS])
)
steps = st.lists(
    st.tuples(jumps, st.integers(0, 20) | st.integers(0, 20) | st.just(SEQUENCES + 5)), max_size=8
)
"""How far the clock moves, and how many ids are made then."""


class Clock:
    def __init__(self, now_ms: int = START_MS):
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def take(ids: Snowflake, count: int) -> list[int]:
    """Up to `count` ids; fewer when the ceiling is reached."""
    taken: list[int] = []
    for _ in range(count):
        try:
            taken.append(ids.next())
        except Unavailable:
            break
    return taken


def run(ids: Snowflake, clock: Clock, moves: list[tuple[int, int]]) -> list[int]:
    taken: list[int] = []
    for jump_ms, count in moves:
        clock.now_ms += jump_ms
        taken += take(ids, count)
    return taken


@unhurried
@given(machines, steps)
def test_ids_grow_whatever_the_clock_does(machine: int, moves: list[tuple[int, int]]) -> None:
    clock = Clock()
    ids = Snowflake(machine, floor_ms=START_MS - 1, clock=clock)
    ids.ceiling_ms = START_MS + 10 * HOUR_MS
    taken = run(ids, clock, moves)
    assert len(taken) == sum(count for _, count in moves)
    assert all(one < other for one, other in pairwise(taken))


@unhurried
@given(machines, steps, st.integers(0, 3000), st.integers(0, 3000))
def test_no_id_is_past_the_ceiling(
    machine: int, moves: list[tuple[int, int]], ahead_ms: int, raised_ms: int
) -> None:
    clock = Clock()
    ids = Snowflake(machine, floor_ms=START_MS, clock=clock)
    ids.ceiling_ms = START_MS + ahead_ms
    early = run(ids, clock, moves)
    assert all(START_MS < timestamp_ms(each) <= START_MS + ahead_ms for each in early)
    ids.ceiling_ms += raised_ms
    late = run(ids, clock, moves)
    assert all(timestamp_ms(each) <= START_MS + ahead_ms + raised_ms for each in late)
    assert len({*early, *late}) == len(early) + len(late)


@unhurried
@given(machines, machines, steps, steps, jumps)
def test_whoever_starts_above_the_record_repeats_nothing(
    machine: int,
    other_machine: int,
    moves: list[tuple[int, int]],
    later_moves: list[tuple[int, int]],
    step_ms: int,
) -> None:
    """The number passes on with what its last holder had recorded, the clock steps in between."""
    clock = Clock()
    first = Snowflake(machine, floor_ms=START_MS - 1, clock=clock)
    first.ceiling_ms = recorded_ms = START_MS + 5
    taken = run(first, clock, moves)
    clock.now_ms += step_ms
    for successor, floor_ms in ((machine, recorded_ms), (machine, first.last_ms)):
        second = Snowflake(successor, floor_ms=floor_ms, clock=clock)
        second.ceiling_ms = floor_ms + HOUR_MS
        assert not {*taken} & {*run(second, clock, later_moves)}
    if other_machine != machine:
        other = Snowflake(other_machine, floor_ms=START_MS - 1, clock=clock)
        other.ceiling_ms = recorded_ms
        assert not {*taken} & {*run(other, clock, moves)}


@unhurried
@given(machines, st.integers(EPOCH_MS + 1, EPOCH_MS + 2**41 - 1))
def test_an_id_has_41_bits_of_time_10_of_machine_12_of_sequence(machine: int, now_ms: int) -> None:
    ids = Snowflake(machine, floor_ms=0, clock=lambda: now_ms)
    ids.ceiling_ms = now_ms
    for sequence in range(5):
        message_id = ids.next()
        assert message_id < 2**63
        assert timestamp_ms(message_id) == now_ms
        assert message_id >> 12 & 0x3FF == machine
        assert message_id & 0xFFF == sequence


def test_a_millisecond_has_4096_ids_and_then_the_next_is_used() -> None:
    ids = Snowflake(7, floor_ms=0, clock=Clock())
    ids.ceiling_ms = START_MS + 1
    times = [timestamp_ms(each) for each in take(ids, 10_000)]
    assert times == [START_MS] * SEQUENCES + [START_MS + 1] * SEQUENCES
    assert ids.last_ms == START_MS + 1


def test_before_the_lease_is_recorded_there_are_no_ids() -> None:
    ids = Snowflake(7, floor_ms=START_MS, clock=Clock(START_MS + HOUR_MS))
    with pytest.raises(Unavailable):
        ids.next()
    ids.ceiling_ms = START_MS + 1
    assert timestamp_ms(ids.next()) == START_MS + 1


def _stopped_in_1970() -> int:
    return 12_345


@pytest.mark.parametrize("clock", [_stopped_in_1970, lambda: EPOCH_MS - 1], ids=["1970", "2023"])
def test_a_clock_before_2024_makes_no_negative_ids(clock: Callable[[], int]) -> None:
    """A machine without a battery starts in 1970."""
    ids = Snowflake(7, floor_ms=0, clock=clock)
    ids.ceiling_ms = max(clock(), ids.last_ms) + 1000
    taken = take(ids, SEQUENCES + 1)
    assert len(taken) == SEQUENCES + 1
    assert all(0 < each < 2**63 for each in taken)


def test_the_wall_clock_is_in_milliseconds() -> None:
    ids = Snowflake(7, floor_ms=0)
    ids.ceiling_ms = unix_ms() + HOUR_MS
    before = unix_ms()
    assert before <= timestamp_ms(ids.next()) <= unix_ms()
