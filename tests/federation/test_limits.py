"""A site that says too much is slowed down, counted and named, and the others are served."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.chat import Clients, names
from tests.federation.test_trust import Nagoya, message, submitted
from tests.offices import Company
from tests.servers import eventually
from workers.relay.sending import Where

pytestmark = pytest.mark.anyio

PER_S = 50


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(
        tmp_path_factory.mktemp("company"),
        ["tokyo"],
        strangers=["nagoya", "kyoto"],
        HIKYAKU_LINK_PARCELS_PER_S=f"{PER_S}",
    )
    async with company.running():
        yield company


def log(company: Company) -> str:
    return company["tokyo"].relay.process.log.read_text()


async def test_parcels_over_the_limit_wait(company: Company) -> None:
    """All of them are taken, in order, at the rate that is set."""
    (alice_id,) = names("alice")
    count = 8 * PER_S
    async with Clients() as connect, Nagoya(company) as nagoya:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        said = [submitted(message("zed", f"{alice_id}@tokyo", f"{n}")) for n in range(count)]
        start, began = nagoya.at["submitted"], time.monotonic()
        while nagoya.at["submitted"] < start + count:
            await nagoya.submit(*said[nagoya.at["submitted"] - start :])
        took_s = time.monotonic() - began
        await alice.until("chat", 60, content=f"{count - 1}")
        assert alice.contents() == [f"{n}" for n in range(count)]
        # What comes in two seconds is taken at once.
        assert took_s > (count - 2 * PER_S) / PER_S - 1
        assert "nagoya is over its limit, over 50 parcels a second" in log(company)


async def test_questions_over_the_limit_have_no_answer(company: Company) -> None:
    """A flood of one site does not keep another one from being answered."""
    where = json.dumps({"epoch": "x", "machines": [900, 999]}).encode()
    async with Nagoya(company) as nagoya, Nagoya(company, "kyoto", (800, 899)) as kyoto:
        stop = asyncio.Event()

        async def flood() -> None:
            while not stop.is_set():
                for _ in range(500):
                    nagoya.postal.tell("tokyo", "where", where)
                await asyncio.sleep(0.05)

        flooding = asyncio.create_task(flood())
        await eventually(
            lambda: (
                "nagoya is over its limit, over 1000 questions a second" in log(company)
                or "nagoya is over its limit, over 16 questions at a time" in log(company)
            ),
            within_s=60,
        )
        for _ in range(5):
            answer = await kyoto.ask(
                "where", Where(box="told", epoch="of kyoto", machines=(800, 899))
            )
            assert answer.state == "taken"
        stop.set()
        await flooding


async def test_numbers_that_two_others_share(company: Company) -> None:
    """Not this site's own, but those of a third one, which it knows too."""
    async with Nagoya(company), Nagoya(company, "kyoto", (800, 899)) as kyoto:
        answer = await kyoto.ask("where", Where(box="told", epoch="of kyoto", machines=(890, 910)))
        assert answer.state == "overlap"
        assert "kyoto has the machine numbers 890-910 and nagoya has 900-999" in log(company)
        answer = await kyoto.ask("where", Where(box="told", epoch="of kyoto", machines=(800, 899)))
        assert answer.state == "taken"
