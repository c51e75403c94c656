"""A site is restored from a backup: what waited for the link when that was made is not lost."""

import signal
from pathlib import Path

import pytest

from tests.chat import Clients, names
from tests.integration.test_backup import hikyaku
from tests.offices import Company

pytestmark = pytest.mark.anyio

WAIT_S = 60.0


async def test_what_was_not_told_when_the_backup_was_made(tmp_path: Path) -> None:
    """The restored site tells it, in the new epoch of its log, and takes what waits for it."""
    company = Company(tmp_path / "company", ["tokyo", "osaka"])
    alice_id, bob_id = names("alice", "bob")
    async with company.running(), Clients() as connect:
        tokyo, osaka = company["tokyo"], company["osaka"]
        bob = await connect(osaka.edges[0], bob_id)
        alice = await connect(tokyo.edges[0], alice_id)
        await alice.say(f"{bob_id}@osaka", "before")  # This chat lives at tokyo.
        await bob.until("chat", WAIT_S, content="before")
        group = (await bob.group(f"{alice_id}@tokyo"))["group_id"]  # And this at osaka.
        await alice.until("member_added", WAIT_S)
        tokyo.relay.process.end(signal.SIGKILL)
        assert (await alice.say(f"{bob_id}@osaka", "not told"))["status"] == "sent"
        await bob.tell(group, "not taken")
        await bob.say(f"{alice_id}@tokyo", "not in order")
        done = await hikyaku(tokyo, "backup", str(tmp_path / "backup"))
        assert done.status == 0, done.said
        cursor = alice.cursor
        tokyo.stop()
        tokyo.lose_data()
        await tokyo.restore(tmp_path / "backup")
        alice = await connect(tokyo.edges[0], alice_id, cursor=cursor)
        await alice.until("group_chat", WAIT_S, content="not taken")
        await alice.until("chat", WAIT_S, content="not in order")
        await alice.say(f"{bob_id}@osaka", "after")
        await bob.until("chat", WAIT_S, content="after")
        said = [each["content"] for each in bob.durable() if each["type"] == "chat"]
        assert said == ["before", "not told", "not in order", "after"]
        for content in ("not taken", "not in order"):
            assert alice.contents().count(content) == 1
