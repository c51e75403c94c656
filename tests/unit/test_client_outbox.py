"""The order of sends, whatever becomes of each of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import Conflict, OutboxFull, RateLimited
from client.outbox import PACED_FOR_S, Entry, Outbox
from edge.frames import Ack, Error, Limits, Result

FAR = 1e9


def entry(number: int, lane: str = "a", *, deadline: float = FAR) -> Entry:
    return Entry(id=number, lane=lane, data=b"", deadline=deadline, client_id=f"c{number}")


def ack(number: int | None, client_id: str = "") -> Ack:
    return Ack(id=number, client_id=client_id, message_id="1", chat_id="c", seq=1, timestamp=0)


def error(
    number: int | None,
    code: str,
    *,
    after_ms: int | None = None,
    client_id: str | None = None,
    seq: int | None = None,
) -> Error:
    return Error(
        code=code, message="", id=number, client_id=client_id, retry_after_ms=after_ms, seq=seq
    )


def due(outbox: Outbox, now: float) -> list[int]:
    return [taken.id for taken in outbox.take_due(now)]


def with_entries(*lanes: str) -> Outbox:
    outbox = Outbox(100)
    for number, lane in enumerate(lanes, 1):
        outbox.add(entry(number, lane))
    return outbox


def test_one_of_each_chat_is_on_the_wire() -> None:
    outbox = with_entries("a", "a", "b", "a")
    assert due(outbox, 0) == [1, 3]
    assert due(outbox, 0) == []
    assert outbox.answered(ack(1)) is not None
    assert due(outbox, 0) == [2]
    assert outbox.next_due() is None


def test_nothing_overtakes_a_send_that_is_tried_again() -> None:
    outbox = with_entries("a", "a", "b")
    assert due(outbox, 0) == [1, 3]
    removed, failure = outbox.refused(error(1, "unavailable", after_ms=500), 0)
    assert removed is None
    assert failure.retryable
    assert due(outbox, 0.4) == []
    assert outbox.next_due() == 0.5
    assert due(outbox, 0.5) == [1]
    assert outbox.answered(ack(3)) is not None, "another chat goes on"


def test_a_rate_limit_halts_all_chats_and_then_spreads_them() -> None:
    outbox = with_entries("a", "b", "c")
    outbox.limits = Limits(messages_per_s=10)
    assert due(outbox, 0) == [1, 2, 3]
    for number in (1, 2, 3):
        outbox.refused(error(number, "rate_limited", after_ms=200), 0)
    outbox.add(entry(4, "d"))
    assert due(outbox, 0.1) == []
    assert due(outbox, 0.21) == [1]
    assert due(outbox, 0.25) == []
    assert due(outbox, 0.32) == [2]
    assert due(outbox, 0.43 + PACED_FOR_S) == [3, 4]


def test_a_rate_limit_without_a_name_sends_everything_again() -> None:
    outbox = with_entries("a", "a", "b")
    assert due(outbox, 0) == [1, 3]
    assert outbox.refused(error(None, "rate_limited", after_ms=100), 0)[0] is None
    assert due(outbox, 0.05) == []
    assert due(outbox, 0.11) == [1]
    assert outbox.answered(ack(3)) is not None, "the first copy's answer counts"
    assert len(outbox) == 2


def test_a_final_error_lets_the_next_one_go() -> None:
    outbox = with_entries("a", "a")
    due(outbox, 0)
    removed, failure = outbox.refused(error(1, "conflict", seq=9), 0)
    assert removed is not None
    assert isinstance(failure, Conflict)
    assert failure.seq == 9
    assert failure.client_id == "c1"
    assert due(outbox, 0) == [2]


def test_a_retry_beyond_the_deadline_is_no_retry() -> None:
    outbox = Outbox(10)
    outbox.add(entry(1, deadline=30))
    due(outbox, 0)
    removed, failure = outbox.refused(error(1, "rate_limited", after_ms=60_000), 0)
    assert removed is not None
    assert isinstance(failure, RateLimited)
    assert failure.retry_after_s == 60


def test_after_a_reconnect_all_goes_again_in_order() -> None:
    outbox = with_entries("b", "a", "b", "c")
    assert due(outbox, 0) == [1, 2, 4]
    outbox.refused(error(2, "overloaded", after_ms=1000), 0)
    outbox.disconnected()
    assert due(outbox, 0.5) == [1, 4], "2 still waits as it was told"
    assert due(outbox, 1) == [2]


def test_who_gave_up_is_out_of_the_way() -> None:
    outbox = with_entries("a", "a")
    first = outbox.take_due(0)[0]
    outbox.remove(first)
    outbox.remove(first)
    assert due(outbox, 0) == [2]
    assert outbox.answered(ack(1)) is None, "a late answer finds nobody"


def test_answers_are_matched_by_client_id_too() -> None:
    outbox = with_entries("a", "b", "c")
    due(outbox, 0)
    assert outbox.answered(ack(None, "c2")) is not None
    assert outbox.refused(error(None, "not_found", client_id="c3"), 0)[0] is not None
    assert outbox.answered(Result(id="text", more=True)) is None
    assert len(outbox) == 1


def test_it_is_bounded() -> None:
    outbox = Outbox(2)
    outbox.add(entry(1))
    outbox.add(entry(2))
    with pytest.raises(OutboxFull):
        outbox.add(entry(3))
    assert outbox.holds("c1")
    assert not outbox.holds("c3")


LANES = st.sampled_from(["a", "b", "c"])
OFTEN = ["add", "send", "ack"]
SELDOM = ["retry", "limit", "unnamed", "final", "cut", "late", "give_up"]
STEPS = st.lists(st.sampled_from([*OFTEN, *OFTEN, *SELDOM]), max_size=80)


@settings(max_examples=300)
@given(STEPS, st.data())
def test_the_server_gets_each_chat_in_order_and_once(steps: list[str], data: st.DataObject) -> None:
    """A server that dedupes by client id, and a connection with every kind of bad luck."""
    outbox = Outbox(1000)
    wire: list[Entry] = []
    limbo: list[Entry] = []
    stored: list[Entry] = []
    acked: set[int] = set()
    now, number = 0.0, 0

    def store(sent: Entry) -> None:
        if sent not in stored:
            stored.append(sent)

    def pick() -> Entry | None:
        return data.draw(st.sampled_from(wire)) if wire else None

    for step in steps:
        now += data.draw(st.sampled_from([0.0, 0.1, 1.0]))
        chosen = pick() if step in ("ack", "retry", "limit", "final") else None
        if chosen is not None:
            wire.remove(chosen)
        match step:
            case "add":
                number += 1
                outbox.add(entry(number, data.draw(LANES)))
            case "send":
                wire += outbox.take_due(now)
            case "ack" if chosen:
                store(chosen)
                if outbox.answered(ack(chosen.id)) is not None:
                    acked.add(chosen.id)
            case "retry" if chosen:
                outbox.refused(error(chosen.id, "unavailable"), now)
            case "limit" if chosen:
                outbox.refused(error(chosen.id, "rate_limited", after_ms=50), now)
            case "final" if chosen:
                outbox.refused(error(chosen.id, "invalid"), now)
            case "unnamed" if wire:
                outbox.refused(error(None, "rate_limited", after_ms=50), now)
            case "cut":  # what was on the wire may still be stored, at any later time
                limbo += wire
                wire.clear()
                outbox.disconnected()
            case "late" if limbo:
                store(limbo.pop(data.draw(st.integers(0, len(limbo) - 1))))
            case "give_up" if wire:
                outbox.remove(wire[-1])
        waiting = {sent.id: sent.lane for sent in wire if outbox.holds(f"c{sent.id}")}
        assert len(waiting) == len(set(waiting.values())), "two of one chat on the wire"

    outbox.disconnected()
    for _ in range(300):
        now += 1.0
        for sent in outbox.take_due(now):
            store(sent)
            assert outbox.answered(ack(sent.id)) is not None
            acked.add(sent.id)
    assert len(outbox) == 0
    assert acked <= {sent.id for sent in stored}
    for lane in "abc":
        order = [sent.id for sent in stored if sent.lane == lane and sent.id in acked]
        assert order == sorted(order), f"chat {lane} was stored as {order}"
