"""What waits for a site that is away: for longer than the log keeps, and more than has room."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.log import STREAM, Log
from broker.streams import purge
from tests.brokers import make_bus
from tests.chat import Chat, Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio

WAIT_S = 90.0
ROOM = 2 * 1024**2


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(
        tmp_path_factory.mktemp("company"), ["tokyo", "osaka"], HIKYAKU_LINK_OUTBOX_BYTES=f"{ROOM}"
    )
    async with company.running():
        yield company


async def told(company: Company, count: int) -> None:
    """Wait until so much waits at tokyo."""
    async with asyncio.timeout(WAIT_S):
        while True:
            link = (await company["tokyo"].links()).get("osaka")
            if link is not None and link.waiting >= count:
                return
            await asyncio.sleep(0.1)


async def test_longer_than_the_log_keeps(company: Company) -> None:
    """Both logs lose everything while the link is cut, as after more days than they keep."""
    alice_id, bob_id = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        await alice.say(f"{bob_id}@osaka", "before")
        await bob.until("chat", WAIT_S, content="before")
        osaka.link.sever()
        for number in range(5):
            await alice.say(f"{bob_id}@osaka", f"tokyo {number}")
            await bob.say(f"{alice_id}@tokyo", f"osaka {number}")
        await told(company, 5)
        for office in (tokyo, osaka):
            async with make_bus(office.nats.url) as bus:
                await bus.wait_connected(5)
                last = (await Log(bus).state()).last_seq
                await purge(bus, STREAM, ">", before=last + 1)
        osaka.link.clear()
        right = [f"tokyo {n}" for n in range(5)] + [f"osaka {n}" for n in range(5)]
        for client in (alice, bob):
            await client.until("chat", WAIT_S, content="osaka 4")
            assert client.contents()[-10:] == right


async def test_more_than_there_is_room_for(company: Company) -> None:
    """Refused with an error that says so; what was accepted comes when the link is back."""
    alice_id, bob_id = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        osaka.link.sever()
        accepted, refused = [], []
        for number in range(2000):
            content = f"{number} " + "x" * 4000
            answer = await bob.write("chat", to=f"{alice_id}@tokyo", content=content)
            if answer["type"] == "ack":
                accepted.append(content)
                continue
            refused.append(answer)
            break
        assert [(each["code"], each["retryable"]) for each in refused] == [("overloaded", True)]
        assert ROOM / 16000 < len(accepted) < ROOM / 8000, "half is for what is told"
        # What is not for others is taken as ever.
        assert (await bob.say(alice_id, "to someone here"))["status"] == "sent"
        osaka.link.clear()
        async with asyncio.timeout(WAIT_S):
            while len(alice.contents()) < len(accepted):
                await alice.receive(WAIT_S)
        assert alice.contents() == accepted
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = await bob.write("chat", to=f"{alice_id}@tokyo", content="again")
                if answer["type"] == "ack":
                    break
                await asyncio.sleep(0.2)
        await alice.until("chat", WAIT_S, content="again")


async def test_full_at_both(company: Company) -> None:
    """What comes back can be told though no more can be submitted, so there is room again."""
    alice_id, bob_id, carl_id, zed_id = names("alice", "bob", "carl", "zed")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        carl = await connect(osaka.edges[0], carl_id)
        zed = await connect(tokyo.edges[0], zed_id)
        group = await alice.group(f"{bob_id}@osaka", f"{carl_id}@osaka")
        await carl.until("member_added", WAIT_S)
        osaka.link.sever()
        # Of a chat at each site, and at tokyo also of one whose writes it will refuse.
        users = [f"{carl_id}@osaka"]
        await alice.ask("group_remove", group_id=group["group_id"], users=users)
        await carl.tell(f"{group['group_id']}@tokyo", "refused")
        counts = [
            await filled(bob, f"{alice_id}@tokyo"),
            await filled(zed, f"{carl_id}@osaka"),
        ]
        assert (await alice.say(f"{bob_id}@osaka", "told though it is full"))["status"] == "sent"
        osaka.link.clear()
        await carl.until("write_refused", WAIT_S)
        for writer, reader, count in ((bob, alice, counts[0]), (zed, carl, counts[1])):
            async with asyncio.timeout(WAIT_S):
                while sum(each.get("status") == "sent" for each in writer.frames) < count:
                    await writer.receive(WAIT_S)
                while len(reader.contents()) < count:
                    await reader.receive(WAIT_S)
        await bob.say(f"{alice_id}@tokyo", "again")
        await zed.say(f"{carl_id}@osaka", "again")
        assert "told though it is full" in bob.contents()


async def filled(writer: Chat, to: str) -> int:
    """Write to a user elsewhere until not even a short message is taken; how many were."""
    accepted = 0
    for size in (4000, 200, 1):
        async with asyncio.timeout(WAIT_S):
            while (answer := await writer.write("chat", to=to, content="x" * size))[
                "type"
            ] == "ack":
                assert answer["status"] == "accepted"
                accepted += 1
    return accepted
