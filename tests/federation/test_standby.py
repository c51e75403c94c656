"""Two processes of the relay at a site: one has the links, the other takes over."""

import asyncio
import signal

import pytest

from tests.chat import Chat, Clients, names
from tests.offices import Company
from tests.servers import Hikyaku, eventually

pytestmark = pytest.mark.anyio

WAIT_S = 60.0
ROUNDS = 3
EACH = 40


def terms(relay: Hikyaku) -> int:
    """How often the process got the links."""
    return relay.process.log.read_text().count("relay is ready\n")


async def test_killed_and_paused(company: Company) -> None:
    """Killed, or asleep for longer than it may: nothing is lost, twice or out of order."""
    alice_id, bob_id = names("alice", "bob")
    both = [company["tokyo"].relay, company["tokyo"].another_relay()]
    await both[1].start()
    assert terms(both[1]) == 0, "the first one has the links"
    try:
        async with Clients() as connect:
            alice = await connect(company["tokyo"].edges[0], alice_id)
            bob = await connect(company["osaka"].edges[0], bob_id)
            said = 0

            async def say(client: Chat, to: str, start: int) -> None:
                for number in range(start, start + EACH):
                    await client.say(to, f"{client.user} {number}", client_id=f"{number}")
                    await asyncio.sleep(0.02)

            for turn in range(2 * ROUNDS):
                leads, waits = both[turn % 2], both[(turn + 1) % 2]
                before = terms(waits)
                writing = asyncio.gather(
                    say(alice, f"{bob_id}@osaka", said), say(bob, f"{alice_id}@tokyo", said)
                )
                said += EACH
                await asyncio.sleep(0.2)
                if turn % 4 < 2:
                    leads.process.kill()
                else:
                    leads.process.send(signal.SIGSTOP)
                await eventually(
                    lambda before=before, waits=waits: terms(waits) > before,  # type: ignore[misc]
                    within_s=WAIT_S,
                )
                await writing
                if turn % 4 < 2:
                    await leads.start()
                else:
                    leads.process.send(signal.SIGCONT)
                for client in (alice, bob):
                    async with asyncio.timeout(WAIT_S):
                        while len(client.contents()) < 2 * said:
                            await client.receive(WAIT_S)
            await bob.say(f"{alice_id}@tokyo", "last")
            for client in (alice, bob):
                await client.until("chat", WAIT_S, content="last")
            assert alice.contents() == bob.contents()
            for user in (alice_id, bob_id):
                own = [each for each in alice.contents() if each.startswith(f"{user} ")]
                assert own == [f"{user} {number}" for number in range(said)]
    finally:
        both[1].process.kill()
