"""Large channels: who has one open gets it live, others hear that there is news."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.chat import Chat, Clients, Frame, names
from tests.edges import extra_edge
from tests.servers import Site, token

pytestmark = pytest.mark.anyio

EDGE_OF_LARGE = 500


async def channel(owner: Chat, members: int, *users: str) -> str:
    """A channel of that many members, the owner and `users` among them."""
    made = uuid4().hex[:6]
    others = [f"{made}-{number}" for number in range(members - 1 - len(users))]
    group = await owner.group(*users, *others[:400], kind="channel")
    for start in range(400, len(others), 500):
        part = others[start : start + 500]
        result = await owner.ask("group_add", group_id=group["group_id"], users=part)
        assert result["type"] == "result", result
    info = await owner.ask("group_info", group_id=group["group_id"])
    assert info["group"]["member_count"] == members
    return str(group["group_id"])


async def follow(client: Chat, group_id: str, type: str = "open") -> None:
    result = await client.ask(type, chat_id=f"group.{group_id}")
    assert result["type"] == "result", result


async def up_to_date(client: Chat) -> None:
    """Everything that this edge had for the client has come."""
    await client.say(client.user, text := uuid4().hex)
    await client.until("chat", content=text)


def told(client: Chat) -> list[str]:
    return [frame["content"] for frame in client.frames if frame["type"] == "group_chat"]


def activities(client: Chat) -> list[int]:
    return [frame["seq"] for frame in client.frames if frame["type"] == "activity"]


async def test_a_large_channel_reaches_who_has_it_open(site: Site) -> None:
    alice, bob, carol, dave, stranger = names("alice", "bob", "carol", "dave", "stranger")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob, carol)
        three = await connect(site.edges[0], carol)
        four = await connect(site.edges[1], dave)
        outside = await connect(site.edges[1], stranger)
        assert (await four.ask("group_join", group_id=group_id))["type"] == "result"
        error = await outside.ask("open", chat_id=f"group.{group_id}")
        assert (error["code"], error["retryable"]) == ("not_member", False)
        for bad in ("group", "nothing.x", "dm.a"):
            assert (await one.ask("open", chat_id=bad))["code"] == "invalid"
        await follow(two, group_id)
        ack = await one.tell(group_id, "first")
        frame = await two.until("group_chat", content="first")
        assert frame["seq"] == ack["seq"]
        for quiet in (one, three, four):
            news = await quiet.until("activity", chat_id=f"group.{group_id}")
            assert news == {"type": "activity", "chat_id": f"group.{group_id}", "seq": ack["seq"]}
        await follow(three, group_id)
        await follow(two, group_id, "close")
        last = await one.tell(group_id, "second")
        await three.until("group_chat", content="second")
        await two.until("activity", seq=last["seq"])
        for client in (one, two, three, four, outside):
            await up_to_date(client)
        assert [told(each) for each in (one, two, three, four, outside)] == [
            [],
            ["first"],
            ["second"],
            [],
            [],
        ]
        assert activities(outside) == []
        assert len(activities(two)) == 1


async def test_activity_comes_once_in_two_seconds_and_last(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob)
        two = await connect(site.edges[1], bob)
        await follow(one, group_id)
        begun = time.monotonic()
        for number in range(20):
            ack = await one.tell(group_id, str(number))
            await asyncio.sleep(0.05)
        if time.monotonic() - begun >= 2:
            pytest.skip("too slow a machine to say anything")
        await two.until("activity", seq=ack["seq"])
        assert 1.8 < time.monotonic() - begun < 3
        await asyncio.sleep(2.2)
        await up_to_date(two)
        await up_to_date(one)
        assert len(activities(two)) == 2
        assert activities(two)[-1] == ack["seq"]
        assert told(one) == [str(number) for number in range(20)]


async def test_a_channel_that_becomes_large_and_small_switches_on_all_edges(site: Site) -> None:
    alice, bob, carol, extra = names("alice", "bob", "carol", "extra")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[0], bob)
        three = await connect(site.edges[1], carol)
        group_id = await channel(one, EDGE_OF_LARGE, bob, carol)
        everyone = (one, two, three)

        async def all_get(content: str) -> None:
            await one.tell(group_id, content)
            for each in everyone:
                await each.until("group_chat", content=content)

        await follow(two, group_id)  # before it is large: it counts once it is
        await all_get("small")
        assert (await one.ask("group_add", group_id=group_id, users=[extra]))["type"] == "result"
        for each in everyone:
            update = await each.until("group_updated", group_id=group_id)
            assert update["large"] is True
        ack = await one.tell(group_id, "large")
        await two.until("group_chat", content="large")
        for each in (one, three):
            await each.until("activity", seq=ack["seq"])
        late = await connect(site.edges[1], extra)
        result = await one.ask("group_remove", group_id=group_id, users=[extra])
        assert result["type"] == "result"
        for each in everyone:
            await each.until("group_updated", large=False)
        await all_get("small again")
        for each in (*everyone, late):
            await up_to_date(each)
        assert told(one) == told(three) == ["small", "small again"]
        assert told(two) == ["small", "large", "small again"]
        assert told(late) == []


async def test_resuming_tells_of_news_instead_of_replaying_it(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob)
        silent = await channel(one, EDGE_OF_LARGE + 1, bob)
        small = (await one.group(bob))["group_id"]
        await one.tell(silent, "long ago")
        two = await connect(site.edges[1], bob)
        await follow(two, group_id)
        await one.tell(group_id, "seen")
        await two.until("group_chat", content="seen")
        await two.close()
        for number in range(5):
            ack = await one.tell(group_id, f"missed {number}")
            await one.tell(small, f"kept {number}")
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        caught_up = await back.until("caught_up")
        assert caught_up["missing"] == []
        assert told(back) == [f"kept {number}" for number in range(5)]
        news: list[Frame] = [each for each in back.frames if each["type"] == "activity"]
        assert [(each["chat_id"], each["seq"]) for each in news] == [
            (f"group.{group_id}", ack["seq"])
        ]


async def test_who_is_vip_need_not_open_it(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob)
        two = await connect(site.edges[1], bob, jwt=token(bob, vip=True))
        await one.tell(group_id, "for you")
        await two.until("group_chat", content="for you")
        cursor = two.cursor
        await two.close()
        await one.tell(group_id, "missed")
        back = await connect(site.edges[0], bob, jwt=token(bob, vip=True), cursor=cursor)
        await back.until("group_chat", content="missed")
        await up_to_date(back)
        assert activities(back) == []


async def test_typing_in_a_large_channel_reaches_who_has_it_open(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob, carol)
        two, three = [await connect(site.edges[1], user) for user in (bob, carol)]
        await follow(two, group_id)
        await one.send("typing", group_id=group_id)
        await two.until("typing", chat_id=f"group.{group_id}")
        await up_to_date(three)
        assert "typing" not in {frame["type"] for frame in three.frames}


async def test_an_edge_that_starts_later_knows_what_is_large(site: Site, tmp_path: Path) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        group_id = await channel(one, EDGE_OF_LARGE + 1, bob)
        joined = await channel(one, EDGE_OF_LARGE + 1)
        small = await channel(one, EDGE_OF_LARGE, bob)
        async with extra_edge(site, tmp_path) as edge:
            two = await connect(edge, bob)
            ack = await one.tell(group_id, "large")
            await one.tell(small, "small")
            await two.until("group_chat", content="small")
            await two.until("activity", seq=ack["seq"])
            assert told(two) == ["small"]
            three = await connect(edge, carol)
            assert (await three.ask("group_join", group_id=joined))["type"] == "result"
            ack = await one.tell(joined, "large")
            await three.until("activity", seq=ack["seq"])
            assert told(three) == []
