"""What one connection writes is done in the order in which it was sent."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.chat import Chat, Clients, Frame, names
from tests.servers import Site

pytestmark = pytest.mark.anyio

TRIES = 12


@pytest.fixture
async def connect() -> AsyncIterator[Clients]:
    async with Clients() as connect:
        yield connect


async def acks(client: Chat, count: int) -> list[Frame]:
    return [await client.until("ack") for _ in range(count)]


async def test_edits_follow_one_another(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice, bob = await connect(site.edges[0], a), await connect(site.edges[1], b)
    said = await alice.say(b, "0")
    change = {"chat_id": said["chat_id"], "message_id": said["message_id"]}
    for number in range(1, 25):
        await alice.send("edit", client_id=uuid4().hex, content=str(number), **change)
    seqs = [ack["seq"] for ack in await acks(alice, 24)]
    assert seqs == sorted(seqs)
    seen = [(await bob.until("message_edited"))["content"] for _ in range(24)]
    assert seen == [str(number) for number in range(1, 25)]


async def test_a_reaction_taken_back_is_gone(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice = await connect(site.edges[0], a)
    said = await alice.say(b, "hello")
    change = {"chat_id": said["chat_id"], "message_id": said["message_id"], "emoji": "👍"}
    for _ in range(TRIES):
        await alice.send("react", client_id=uuid4().hex, **change)
        await alice.send("react", client_id=uuid4().hex, remove=True, **change)
        on, off = [await alice.until("reaction") for _ in range(2)]
        assert [on["removed"], off["removed"]] == [False, True]


async def test_messages_files_and_changes_keep_their_places(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice, bob = await connect(site.edges[0], a), await connect(site.edges[1], b)
    said = await alice.say(b, "first")
    await bob.until("chat")
    change = {"chat_id": said["chat_id"], "message_id": said["message_id"]}
    wanted = []
    for number in range(TRIES):
        await alice.send("edit", client_id=f"e{number}{a}", content=f"edit {number}", **change)
        await alice.send("chat", client_id=f"c{number}{a}", to=b, content=f"chat {number}")
        wanted += [f"edit {number}", f"chat {number}"]
    await alice.send("delete", client_id=uuid4().hex, **change)
    await bob.until("message_deleted")
    kinds = {"chat", "message_edited"}
    assert [each["content"] for each in bob.frames if each["type"] in kinds][1:] == wanted


async def test_what_is_refused_holds_nothing_up(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice = await connect(site.edges[0], a)
    said = await alice.say(b, "hello")
    change = {"chat_id": said["chat_id"], "client_id": uuid4().hex, "content": "changed"}
    await alice.send("edit", id="e", message_id="1", **change)
    await alice.send("chat", id="c", client_id=uuid4().hex, to=b, content="and on")
    assert (await alice.until("error", id="e"))["code"] == "not_found"
    assert await alice.until("ack", id="c")


async def test_who_was_removed_hears_no_more(site: Site, connect: Clients) -> None:
    """And who was added hears all; a group can be written to as soon as it was asked for."""
    a, b = names("alice", "bob")
    alice, bob = await connect(site.edges[0], a), await connect(site.edges[1], b)
    group_id = uuid4().hex

    async def tell(content: str) -> None:
        await alice.send("group_chat", client_id=uuid4().hex, group_id=group_id, content=content)

    asked = {"group_id": group_id, "name": "us", "members": [b]}
    await alice.send("group_create", id="g", client_id=uuid4().hex, **asked)
    await tell("welcome")
    for number in range(TRIES):
        await alice.send("group_remove", group_id=group_id, users=[b])
        await tell(f"secret {number}")
        await alice.send("group_add", group_id=group_id, users=[b])
        await tell(f"again {number}")
    await alice.send("group_leave", group_id=group_id, id="left")
    assert await alice.until("result", id="left")
    heard = ["welcome", *(f"again {number}" for number in range(TRIES))]
    while len(bob.contents()) < len(heard):
        await bob.until("group_chat")
    assert bob.contents() == heard
    assert [each for each in alice.frames if each["type"] == "error"] == []


async def test_who_leaves_has_said_goodbye_before(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice, bob = await connect(site.edges[0], a), await connect(site.edges[1], b)
    for _ in range(TRIES):
        group = await bob.group(a)
        await alice.until("member_added")
        goodbye = {"group_id": group["group_id"], "client_id": uuid4().hex, "content": "goodbye"}
        await alice.send("group_chat", **goodbye)
        await alice.send("group_leave", group_id=group["group_id"])
        told = await bob.until("group_chat")
        left = await bob.until("member_removed")
        assert told["seq"] < left["seq"]


async def test_only_so_many_wait(site: Site, connect: Clients) -> None:
    a, b = names("alice", "bob")
    alice = await connect(site.edges[0], a)
    said = await alice.say(b, "hello")
    await asyncio.gather(
        *(
            alice.send("group_info", group_id="none", id=f"q{number}")
            if number % 2
            else alice.send("group_leave", group_id="none", id=f"w{number}")
            for number in range(200)
        )
    )
    codes = set()
    for _ in range(200):
        error = await alice.until("error")
        codes.add((str(error["id"])[0], error["code"]))
    assert ("w", "overloaded") in codes
    assert {code for _, code in codes} <= {"overloaded", "not_found", "not_member"}
    assert (await alice.say(b, "and on"))["seq"] > said["seq"]
