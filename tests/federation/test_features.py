"""What a site does for its own users, it does for what comes from other sites."""

from pathlib import Path
from typing import Any

import pytest

from tests.chat import Chat, Clients, names
from tests.mirror import until
from tests.offices import Company
from tests.pushing import World

pytestmark = pytest.mark.anyio


async def unread(client: Chat, chat_id: str) -> int:
    found: int = (await client.ask("unread", chat_ids=[chat_id]))["counts"].get(chat_id, 0)
    return found


async def test_unread_counts_and_the_list_of_chats(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        for number in range(3):
            await alice.say(f"{bob_id}@osaka", f"news {number}")
        last = await bob.until("chat", content="news 2")
        chat = last["chat_id"]

        async def three() -> bool:
            return await unread(bob, chat) == 3

        await until(three)
        (listed,) = (await bob.ask("chats"))["chats"]
        assert (listed["chat_id"], listed["unread"]) == (chat, 3)
        assert listed["last_message"]["content"] == "news 2"
        await bob.ask("read_receipt", chat_id=chat, last_read_msg_id=last["id"])
        read = await alice.until("read_receipt")
        assert (read["reader_id"], read["last_read_msg_id"]) == (f"{bob_id}@osaka", last["id"])

        async def none() -> bool:
            return await unread(bob, chat) == 0

        await until(none)
        # What he writes himself, and what comes back from its home, is not unread.
        await bob.say(f"{alice_id}@tokyo", "thanks")
        await bob.until("chat", content="thanks")
        assert await unread(bob, chat) == 0


async def test_search_finds_what_came_from_elsewhere(company: Company) -> None:
    alice_id, bob_id, eve_id = names("alice", "bob", "eve")
    osaka = company["osaka"]
    await osaka.search.start()
    await osaka.index.start()
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        eve = await connect(osaka.edges[1], eve_id)
        ack = await alice.say(f"{bob_id}@osaka", "the plum trees bloom")
        await bob.until("chat", content="the plum trees bloom")

        async def found(client: Chat, query: str) -> list[str]:
            answer: dict[str, Any] = await client.ask("search", query=query)
            return [each["id"] for each in answer.get("hits", [])]

        async def there() -> bool:
            return await found(bob, "plum") == [ack["message_id"]]

        await until(there)
        assert await found(eve, "plum") == []
        await alice.write(
            "edit", chat_id=ack["chat_id"], message_id=ack["message_id"], content="cherries bloom"
        )

        async def changed() -> bool:
            return await found(bob, "cherries") == [ack["message_id"]]

        await until(changed)


async def test_who_is_away_is_pushed_to(company: Company, tmp_path: Path) -> None:
    alice_id, bob_id = names("alice", "bob")
    osaka = company["osaka"]
    async with (
        World(tmp_path, site=osaka, HIKYAKU_SITE="osaka").running() as world,
        Clients() as connect,
    ):
        browser = await world.browser(bob_id)
        alice = await connect(company["tokyo"].edges[0], alice_id)
        await alice.say(f"{bob_id}@osaka", "are you there?")

        async def got() -> bool:
            return bool(browser.got)

        await until(got, within_s=30)
        assert browser.got[0]["title"] == f"{alice_id}@tokyo"
        assert browser.got[0]["body"] == "are you there?"


async def test_a_channel_is_joined_and_left_from_elsewhere(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        channel = await alice.group(name="open to all", kind="channel")
        there = f"{channel['group_id']}@tokyo"
        joined = await bob.ask("group_join", group_id=there)
        assert joined["group"]["name"] == "open to all"
        await bob.until("member_added", group_id=there)
        assert (await bob.tell(there, "hello all"))["status"] == "accepted"
        heard = await alice.until("group_chat", content="hello all")
        assert heard["from"] == f"{bob_id}@osaka"
        await alice.tell(channel["group_id"], "welcome")
        await bob.until("group_chat", content="welcome")
        assert (await bob.ask("group_leave", group_id=there))["group"]
        await bob.until("member_removed", group_id=there)
        left = await alice.until("member_removed", group_id=channel["group_id"])
        assert left["users"] == [f"{bob_id}@osaka"]
        error = await bob.write("group_chat", group_id=there, content="gone")
        assert error["code"] == "not_member"
        refused = await bob.ask("group_join", group_id=f"{channel['group_id']}-none@tokyo")
        assert refused["code"] == "not_found"
