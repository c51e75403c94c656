"""The link between two sites is cut and heals: both go on, and then agree."""

import asyncio
import signal

import pytest

from tests.chat import Chat, Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio

HEAL_S = 60.0


async def until_heard(client: Chat, count: int) -> None:
    """Wait until so many messages came, in order."""
    async with asyncio.timeout(HEAL_S):
        while len(client.contents()) < count:
            await client.receive(HEAL_S)


async def test_both_go_on_and_agree(company: Company) -> None:
    """Two chats, one living at each site; both are written to from both sites during a cut."""
    alice_id, bob_id, zoe_id = names("alice", "bob", "zoe")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        zoe = await connect(company["osaka"].edges[1], zoe_id)
        home = await alice.group(f"{bob_id}@osaka", f"{zoe_id}@osaka")
        at_tokyo, at_osaka = home["group_id"], f"{home['group_id']}@tokyo"
        await zoe.until("member_added", group_id=at_osaka)
        await bob.until("member_added", group_id=at_osaka)
        link = company["osaka"].link
        link.sever()
        for number in range(10):
            await alice.tell(at_tokyo, f"tokyo {number}")
            ack = await bob.tell(at_osaka, f"osaka {number}")
            assert ack["status"] == "accepted"
        shown = [await zoe.until("provisional") for _ in range(10)]
        assert [each["event"]["content"] for each in shown] == [f"osaka {n}" for n in range(10)]
        assert zoe.contents() == [], "nothing has its place yet"
        await until_heard(alice, 10)
        assert alice.contents() == [f"tokyo {number}" for number in range(10)]
        again = await connect(company["osaka"].edges[0], zoe_id, cursor=zoe.cursor)
        shown = [await again.until("provisional") for _ in range(10)]
        assert [each["event"]["content"] for each in shown] == [f"osaka {n}" for n in range(10)]
        link.clear()
        for each in (alice, bob, zoe, again):
            await until_heard(each, 20)
        right = [f"{site} {number}" for site in ("tokyo", "osaka") for number in range(10)]
        for each in (alice, bob, zoe, again):
            assert each.contents() == right
        async with asyncio.timeout(HEAL_S):
            while sum(each.get("status") == "sent" for each in bob.frames) < 10:
                await bob.receive()
        late = await connect(company["osaka"].edges[1], zoe_id, cursor=zoe.welcome["cursor"])
        await late.until("caught_up")
        assert late.contents() == right
        assert not [each for each in late.frames if each["type"] == "provisional"]


async def test_relays_killed_while_much_is_sent(company: Company) -> None:
    """kill -9 of one relay, then the other, and so on: nothing lost, twice or out of order."""
    alice_id, bob_id = names("alice", "bob")
    count, peer = 300, {"tokyo": f"{bob_id}@osaka", "osaka": f"{alice_id}@tokyo"}
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)

        async def say(client: Chat, to: str) -> None:
            for number in range(count):
                client_id = f"{client.user}-{number}"
                fields = {"to": to, "content": f"{client.user} {number}", "client_id": client_id}
                assert (await client.write("chat", **fields))["type"] == "ack"

        async def kill() -> None:
            for number in range(6):
                relay = company[("tokyo", "osaka")[number % 2]].relay
                relay.process.end(signal.SIGKILL)
                await relay.start()

        await asyncio.gather(say(alice, peer["tokyo"]), say(bob, peer["osaka"]), kill())
        await until_heard(alice, 2 * count)
        await until_heard(bob, 2 * count)
        assert alice.contents() == bob.contents()
        for user in (alice_id, bob_id):
            own = [each for each in alice.contents() if each.startswith(f"{user} ")]
            assert own == [f"{user} {number}" for number in range(count)]
