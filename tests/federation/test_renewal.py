"""A site is set back to an old copy of its data: both notice, and begin anew when told to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import outbox
from broker.log import Log
from tests.brokers import make_bus
from tests.chat import Chat, Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio

WAIT_S = 90.0
LESS = "it has less of our outbox"
MORE = "it has more of our outbox"
OTHER = "it knows another outbox of ours"


@pytest.fixture
async def company(tmp_path: Path) -> AsyncIterator[Company]:
    company = Company(tmp_path / "company", ["tokyo", "osaka"])
    async with company.running():
        yield company


async def all_taken(company: Company, site: str, peer: str) -> None:
    """Wait until a site has written down that a peer took all it was told."""
    async with make_bus(company[site].nats.url) as bus, asyncio.timeout(WAIT_S):
        await bus.wait_connected(5)
        log = Log(bus, stream=outbox.STREAM)
        while True:
            if await log.count(outbox.told(peer), 1) == (0, 0):
                return
            await asyncio.sleep(0.1)


async def heard(client: Chat, content: str) -> None:
    await client.until("chat", WAIT_S, content=content)


@pytest.mark.parametrize("written_first", [0, 30], ids=["quiet", "after more was written"])
async def test_set_back_and_renewed(company: Company, tmp_path: Path, written_first: int) -> None:
    """The conversation goes on, without what only the lost data had.

    With as much written as was lost, places in the outbox look as if the other site had them.
    """
    alice_id, bob_id = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        await alice.say(f"{bob_id}@osaka", "before")
        await heard(bob, "before")
        await bob.say(f"{alice_id}@tokyo", "answer")
        await heard(alice, "answer")
    osaka.stop()
    osaka.copy_data(tmp_path / "copy")
    await osaka.start()
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        for number in range(5):
            await bob.say(f"{alice_id}@tokyo", f"lost here {number}", client_id=f"{number}")
            await alice.say(f"{bob_id}@osaka", f"lost here too {number}")
        await heard(alice, "lost here 4")
        await heard(bob, "lost here too 4")
        await bob.until("ack", WAIT_S, status="sent", client_id="4")
        await all_taken(company, "tokyo", "osaka")
    osaka.stop()
    osaka.put_back(tmp_path / "copy")
    company["osaka"].link.sever()
    await osaka.start()
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        said = [f"after {number}" for number in range(written_first + 1)]
        for content in said:
            await bob.say(f"{alice_id}@tokyo", content)
        await alice.say(f"{bob_id}@osaka", "waiting")
        await heard(alice, "waiting")
        company["osaka"].link.refusing = False
        await osaka.until_link("tokyo", MORE)
        await tokyo.until_link("osaka", LESS)
        assert alice.contents() == ["waiting"]
        assert bob.contents() == []
        assert "begins anew" in await tokyo.site("renew", "osaka")
        await osaka.until_link("tokyo", OTHER)
        assert "begins anew" in await osaka.site("renew", "tokyo")
        await heard(alice, said[-1])
        assert alice.contents() == ["waiting", *said]
        await heard(bob, said[-1])
        assert bob.contents() == ["waiting", *said]
        await alice.say(f"{bob_id}@osaka", "and on")
        await heard(bob, "and on")
        for one, other in ((tokyo, "osaka"), (osaka, "tokyo")):
            await one.until_link(other, "connected")


async def test_what_waited_in_the_backup_comes_once(company: Company, tmp_path: Path) -> None:
    """It was taken after the backup was made, and the restored outbox has it again."""
    alice_id, bob_id = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    waited = [f"waited {number}" for number in range(3)]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        group = (await bob.group(f"{alice_id}@tokyo"))["group_id"]  # It lives at osaka.
        await alice.until("member_added", WAIT_S)
        osaka.link.sever()
        for content in waited:
            await bob.tell(group, content)
        osaka.stop()
        osaka.copy_data(tmp_path / "copy")
        osaka.link.clear()
        await osaka.start()
        await alice.until("group_chat", WAIT_S, content=waited[-1])
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        await bob.tell(group, "lost at osaka")
        await alice.until("group_chat", WAIT_S, content="lost at osaka")
    osaka.stop()
    osaka.put_back(tmp_path / "copy")
    await osaka.start()
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        assert "begins anew" in await tokyo.site("renew", "osaka")
        assert "begins anew" in await osaka.site("renew", "tokyo")
        await bob.tell(group, "after")
        await alice.until("group_chat", WAIT_S, content="after")
        assert alice.contents() == ["after"]


async def test_nobody_to_renew_with(company: Company) -> None:
    assert "there is no link" in await company["tokyo"].site("renew", "kyoto")
