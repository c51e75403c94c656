"""Faults of the links while all sites write: every member sees the same, once, in one order."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bench.proxy import Proxy
from tests.chat import Chat, Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio

SITES = ("tokyo", "osaka", "kyoto")
EACH = 80
PAUSE_S = 0.05
HEAL_S = 120.0
RANDOM_S = 15.0


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(tmp_path_factory.mktemp("company"), SITES)
    async with company.running():
        yield company


Fault = Callable[[Company], Awaitable[None]]


async def slow_and_lossy(company: Company) -> None:
    """300 ms there and back, and every fiftieth piece is late as after a loss."""
    for link in links(company):
        for direction in (link.up, link.down):
            direction.delay_s, direction.stalls = 0.15, 0.02
    await asyncio.sleep(EACH * PAUSE_S)


async def narrow(company: Company) -> None:
    """64 kbit/s each way at one site."""
    link = company["osaka"].link
    for direction in (link.up, link.down):
        direction.bytes_per_s = 8000
    await asyncio.sleep(2 * EACH * PAUSE_S)


async def flapping(company: Company) -> None:
    """One link breaks each second."""
    for _ in range(8):
        company["osaka"].link.reset()
        await asyncio.sleep(1)


async def lost_one_way(company: Company) -> None:
    """What a site says is lost, and it hears the others; then the other way round."""
    link = company["osaka"].link
    for direction in (link.up, link.down):
        direction.drop()
        await asyncio.sleep(3)
        link.reset()
        direction.clear()


async def hub_killed(company: Company) -> None:
    """kill -9 of what all links go through."""
    company.hub.process.kill()
    await asyncio.sleep(2)
    company.hub.process.start()


async def one_of_three_cut(company: Company) -> None:
    """The two others go on with each other."""
    link = company["kyoto"].link
    link.sever()
    await asyncio.sleep(4)


async def home_cut(company: Company) -> None:
    """Nobody reaches the site where the chat lives."""
    link = company["tokyo"].link
    link.sever()
    await asyncio.sleep(4)


FAULTS: tuple[Fault, ...] = (
    slow_and_lossy,
    narrow,
    flapping,
    lost_one_way,
    hub_killed,
    one_of_three_cut,
    home_cut,
)


@pytest.mark.parametrize("fault", FAULTS, ids=[each.__name__ for each in FAULTS])
async def test_members_at_three_sites_agree(company: Company, fault: Fault) -> None:
    await under(company, fault)


async def test_random_faults(company: Company) -> None:
    """Any of them, in any order; the seed is in the report of a failure."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)

    async def relay_killed(company: Company) -> None:
        relay = company[chosen.choice(SITES)].relay
        relay.process.end(signal.SIGKILL)
        await relay.start()

    async def link_held(company: Company) -> None:
        link = company[chosen.choice(SITES)].link
        link.up.hold()
        await asyncio.sleep(chosen.uniform(0.5, 3))
        link.up.release()

    async def link_cut(company: Company) -> None:
        link = company[chosen.choice(SITES)].link
        link.sever()
        await asyncio.sleep(chosen.uniform(0.2, 3))
        link.refusing = False

    async def several(company: Company) -> None:
        end = time.monotonic() + RANDOM_S
        while time.monotonic() < end:
            fault = chosen.choice((relay_killed, link_held, link_cut, hub_killed, lost_one_way))
            print(fault.__name__)
            await fault(company)
            await asyncio.sleep(chosen.uniform(0, 1))

    await under(company, several)


def links(company: Company) -> list[Proxy]:
    return [office.link for office in company.offices.values()]


async def under(company: Company, fault: Fault) -> None:
    """All write through the fault; when it is over, all have the same."""
    who = dict(zip(SITES, names(*SITES), strict=True))
    async with Clients() as connect:
        people = {
            site: await connect(company[site].edges[number % 2], who[site])
            for number, site in enumerate(SITES)
        }
        others = [f"{who[site]}@{site}" for site in SITES[1:]]
        made = await people["tokyo"].group(*others, name="all")
        group = {site: made["group_id"] + ("" if site == "tokyo" else "@tokyo") for site in SITES}
        for site in SITES[1:]:
            await people[site].until("member_added", HEAL_S, group_id=group[site])

        async def write(site: str) -> None:
            for number in range(EACH):
                await people[site].tell(group[site], f"{site} {number}", client_id=f"{number}")
                await asyncio.sleep(PAUSE_S)

        try:
            await asyncio.gather(fault(company), *(write(site) for site in SITES))
        finally:
            for link in links(company):
                link.clear()
        healed = time.monotonic()
        for each in people.values():
            await until_heard(each, EACH * len(SITES))
        print(f"healed in {time.monotonic() - healed:.1f} s")
        first = people["tokyo"].contents()
        for site in SITES:
            assert people[site].contents() == first
            own = [each for each in first if each.startswith(f"{site} ")]
            assert own == [f"{site} {number}" for number in range(EACH)]
            again = await connect(company[site].edges[0], who[site], cursor=people[site].cursor)
            await again.until("caught_up")
            assert not [each for each in again.frames if each["type"] == "provisional"]


async def until_heard(client: Chat, count: int) -> None:
    async with asyncio.timeout(HEAL_S):
        while len(client.contents()) < count:
            await client.receive(HEAL_S)
