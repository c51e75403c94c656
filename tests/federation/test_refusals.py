"""A write that the home refuses: its author is told, and nobody else's write is touched."""

import asyncio

import pytest

from tests.chat import Chat, Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio

WAIT_S = 60.0
MANY = 250


class Removed:
    """Bob and zoe of osaka are in a group of alice's at tokyo, who removes zoe during a cut."""

    alice: Chat
    bob: Chat
    zoe: Chat

    async def begin(self, company: Company, connect: Clients) -> None:
        alice_id, bob_id, zoe_id = names("alice", "bob", "zoe")
        tokyo, osaka = company["tokyo"], company["osaka"]
        self.alice = await connect(tokyo.edges[0], alice_id)
        self.bob = await connect(osaka.edges[0], bob_id)
        self.zoe = await connect(osaka.edges[1], zoe_id)
        group = await self.alice.group(f"{bob_id}@osaka", f"{zoe_id}@osaka")
        self.at_tokyo, self.at_osaka = group["group_id"], f"{group['group_id']}@tokyo"
        for each in (self.bob, self.zoe):
            await each.until("member_added", WAIT_S, group_id=self.at_osaka)
        osaka.link.sever()
        users = [f"{zoe_id}@osaka"]
        done = await self.alice.ask("group_remove", group_id=self.at_tokyo, users=users)
        assert done["type"] == "result", done

    async def end(self, last: str) -> None:
        """Wait until bob has all, which was accepted up to `last`."""
        await self.alice.until("group_chat", WAIT_S, content=last)
        await self.alice.tell(self.at_tokyo, "end")
        await self.bob.until("group_chat", WAIT_S, content="end")


async def test_what_others_wrote_before_it_stays(company: Company) -> None:
    """Though the refusal comes back before what they wrote does; also if both gave the same id."""
    async with Clients() as connect:
        there = Removed()
        await there.begin(company, connect)
        kept = await there.bob.tell(there.at_osaka, "bob's", client_id="1")
        refused = await there.zoe.tell(there.at_osaka, "zoe's", client_id="1")
        assert kept["status"] == refused["status"] == "accepted"
        company["osaka"].link.clear()
        await there.zoe.until("write_refused", WAIT_S, client_id="1")
        await there.end("bob's")
        assert there.bob.contents() == ["bob's", "end"]


async def test_told_however_many_waited_before_it(company: Company) -> None:
    async with Clients() as connect:
        there = Removed()
        await there.begin(company, connect)
        kept = [f"bob's {number}" for number in range(MANY)]
        await asyncio.gather(
            *(
                there.bob.send(
                    "group_chat", group_id=there.at_osaka, client_id=each, content=each, id=each
                )
                for each in kept
            )
        )
        for each in kept:
            await there.bob.until("ack", client_id=each)
        refused = [await there.zoe.tell(there.at_osaka, f"zoe's {number}") for number in range(3)]
        company["osaka"].link.clear()
        for ack in refused:
            await there.zoe.until("write_refused", WAIT_S, client_id=ack["client_id"])
        await there.end(kept[-1])
        assert there.bob.contents() == [*kept, "end"]
