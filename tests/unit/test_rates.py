"""Rates: what a token bucket and strikes allow over any time; no clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rates import MINUTE_S, Strikes, TokenBucket

steps = st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=200)


def test_a_burst_then_one_for_each_interval() -> None:
    bucket = TokenBucket(2, 3, 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(100.25) == 0.25
    assert bucket.take(100.5) == 0
    assert bucket.take(100.5) == 0.5
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


@given(steps, st.floats(0.1, 100), st.integers(1, 50))
def test_never_more_than_the_burst_and_the_rate(gaps: list[float], rate: float, burst: int) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        while bucket.take(now) == 0:
            taken.append(now)
            if len(taken) > 5_000:
                return
    for start in range(0, len(taken), max(1, len(taken) // 20)):
        allowed = burst + (taken[-1] - taken[start]) * rate + 1e-6
        assert len(taken) - start <= allowed


@given(steps, st.floats(0.1, 100), st.integers(1, 50))
def test_after_the_wait_that_it_names_there_is_one(
    gaps: list[float], rate: float, burst: int
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    for gap in gaps:
        now += gap
        wait_s = bucket.take(now)
        if wait_s > 0:
            assert wait_s <= 1 / rate + 1e-9
            now += wait_s + 1e-6
            assert bucket.take(now) == 0


def test_strikes_are_counted_for_a_minute() -> None:
    strikes = Strikes(3)
    assert [strikes.strike(second) for second in (0.0, 1.0, 2.0)] == [False] * 3
    assert strikes.strike(3.0) is True
    assert strikes.strike(MINUTE_S + 0.5) is True
    strikes = Strikes(3)
    assert [strikes.strike(second * 20.0) for second in range(50)] == [False] * 50


@pytest.mark.parametrize("limit", [1, 10, 600])
def test_one_more_than_the_limit_within_a_minute_is_too_many(limit: int) -> None:
    strikes = Strikes(limit)
    gap = MINUTE_S / (limit + 1)
    struck = [strikes.strike(number * gap) for number in range(limit + 1)]
    assert struck == [False] * limit + [True]
