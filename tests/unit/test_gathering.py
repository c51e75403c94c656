"""Questions that are asked together, and places that need no question."""

import asyncio

import pytest

from broker import events
from edge.gathering import Gatherer
from edge.places import KNOWN, Places
from tests.servers import eventually

pytestmark = pytest.mark.anyio


class Worker:
    """Answers with squares; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None

    async def ask(self, questions: list[int]) -> list[int]:
        self.asked.append(questions)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return [each * each for each in questions]


async def until_asked(worker: Worker, times: int) -> None:
    await eventually(lambda: len(worker.asked) >= times)


async def test_what_comes_together_is_asked_together_and_what_comes_meanwhile_next() -> None:
    worker = Worker()
    gatherer = Gatherer(worker.ask, most=3, gather_s=0.01)
    first = [asyncio.create_task(gatherer.ask(number)) for number in range(4)]
    await until_asked(worker, 1)
    later = asyncio.create_task(gatherer.ask(9))
    worker.may_answer.set()
    assert await asyncio.gather(*first, later) == [0, 1, 4, 9, 81]
    assert worker.asked == [[0, 1, 2], [3, 9]]
    assert await gatherer.ask(5) == 25
    await gatherer.close()


async def test_an_error_is_everyones_and_the_next_question_is_asked() -> None:
    worker = Worker()
    worker.may_answer.set()
    worker.error = ValueError("away")
    gatherer = Gatherer(worker.ask, most=3, gather_s=0)
    failed = await asyncio.gather(*(gatherer.ask(n) for n in (1, 2)), return_exceptions=True)
    assert [str(each) for each in failed] == ["away", "away"]
    worker.error = None
    assert await gatherer.ask(3) == 9
    await gatherer.close()


async def test_who_has_gone_is_not_asked_for() -> None:
    worker = Worker()
    worker.may_answer.set()
    gatherer = Gatherer(worker.ask, most=3, gather_s=0.01)
    gone = asyncio.create_task(gatherer.ask(1))
    stays = asyncio.create_task(gatherer.ask(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 4
    assert worker.asked == [[2]]
    await gatherer.close()


async def test_closing_cancels_who_waits() -> None:
    worker = Worker()
    gatherer = Gatherer(worker.ask, most=1, gather_s=0)
    waiting = [asyncio.create_task(gatherer.ask(number)) for number in range(3)]
    await until_asked(worker, 1)
    await gatherer.close()
    await asyncio.wait(waiting)
    assert all(each.cancelled() for each in waiting)


def stored(number: int) -> bytes:
    return events.encode(
        events.Chat(
            id=str(number),
            chat_id="dm.a.b",
            from_="a",
            to="b",
            content="hi",
            content_type="text",
            timestamp=1,
            client_id="c",
        )
    )


def test_the_id_of_a_message_is_found_as_it_is_stored() -> None:
    assert events.message_id(stored(17)) == b"17"
    deleted = events.MessageDeleted(
        id="17", chat_id="dm.a.b", from_="a", deleted_at=1, client_id="d"
    )
    assert events.message_id(events.encode(deleted)) is None
    assert events.message_id(b"") is None


def test_the_places_of_the_last_messages_are_known() -> None:
    places = Places()
    for number in range(KNOWN + 5):
        places.note(number + 1, "dm.a.b", stored(number))
    assert places.seq_of("dm.a.b", "4") == 0
    assert places.seq_of("dm.a.b", "5") == 6
    assert places.seq_of("dm.a.c", "5") == 0
    assert places.seq_of("dm.a.b", str(KNOWN)) == KNOWN + 1
