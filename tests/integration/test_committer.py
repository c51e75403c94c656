"""The committer on a real server: group commit, duplicates, expected sequences, bounds."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker import committer as committer_module
from broker.bus import MAX_PAYLOAD_BYTES, Bus
from broker.committer import Committed, Committer, Outcome
from broker.config import BrokerConfig
from broker.declared import declared
from broker.errors import Conflict, Overloaded, Refused, Unavailable
from broker.log import STREAM, Log
from broker.streams import MAX_EVENT_BYTES, ensure
from tests.brokers import (
    Event,
    Outcomes,
    all_events,
    api,
    batch_at,
    event_at,
    last_seq,
    make_bus,
    prepare,
)
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with make_bus(nats.url) as bus:
        await prepare(bus)
        yield bus


@pytest.fixture
async def committer(bus: Bus) -> AsyncIterator[Committer]:
    async with Committer(bus, Log(bus)) as committer:
        yield committer


async def test_a_message_is_stored(bus: Bus, committer: Committer) -> None:
    assert await committer.commit("group.a", b"{1}", msg_id="m1") == Committed(1)
    assert await committer.commit("dm.a.b", b"{2}", msg_id="m2") == Committed(2)
    assert await all_events(bus) == [
        Event(1, "group.a", "m1", b"{1}"),
        Event(2, "dm.a.b", "m2", b"{2}"),
    ]
    assert (committer.committed, committer.commits, committer.failed) == (2, 2, 0)


# --- batches ---


async def test_what_waits_is_one_commit_in_order(bus: Bus, committer: Committer) -> None:
    outcomes = Outcomes()
    for number in range(300):
        name = f"m{number}"
        committer.submit(f"group.g{number % 7}", b"%d" % number, msg_id=name, done=outcomes(name))
    assert committer.waiting == 300
    await committer.drain(10)
    assert committer.commits == 1
    assert committer.waiting == 0
    assert len({await batch_at(bus, seq) for seq in range(1, 301)} - {""}) == 1
    assert await batch_at(bus, 1)
    stored = await all_events(bus)
    assert [each.data for each in stored] == [b"%d" % number for number in range(300)]
    assert {name: outcomes.one(name) for name in outcomes.of} == {
        each.msg_id: Committed(each.seq) for each in stored
    }


async def test_what_comes_during_a_commit_is_the_next_one(
    bus: Bus, committer: Committer, nats: Nats
) -> None:
    outcomes = Outcomes()
    nats.process.send(signal.SIGSTOP)
    committer.submit("group.a", b"0", msg_id="m0", done=outcomes("m0"))
    await eventually(lambda: not committer._waiting)
    for number in range(1, 200):
        name = f"m{number}"
        committer.submit("group.a", b"%d" % number, msg_id=name, done=outcomes(name))
    nats.process.send(signal.SIGCONT)
    await committer.drain(10)
    assert committer.commits == 2
    assert [outcomes.seq(f"m{number}") for number in range(200)] == list(range(1, 201))
    assert await batch_at(bus, 1) == ""
    assert await batch_at(bus, 2) == await batch_at(bus, 200) != ""


async def test_a_commit_has_at_most_500_messages_and_1_mib(bus: Bus, committer: Committer) -> None:
    outcomes = Outcomes()
    for number in range(1001):
        name = f"m{number}"
        committer.submit("group.a", b"", msg_id=name, done=outcomes(name))
    await committer.drain(10)
    assert committer.commits == 3
    large = bytes(200_000)
    for number in range(6):
        name = f"l{number}"
        committer.submit("group.a", large, msg_id=name, done=outcomes(name))
    await committer.drain(10)
    assert committer.commits == 5
    assert outcomes.complete
    assert [outcomes.seq(name) for name in outcomes.of] == list(range(1, 1008))


# --- duplicates ---


async def test_a_duplicate_while_waiting_is_stored_once(bus: Bus, committer: Committer) -> None:
    outcomes = Outcomes()
    committer.submit("group.a", b"first", msg_id="m", done=outcomes("first"))
    committer.submit("group.a", b"second", msg_id="m", done=outcomes("second"))
    committer.submit("group.a", b"other", msg_id="o", done=outcomes("other"))
    await committer.drain(10)
    assert outcomes.one("first") == Committed(1)
    assert outcomes.one("second") == Committed(1, b"first")
    assert outcomes.one("other") == Committed(2)
    assert [each.data for each in await all_events(bus)] == [b"first", b"other"]


async def test_a_duplicate_of_a_stored_message_gets_the_first_one(
    bus: Bus, committer: Committer
) -> None:
    await committer.commit("group.a", b"first", msg_id="m")
    await committer.commit("group.a", b"between", msg_id="n")
    assert await committer.commit("group.a", b"again", msg_id="m") == Committed(1, b"first")
    assert await committer.commit("dm.a.b", b"elsewhere", msg_id="m") == Committed(1, b"first")
    assert await last_seq(bus) == 2


async def test_a_duplicate_of_a_deleted_message_holds_up_no_one(
    bus: Bus, committer: Committer
) -> None:
    """It was tried until the deadline of 15 s, and everything behind it waited."""
    await committer.commit("group.a", b"first", msg_id="m")
    await api(bus, f"STREAM.MSG.DELETE.{STREAM}", {"seq": 1})
    async with asyncio.timeout(5):
        with pytest.raises(Refused, match="event 1, its first sending, was deleted"):
            await committer.commit("group.a", b"again", msg_id="m")
        assert await committer.commit("group.a", b"next", msg_id="n") == Committed(2)


async def test_a_duplicate_in_a_batch_spoils_it_for_no_one(bus: Bus, committer: Committer) -> None:
    """JetStream refuses the whole batch (10201) and does not say which one it was."""
    await committer.commit("group.a", b"first", msg_id="m5")
    outcomes = Outcomes()
    for number in range(10):
        name = f"m{number}"
        committer.submit("group.a", b"%d" % number, msg_id=name, done=outcomes(name))
    await committer.drain(10)
    assert outcomes.one("m5") == Committed(1, b"first")
    others = [f"m{number}" for number in range(10) if number != 5]
    assert [outcomes.one(name) for name in others] == [Committed(seq) for seq in range(2, 11)]
    assert [each.msg_id for each in await all_events(bus)] == ["m5", *others]
    assert committer.commits == 2


async def test_the_same_message_on_two_edges_is_stored_once(bus: Bus, nats: Nats) -> None:
    async with (
        make_bus(nats.url) as other_bus,
        Committer(bus, Log(bus)) as one,
        Committer(other_bus, Log(other_bus)) as other,
    ):
        await other_bus.wait_connected(10)
        mine, theirs = Outcomes(), Outcomes()
        for number in range(200):
            name = f"m{number}"
            one.submit("group.a", b"%d by one" % number, msg_id=name, done=mine(name))
            other.submit("group.a", b"%d by other" % number, msg_id=name, done=theirs(name))
        await one.drain(20)
        await other.drain(20)
    assert mine.complete
    assert theirs.complete
    stored = {each.msg_id: each for each in await all_events(bus)}
    assert len(stored) == await last_seq(bus) == 200
    for name, event in stored.items():
        assert mine.seq(name) == theirs.seq(name) == event.seq
        by = b"one" if event.data.endswith(b"one") else b"other"
        for outcome, who in ((mine.one(name), b"one"), (theirs.one(name), b"other")):
            assert outcome == Committed(event.seq, None if who == by else event.data)


async def test_the_same_id_may_be_sent_again_after_its_outcome(
    bus: Bus, committer: Committer
) -> None:
    outcomes = Outcomes()

    def again(outcome: Outcome) -> None:
        outcomes("first")(outcome)
        committer.submit("group.a", b"again", msg_id="m", done=outcomes("again"))

    committer.submit("group.a", b"first", msg_id="m", done=again)
    await eventually(lambda: "again" in outcomes.of and outcomes.complete)
    assert outcomes.one("again") == Committed(1, b"first")


# --- expected sequences ---


async def submit_expecting(
    committer: Committer, subject: str, msg_id: str, expect_seq: int
) -> Outcome:
    outcomes = Outcomes()
    committer.submit(
        subject, msg_id.encode(), msg_id=msg_id, done=outcomes("it"), expect_seq=expect_seq
    )
    await committer.drain(10)
    return outcomes.one("it")


async def test_an_expected_sequence_is_that_of_the_chat(bus: Bus, committer: Committer) -> None:
    assert await submit_expecting(committer, "group.a", "m1", 0) == Committed(1)
    assert await committer.commit("group.b", b"", msg_id="other") == Committed(2)
    assert await submit_expecting(committer, "group.a", "m3", 1) == Committed(3)


async def test_a_conflict_tells_the_present_sequence(bus: Bus, committer: Committer) -> None:
    for name in ("m1", "m2"):
        await committer.commit("group.a", b"", msg_id=name)
    await committer.commit("group.b", b"", msg_id="other")
    for expect_seq in (0, 1, 3, 99):
        conflict = await submit_expecting(committer, "group.a", f"x{expect_seq}", expect_seq)
        assert isinstance(conflict, Conflict)
        assert conflict.seq == 2
        assert not conflict.retryable
    empty = await submit_expecting(committer, "group.new", "y", 2)
    assert isinstance(empty, Conflict)
    assert empty.seq == 0
    assert await last_seq(bus) == 3


async def test_an_expected_sequence_keeps_its_place(bus: Bus, committer: Committer) -> None:
    outcomes = Outcomes()
    for number in range(10):
        name = f"m{number}"
        committer.submit(
            "group.a",
            b"%d" % number,
            msg_id=name,
            done=outcomes(name),
            expect_seq=number if number in (4, 9) else None,
        )
    await committer.drain(10)
    assert [outcomes.one(f"m{number}") for number in range(10)] == [
        Committed(seq) for seq in range(1, 11)
    ]


async def test_an_expectation_holds_among_others(bus: Bus, committer: Committer) -> None:
    """They all wait at once, and it must not go with them in one batch, which checks nothing."""
    outcomes = Outcomes()
    for number in range(10):
        name = f"m{number}"
        committer.submit(
            "group.a",
            b"",
            msg_id=name,
            done=outcomes(name),
            expect_seq=99 if number in (0, 4, 9) else None,
        )
    await committer.drain(10)
    assert all(isinstance(outcomes.one(name), Conflict) for name in ("m0", "m4", "m9"))
    assert [each.msg_id for each in await all_events(bus)] == [
        f"m{number}" for number in (1, 2, 3, 5, 6, 7, 8)
    ]


async def test_a_repeated_expectation_is_a_duplicate_not_a_conflict(
    bus: Bus, committer: Committer
) -> None:
    assert await submit_expecting(committer, "group.a", "m1", 0) == Committed(1)
    assert await submit_expecting(committer, "group.a", "m1", 0) == Committed(1, b"m1")


# --- refusals and bounds ---


async def test_a_message_that_is_too_large_fails_alone(bus: Bus, committer: Committer) -> None:
    outcomes = Outcomes()
    for number in range(9):
        name = f"m{number}"
        size = MAX_EVENT_BYTES + 1 if number == 4 else 10
        committer.submit("group.a", bytes(size), msg_id=name, done=outcomes(name))
    await committer.drain(10)
    refused = outcomes.one("m4")
    assert isinstance(refused, Refused)
    assert not refused.retryable
    others = [f"m{number}" for number in range(9) if number != 4]
    assert [each.msg_id for each in await all_events(bus)] == others
    assert [outcomes.seq(name) for name in others] == list(range(1, 9))
    assert committer.failed == 1


async def test_what_the_server_would_end_the_connection_for_is_refused(
    bus: Bus, committer: Committer
) -> None:
    outcomes = Outcomes()
    committer.submit("group.a", b"before", msg_id="before", done=outcomes("before"))
    with pytest.raises(Refused):
        await committer.commit("group.a", bytes(2 * MAX_PAYLOAD_BYTES), msg_id="huge")
    committer.submit("group.a", b"after", msg_id="after", done=outcomes("after"))
    await committer.drain(10)
    assert (outcomes.seq("before"), outcomes.seq("after")) == (1, 2)
    assert bus.reconnects == 0


async def test_a_full_log_refuses_and_loses_nothing(bus: Bus, committer: Committer) -> None:
    await ensure(bus, declared(BrokerConfig(max_bytes=300_000)))
    outcomes = Outcomes()
    for number in range(100):
        name = f"m{number}"
        committer.submit("group.a", bytes(10_000), msg_id=name, done=outcomes(name))
    await committer.drain(20)
    assert outcomes.complete
    stored = {name for name in outcomes.of if isinstance(outcomes.one(name), Committed)}
    refused = outcomes.of.keys() - stored
    assert all(isinstance(outcomes.one(name), Overloaded) for name in refused)
    assert 20 <= len(stored) < 40
    assert [(each.seq, each.msg_id) for each in await all_events(bus)] == sorted(
        (outcomes.seq(name), name) for name in stored
    )
    # A repetition is told what is stored, even now.
    repeated = next(iter(stored))
    again = await committer.commit("group.a", b"again", msg_id=repeated)
    assert again == Committed(outcomes.seq(repeated), bytes(10_000))

    await ensure(bus, declared(BrokerConfig()))
    for name in refused:
        assert (await committer.commit("group.a", b"later", msg_id=name)).first is None


async def test_a_full_queue_refuses(
    bus: Bus, committer: Committer, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "QUEUE_MESSAGES", 30)
    monkeypatch.setattr(committer_module, "QUEUE_BYTES", 10_000)
    outcomes = Outcomes()

    def submit_many(kind: str, size: int) -> None:
        for number in range(1000):
            name = f"{kind}{number}"
            committer.submit("group.a", bytes(size), msg_id=name, done=outcomes(name))

    nats.process.send(signal.SIGSTOP)
    with pytest.raises(Overloaded) as caught:
        submit_many("large", 900)
    assert caught.value.retryable
    assert len(outcomes.of) == 12, "the one that was refused is the twelfth"
    with pytest.raises(Overloaded):
        submit_many("small", 1)
    assert committer.waiting == 30
    # A repetition of what waits needs no room.
    committer.submit("group.a", b"", msg_id="large0", done=outcomes("again"))
    nats.process.send(signal.SIGCONT)
    await committer.drain(20)
    refused = [name for name, calls in outcomes.of.items() if not calls]
    assert refused == ["large11", "small19"]
    for name in refused:
        del outcomes.of[name]
    assert outcomes.complete
    assert await last_seq(bus) == 30
    assert (await committer.commit("group.a", bytes(9_000), msg_id="there is room")).seq == 31


# --- the end, and faults of others ---


async def test_drain_waits_for_what_is_under_way(
    bus: Bus, committer: Committer, nats: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    await committer.drain(0)
    nats.process.send(signal.SIGSTOP)
    outcomes = Outcomes()
    for number in range(5):
        name = f"m{number}"
        committer.submit("group.a", b"", msg_id=name, done=outcomes(name))
    assert not caplog.records
    await committer.drain(0.05)
    assert "5 messages still uncommitted" in caplog.text
    nats.process.send(signal.SIGCONT)
    await committer.drain(10)
    assert outcomes.complete


async def test_at_the_end_nobody_is_left_waiting(bus: Bus, nats: Nats) -> None:
    outcomes = Outcomes()
    async with Committer(bus, Log(bus)) as committer:
        nats.process.send(signal.SIGSTOP)
        for number in range(5):
            name = f"m{number}"
            committer.submit("group.a", b"", msg_id=name, done=outcomes(name))
            committer.submit("group.a", b"", msg_id=name, done=outcomes(f"again{number}"))
        await eventually(lambda: not committer._waiting)
        committer.submit("group.a", b"", msg_id="late", done=outcomes("late"))
    nats.process.send(signal.SIGCONT)
    assert outcomes.complete
    assert all(isinstance(outcomes.one(name), Unavailable) for name in outcomes.of)
    with pytest.raises(Unavailable):
        committer.submit("group.a", b"", msg_id="too late", done=outcomes("too late"))


async def test_a_callback_that_raises_harms_no_one(
    bus: Bus, committer: Committer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Outcome) -> None:
        raise ZeroDivisionError("on purpose")

    outcomes = Outcomes()
    committer.submit("group.a", b"", msg_id="m1", done=fail)
    committer.submit("group.a", b"", msg_id="m1", done=outcomes("again"))
    committer.submit("group.a", b"", msg_id="m2", done=outcomes("m2"))
    await committer.drain(10)
    assert outcomes.one("again") == Committed(1, b"")
    assert outcomes.one("m2") == Committed(2)
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


async def test_an_unforeseen_failure_ends_neither_the_loop_nor_calls_twice(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch goes one by one, the first is sent again at once, the third fails in our code."""
    outcomes = Outcomes()
    async with Committer(bus, Log(bus)) as committer:
        publish = committer._publish

        async def fail_at_third(item: Any) -> Committed:
            if item.msg_id == "m3":
                raise ZeroDivisionError("on purpose")
            return await publish(item)

        async def one_by_one(_: Any) -> bool:
            return False

        def again(outcome: Outcome) -> None:
            outcomes("m1")(outcome)
            if "again" not in outcomes.of:
                committer.submit("group.a", b"", msg_id="m1", done=outcomes("again"))

        monkeypatch.setattr(committer, "_publish", fail_at_third)
        monkeypatch.setattr(committer, "_atomic", one_by_one)
        committer.submit("group.a", b"1", msg_id="m1", done=again)
        for name in ("m2", "m3", "m4"):
            committer.submit("group.a", b"", msg_id=name, done=outcomes(name))
        await committer.drain(10)
        assert outcomes.complete
        assert isinstance(outcomes.one("m3"), Unavailable)
        assert outcomes.one("again") == Committed(1, b"1")
        assert (await committer.commit("group.a", b"", msg_id="m5")).first is None


async def test_whoever_stops_waiting_does_not_stop_the_commit(
    bus: Bus, committer: Committer, nats: Nats
) -> None:
    nats.process.send(signal.SIGSTOP)
    waiting = asyncio.create_task(committer.commit("group.a", b"1", msg_id="m1"))
    await eventually(lambda: committer.waiting == 1)
    waiting.cancel()
    nats.process.send(signal.SIGCONT)
    await committer.drain(10)
    assert waiting.cancelled() or not waiting.done()
    assert (await event_at(bus, 1)).msg_id == "m1"
