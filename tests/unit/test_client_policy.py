"""The reconnect policy against the table of close codes, and the delays of retries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import errors
from client.policy import (
    BACKOFF_MAX_S,
    TOKEN_TRIES,
    Again,
    Ended,
    Stop,
    after_close,
    backoff_s,
    retry_after_in,
    retry_delay_s,
)
from edge.close_codes import CloseCode
from edge.frames import Error

CODES = st.sampled_from([*map(int, CloseCode), 1002, 1006, 1009, 1011, 3000, 4050, 4150, 4250])
CHANCE = st.floats(0, 1, exclude_max=True)


def decide(
    code: int,
    *,
    failures: int = 1,
    refusals: int = 1,
    can_renew: bool = False,
    chance: float = 0.5,
    reason: str = "",
) -> Again | Stop:
    return after_close(
        Ended(code, reason),
        failures=failures,
        refusals=refusals,
        can_renew=can_renew,
        chance=chance,
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4001, errors.Unauthorized),
        (4002, errors.TokenExpired),
        (4003, errors.Forbidden),
        (4009, errors.TooManyConnections),
        (4013, errors.FrameTooLarge),
        (4022, errors.TooManyBadFrames),
        (4077, errors.ConnectionStopped),
    ],
)
def test_40xx_stops_with_its_own_error(code: int, kind: type[errors.ConnectionStopped]) -> None:
    decision = decide(code, reason="because")
    assert isinstance(decision, Stop)
    assert type(decision.error) is kind
    assert decision.error.close_code == code
    assert "because" in str(decision.error)


@pytest.mark.parametrize("code", [4001, 4002])
def test_a_token_function_is_asked_a_few_times(code: int) -> None:
    assert decide(code, can_renew=True) == Again(0.0, new_token=True)
    assert isinstance(decide(code, refusals=TOKEN_TRIES, can_renew=True), Again)
    assert isinstance(decide(code, refusals=TOKEN_TRIES + 1, can_renew=True), Stop)


@pytest.mark.parametrize("code", [4003, 4009, 4013, 4022])
def test_a_token_function_is_no_help_against_other_refusals(code: int) -> None:
    assert isinstance(decide(code, can_renew=True), Stop)


@pytest.mark.parametrize("code", [4200, 4208, 4299])
def test_42xx_is_at_once_unless_it_repeats(code: int) -> None:
    assert decide(code) == Again(0.0)
    assert decide(code, failures=2) == Again(0.5)
    assert decide(code, failures=4) == Again(2.0)


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4101, 4199])
def test_the_rest_backs_off_with_full_jitter(code: int) -> None:
    ceilings = [1, 2, 4, 8, 16, 30, 30, 30]
    for failures, ceiling in enumerate(ceilings, 1):
        assert decide(code, failures=failures, chance=0.0) == Again(0.0)
        assert decide(code, failures=failures, chance=0.5) == Again(ceiling / 2)


def test_4129_waits_as_long_as_it_was_told() -> None:
    decision = decide(4129, reason='{"retry_after_ms":7000}')
    assert decision == Again(7.5)
    assert decide(4129, reason="slow down") == Again(0.5)


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("retry_after_ms=1500", 1.5),
        ('{"retry_after_ms": 250}', 0.25),
        ("retry_after_ms: 1000", 1.0),
        ("", None),
        ("retry later", None),
    ],
)
def test_the_reason_is_read_in_any_form(reason: str, seconds: float | None) -> None:
    assert retry_after_in(reason) == seconds


@given(CODES, st.integers(1, 10_000), st.integers(1, 10), st.booleans(), CHANCE)
def test_the_policy_holds_for_everything(
    code: int, failures: int, refusals: int, can_renew: bool, chance: float
) -> None:
    decision = decide(
        code, failures=failures, refusals=refusals, can_renew=can_renew, chance=chance
    )
    if isinstance(decision, Stop):
        assert 4000 <= code < 4100
        return
    assert 0 <= decision.delay_s < BACKOFF_MAX_S
    assert decision.new_token == (code in (4001, 4002))
    assert not 4000 <= code < 4100 or (can_renew and decision.new_token)
    if failures >= 3 and chance > 0:
        assert decision.delay_s > 0, "no hot loop, whatever the code is"


@given(st.integers(-5, 10**6), CHANCE)
def test_backoff_is_bounded(failures: int, chance: float) -> None:
    assert 0 <= backoff_s(failures, chance) < BACKOFF_MAX_S


def test_the_servers_word_on_retrying_goes_first() -> None:
    told = Error(code="rate_limited", message="", retry_after_ms=40)
    assert retry_delay_s(told, attempts=9, chance=0.9) == 0.04
    at_once = Error(code="rate_limited", message="", retry_after_ms=0)
    assert retry_delay_s(at_once, attempts=1, chance=0.9) > 0
    silent = Error(code="overloaded", message="")
    delays = [retry_delay_s(silent, attempts=n, chance=0.0) for n in range(1, 9)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5, 2.5, 2.5]
