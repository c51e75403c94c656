"""Two sites, linked: the users of both talk as if it were one."""

import pytest

from tests.chat import Clients, names
from tests.offices import Company

pytestmark = pytest.mark.anyio


async def test_a_conversation_of_two(company: Company) -> None:
    """alice@tokyo comes first in byte order, so the conversation lives in Tokyo."""
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[1], bob_id)
        ack = await alice.say(f"{bob_id}@osaka", "hello")
        assert ack["status"] == "sent"
        heard = await bob.until("chat", content="hello")
        assert heard["from"] == f"{alice_id}@tokyo"
        assert heard["to"] == bob_id
        ack = await bob.say(f"{alice_id}@tokyo", "good day")
        assert (ack["status"], ack["seq"]) == ("accepted", 0)
        shown = await bob.until("provisional")
        assert shown["event"]["content"] == "good day"
        sent = await bob.until("ack", status="sent", client_id=ack["client_id"])
        back = await bob.until("chat", content="good day")
        assert sent["seq"] == back["seq"]
        assert sent["message_id"] == ack["message_id"] == back["id"] == shown["event"]["id"]
        heard = await alice.until("chat", content="good day")
        assert (heard["from"], heard["to"]) == (f"{bob_id}@osaka", alice_id)


async def test_a_group_over_both(company: Company) -> None:
    """It lives in Tokyo, where it was made; who is in it at either site sees the same order."""
    alice_id, bob_id, carol_id = names("alice", "bob", "carol")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        carol = await connect(company["osaka"].edges[1], carol_id)
        group = await alice.group(f"{bob_id}@osaka", name="both")
        there = f"{group['group_id']}@tokyo"
        joined = await bob.until("member_added", group_id=there)
        assert (joined["by"], joined["users"]) == (f"{alice_id}@tokyo", [bob_id])
        await alice.tell(group["group_id"], "one")
        ack = await bob.tell(there, "two")
        assert ack["status"] == "accepted"
        await bob.until("ack", status="sent", client_id=ack["client_id"])
        info = (await bob.ask("group_info", group_id=there))["group"]
        assert (info["home"], info["name"]) == ("tokyo", "both")
        assert sorted(info["members"]) == sorted([f"{alice_id}@tokyo", bob_id])
        refused = await bob.ask("group_add", group_id=there, users=[carol_id])
        assert refused["code"] == "forbidden"
        roles = {f"{bob_id}@osaka": "admin"}
        assert (await alice.ask("group_update", group_id=group["group_id"], roles=roles))["group"]
        updated = await bob.until("group_updated", group_id=there)
        assert updated["roles"] == {bob_id: "admin"}
        added = await bob.ask("group_add", group_id=there, users=[carol_id])
        assert carol_id in added["group"]["members"]
        await carol.until("member_added", group_id=there)
        await carol.tell(there, "three")
        for each in (alice, bob):
            await each.until("group_chat", content="three")
            assert each.contents() == ["one", "two", "three"]
        page = await carol.ask("history", chat_id=f"group.{there.replace('@', '=40')}")
        assert [each["content"] for each in page["messages"]] == ["three", "two", "one"]
        assert (await bob.ask("group_remove", group_id=there, users=[carol_id]))["group"]
        await carol.until("member_removed", group_id=there)
        error = await carol.write("group_chat", group_id=there, content="gone")
        assert error["code"] == "not_member"


async def test_changes_of_messages(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        ack = await bob.say(f"{alice_id}@tokyo", "helo")
        chat = ack["chat_id"]
        await bob.until("chat", content="helo")
        heard = await alice.until("chat", content="helo")
        changed = {"chat_id": chat, "message_id": ack["message_id"]}
        answer = await bob.write("edit", content="hello", **changed)
        assert answer["status"] == "accepted", answer
        edited = await alice.until("message_edited", content="hello")
        assert (edited["id"], edited["from"]) == (heard["id"], f"{bob_id}@osaka")
        await bob.until("message_edited", content="hello")
        own = {"chat_id": heard["chat_id"], "message_id": heard["id"]}
        error = await alice.write("edit", content="no", **own)
        assert error["code"] == "forbidden"
        await alice.write("react", emoji="+1", **own)
        reaction = await bob.until("reaction")
        assert (reaction["from"], reaction["emoji"]) == (f"{alice_id}@tokyo", "+1")
        await bob.write("delete", **changed)
        await alice.until("message_deleted", id=heard["id"])
        await bob.until("message_deleted", id=heard["id"])
        for each, chat_id in ((alice, heard["chat_id"]), (bob, chat)):
            page = await each.ask("history", chat_id=chat_id)
            assert [message.get("deleted") for message in page["messages"]] == [True]


async def test_a_refused_write_is_told_to_who_wrote_it(company: Company) -> None:
    """Osaka learns only later that bob is no member any more: what he wrote meanwhile."""
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        group = await alice.group(f"{bob_id}@osaka")
        there = f"{group['group_id']}@tokyo"
        await bob.until("member_added", group_id=there)
        company["osaka"].link.down.hold()
        removed = await alice.ask(
            "group_remove", group_id=group["group_id"], users=[f"{bob_id}@osaka"]
        )
        assert removed["group"]
        ack = await bob.tell(there, "too late")
        assert ack["status"] == "accepted"
        company["osaka"].link.clear()
        refused = await bob.until("write_refused", client_id=ack["client_id"])
        assert (refused["code"], refused["id"]) == ("not_member", ack["message_id"])
        await bob.until("member_removed", group_id=there)
        again = await connect(company["osaka"].edges[0], bob_id, cursor=bob.welcome["cursor"])
        await again.until("write_refused", client_id=ack["client_id"])
        await again.until("caught_up")
        assert "too late" not in str(again.frames)


async def test_typing_and_receipts(company: Company) -> None:
    alice_id, bob_id, carol_id = names("alice", "bob", "carol")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        carol = await connect(company["osaka"].edges[1], carol_id)
        group = await alice.group(f"{bob_id}@osaka", f"{carol_id}@osaka")
        there = f"{group['group_id']}@tokyo"
        for each in (bob, carol):
            await each.until("member_added", group_id=there)
        await bob.send("typing", group_id=there)
        typing = await alice.until("typing")
        assert (typing["chat_id"], typing["from"]) == (group["chat_id"], f"{bob_id}@osaka")
        assert (await carol.until("typing"))["from"] == bob_id
        await alice.tell(group["group_id"], "read this")
        heard = await bob.until("group_chat", content="read this")
        read = {"chat_id": heard["chat_id"], "last_read_msg_id": heard["id"]}
        assert (await bob.ask("read_receipt", **read))["type"] == "result"
        receipt = await alice.until("read_receipt", reader_id=f"{bob_id}@osaka")
        own = alice.durable()[-1]
        assert receipt["last_read_msg_id"] == heard["id"]
        assert receipt["read_seq"] == own["seq"], "the place is this site's"
        found = (await alice.ask("receipts", chat_id=group["chat_id"]))["receipts"]
        assert found[f"{bob_id}@osaka"]["last_read_msg_id"] == heard["id"]


async def test_ones_own_users_are_named_without_the_site(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        refused = await alice.write("chat", to=f"{bob_id}@tokyo", content="hello")
        assert (refused["code"], refused["message"][:3]) == ("invalid", "to:")
        group = {"client_id": "g", "name": "g", "members": [bob_id, f"{bob_id}@tokyo"]}
        refused = await alice.ask("group_create", **group)
        assert refused["message"].startswith("members: users of this site are named without @tokyo")
        assert (await alice.say(f"{bob_id}@example.org", "hello"))["status"] == "sent"


async def test_presence(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    far = f"{alice_id}@tokyo"
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        bob = await connect(company["osaka"].edges[0], bob_id)
        nobody = (await bob.ask("presence_subscribe", users=[far]))["presence"]
        assert nobody == {}, "they share no chat"
        await bob.say(far, "hello")
        await alice.until("chat")
        await bob.until("chat")
        seen = (await bob.ask("presence_subscribe", users=[far]))["presence"]
        assert seen[far]["status"] == "online"
        await alice.ask("presence_set", status="dnd", text="in a meeting")
        told = await bob.until("presence", status="dnd")
        assert (told["user_id"], told["text"]) == (far, "in a meeting")
        await alice.close()
        assert (await bob.until("presence", status="offline"))["last_seen"]
        alice = await connect(company["tokyo"].edges[1], alice_id)
        await bob.until("presence", status="dnd", text="in a meeting")
        link = company["osaka"].link
        link.sever()
        await bob.until("presence", 90, status="offline")
        link.clear()
        await bob.until("presence", 90, status="dnd")
