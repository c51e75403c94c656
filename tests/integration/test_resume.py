"""Cursors: what was missed comes in order and whole, then `caught_up`, then what is new."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from tests.brokers import commit_all, make_bus
from tests.chat import Chat, Clients, Frame, Way, names
from tests.edges import extra_edge
from tests.nats_proxy import NatsProxy
from tests.raw import TEXT, Raw, handshake
from tests.servers import Hikyaku, Site, token

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def fast(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hikyaku]:
    """An edge on which a user may send as much as can be stored."""
    folder = tmp_path_factory.mktemp("fast")
    rates = {"messages_per_s": "1000000", "messages_burst": "1000000"}
    async with extra_edge(site, folder, **rates) as edge:
        yield edge


async def pour(client: Chat, contents: Iterable[str], **to: str) -> list[Frame]:
    """Send many messages at once; their acks."""
    kind = "chat" if "to" in to else "group_chat"
    count = 0
    for content in contents:
        await client.send(kind, client_id=uuid4().hex, content=content, **to)
        count += 1
    return [await client.until("ack") for _ in range(count)]


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


def assert_rising(client: Chat) -> None:
    seqs = [frame["seq"] for frame in client.durable()]
    assert seqs == sorted(set(seqs))


# --- what was missed ---


@pytest.mark.parametrize("way", ["header", "frame", "query"])
async def test_what_was_missed_comes_in_order_then_caught_up(site: Site, way: Way) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await one.say(bob, "before")
        await two.until("chat", content="before")
        await two.close()
        for number in range(10):
            await one.say(bob, f"dm {number}")
            await one.tell(group_id, f"group {number}")
        last = await one.say(alice, "not bob's")
        again = await connect(site.edges[0], bob, way=way, cursor=two.cursor)
        caught_up = await again.until("caught_up")
        assert [frame["type"] for frame in again.frames] == [
            "welcome",
            *["chat", "group_chat"] * 10,
            "caught_up",
        ]
        assert again.welcome["cursor"] == two.cursor
        assert (caught_up["recovered"], caught_up["missing"]) == (True, [])
        epoch, _, seq = caught_up["cursor"].rpartition(":")
        assert epoch == again.welcome["epoch"]
        assert int(seq) >= last["seq"]
        missed = [frame for frame in one.durable() if frame.get("content") != "not bob's"]
        assert again.durable() == missed[-20:]
        await one.say(bob, "live")
        await again.until("chat", content="live")
        assert_rising(again)


async def test_without_a_cursor_it_starts_from_now(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        first = await one.say(bob, "before")
        await one.until("chat", content="before")
        two = await connect(site.edges[0], bob)
        assert int(two.welcome["cursor"].rpartition(":")[2]) >= first["seq"]
        await one.say(bob, "after")
        await two.until("chat")
        assert [frame["type"] for frame in two.frames] == ["welcome", "chat"]
        assert two.contents() == ["after"]


async def test_a_cursor_with_nothing_missed_is_caught_up_at_once(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        await one.say(alice, "x")
        await one.until("chat")
        again = await connect(site.edges[0], alice, cursor=one.cursor)
        caught_up = await again.until("caught_up")
        assert [frame["type"] for frame in again.frames] == ["welcome", "caught_up"]
        assert (caught_up["recovered"], caught_up["missing"]) == (True, [])


@pytest.mark.parametrize("cursor", ["{epoch}x:1", "other:1", ":1", "x{epoch}:0", "{epoch}:{ahead}"])
async def test_the_cursor_of_another_log_is_not_recovered(site: Site, cursor: str) -> None:
    await _not_recovered(site, cursor)


@pytest.mark.parametrize(
    "cursor",
    ["", ":", "1", "{epoch}", "{epoch}:", "{epoch}:x", "{epoch}:-1", "{epoch}:1.0", "{epoch}: 1",
     "{epoch}:٣", "{epoch}:" + "9" * 19, "{epoch}:" + "9" * 5000, "\x00", "飛脚"],
)  # fmt: skip
async def test_what_is_no_cursor_is_not_recovered(site: Site, cursor: str) -> None:
    await _not_recovered(site, cursor)


async def _not_recovered(site: Site, cursor: str) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        ack = await one.say(bob, "before")
        given = cursor.format(epoch=one.welcome["epoch"], ahead=ack["seq"] + 1_000)
        two = await connect(site.edges[0], bob, way="frame", cursor=given)
        caught_up = await two.until("caught_up")
        assert (caught_up["recovered"], caught_up["missing"]) == (False, [])
        assert caught_up["cursor"] == two.welcome["cursor"]
        assert int(caught_up["cursor"].rpartition(":")[2]) >= ack["seq"]
        await one.say(bob, "after")
        await two.until("chat", content="after")
        assert two.contents() == ["after"]


async def test_a_null_cursor_is_none(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        two = await connect(site.edges[0], bob, way="frame", cursor=None)  # type: ignore[arg-type]
        one = await connect(site.edges[0], alice)
        await one.say(bob, "x")
        await two.until("chat")
        assert [frame["type"] for frame in two.frames] == ["welcome", "chat"]


async def test_one_device_resumes_beside_another(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        staying = await connect(site.edges[0], bob)
        leaving = await connect(site.edges[0], bob)
        one = await connect(site.edges[1], alice)
        group_id = (await one.group(bob))["group_id"]
        await leaving.until("member_added")
        leaving.abort()
        await one.tell(group_id, "missed")
        await staying.until("group_chat", content="missed")
        back = await connect(site.edges[0], bob, cursor=leaving.cursor)
        await back.until("caught_up")
        assert back.contents() == ["missed"]


async def test_a_client_that_comes_from_an_edge_ahead_is_recovered(
    site: Site, tmp_path: Path
) -> None:
    """Found as `recovered: false`, whenever an edge lagged behind the one that a client left."""
    alice, bob = names("alice", "bob")
    async with (
        NatsProxy(site.nats.port) as proxy,
        extra_edge(site, tmp_path, nats_url=proxy.url) as late,
        Clients() as connect,
    ):
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[0], bob)
        await connect(late, alice)
        proxy.hold("live")
        for number in range(5):
            await one.say(bob, str(number))
        await two.until("chat", content="3")
        moved = await connect(late, bob, cursor=two.cursor)
        proxy.release("live")
        caught_up = await moved.until("caught_up")
        assert caught_up["recovered"] is True
        await moved.say(bob, "end")
        await moved.until("chat", content="end")
        assert [*two.contents()[:4], *moved.contents()] == [*numbers(5), "end"]


# --- while it runs ---


async def test_messages_sent_while_the_replay_runs_come_once_and_in_order(
    site: Site, fast: Hikyaku
) -> None:
    alice, bob = names("alice", "bob")
    peers = names(*["peer"] * 6)
    async with Clients() as connect:
        one = await connect(fast, alice)
        away = await connect(fast, bob)
        senders = [await connect(fast, peer) for peer in peers]
        group_id = (await one.group(bob, *peers))["group_id"]
        await away.until("member_added")
        away.abort()
        for number in range(4):
            await asyncio.gather(
                *(pour(each, numbers(30, number * 30), to=bob) for each in senders),
                pour(one, numbers(30, number * 30), group_id=group_id),
            )
        resumed = [
            asyncio.create_task(connect(edge, bob, cursor=away.cursor))
            for edge in (*site.edges, fast)
        ]
        for number in range(4, 8):
            await asyncio.gather(
                *(pour(each, numbers(30, number * 30), to=bob) for each in senders),
                pour(one, numbers(30, number * 30), group_id=group_id),
            )
        for task in resumed:
            client = await task
            await client.until("group_chat", content="239")
            for peer in peers:
                await client.until("chat", content="239", **{"from": peer})
            caught_up = await client.until("caught_up")
            assert (caught_up["recovered"], caught_up["missing"]) == (True, [])
            assert_rising(client)
            for user in (alice, *peers):
                mine = [each["content"] for each in client.durable() if each.get("from") == user]
                assert mine == numbers(240), user


async def test_a_replay_of_large_messages_is_not_cut(site: Site, fast: Hikyaku) -> None:
    """A replay is sent in chunks of bytes, not of messages: 256 of these would be 4 MiB at once."""
    alice, bob = names("alice", "bob")
    async with Clients() as connect, Raw(site.edges[0], receive_buffer=32_768) as back:
        one = await connect(fast, alice)
        two = await connect(site.edges[0], bob)
        await two.close()
        filler = "x" * 16_000
        await pour(one, [f"{number} {filler}" for number in range(600)], to=bob)
        path = f"/ws/chat?cursor={two.cursor}"
        bearer = f"Bearer {token(bob)}"
        await back.upgrade(handshake(site.edges[0], path=path, Authorization=bearer))
        received: list[Frame] = []
        while not received or received[-1]["type"] != "caught_up":
            opcode, payload = await back.read_frame()
            assert opcode == TEXT, payload
            received.append(json.loads(payload))
        contents = [each["content"].split()[0] for each in received[1:-1]]
        assert contents == numbers(600)


# --- more than 1,000 ---


async def test_of_more_than_1000_the_newest_come_and_the_rest_is_named(
    site: Site, fast: Hikyaku
) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one, three = await connect(fast, alice), await connect(fast, carol)
        two = await connect(fast, bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        two.abort()
        sent = await asyncio.gather(
            pour(one, numbers(1300), to=bob),
            pour(three, numbers(1000), to=bob),
        )
        in_group = await pour(one, numbers(1001), group_id=group_id)
        back = await connect(fast, bob, cursor=two.cursor)
        caught_up = await back.until("caught_up")
        assert caught_up["recovered"] is True
        assert_rising(back)
        missing = {each["chat_id"]: each for each in caught_up["missing"]}
        by_chat = {acks[0]["chat_id"]: [ack["seq"] for ack in acks] for acks in (*sent, in_group)}
        long, whole, group = (acks[0]["chat_id"] for acks in (*sent, in_group))
        assert missing.keys() == {long, group}
        for chat_id, seqs in by_chat.items():
            received = [each["seq"] for each in back.durable() if each["chat_id"] == chat_id]
            assert received == seqs[-1000:]
            if chat_id != whole:
                left_out = range(missing[chat_id]["from_seq"], missing[chat_id]["to_seq"] + 1)
                assert [seq for seq in seqs if seq in left_out] == seqs[:-1000]
                assert left_out[-1] < received[0]
                assert left_out[0] > int(two.cursor.rpartition(":")[2])


# --- groups that changed ---


async def test_a_group_joined_while_away_is_seen_from_the_joining_on(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        await two.close()
        group_id = (await one.group())["group_id"]
        await one.tell(group_id, "before")
        await one.ask("group_add", group_id=group_id, users=[bob])
        await one.tell(group_id, "after")
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        await back.until("caught_up")
        assert [frame["type"] for frame in back.durable()] == ["member_added", "group_chat"]
        assert back.contents() == ["after"]
        await back.tell(group_id, "I am here")


async def test_a_group_left_while_away_is_seen_up_to_the_leaving(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        await two.close()
        await one.tell(group_id, "still for bob")
        await one.ask("group_update", group_id=group_id, name="new name")
        await one.ask("group_remove", group_id=group_id, users=[bob])
        await one.tell(group_id, "not for bob")
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        await back.until("caught_up")
        types = [frame["type"] for frame in back.durable()]
        assert types == ["group_chat", "group_updated", "member_removed"]
        assert back.contents() == ["still for bob"]
        assert [each["seq"] for each in back.durable()] == sorted(
            each["seq"] for each in back.durable()
        )
        error = await back.write("group_chat", group_id=group_id, content="x")
        assert error["code"] == "not_member"


async def test_a_group_left_and_joined_again_while_away(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        await two.close()
        await one.tell(group_id, "before")
        await one.ask("group_remove", group_id=group_id, users=[bob])
        await one.tell(group_id, "not for bob")
        await one.ask("group_add", group_id=group_id, users=[bob])
        await one.tell(group_id, "for bob again")
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        await back.until("caught_up")
        types = [frame["type"] for frame in back.durable()]
        assert types == ["group_chat", "member_removed", "member_added", "group_chat"]
        assert back.contents() == ["before", "for bob again"]


async def test_a_group_joined_and_left_while_away(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        await two.close()
        group_id = (await one.group())["group_id"]
        for turn in range(2):
            await one.tell(group_id, f"not for bob {turn}")
            await one.ask("group_add", group_id=group_id, users=[bob])
            await one.tell(group_id, f"for bob {turn}")
            await one.ask("group_remove", group_id=group_id, users=[bob])
        await one.tell(group_id, "not for bob")
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        caught_up = await back.until("caught_up")
        types = [frame["type"] for frame in back.durable()]
        assert types == ["member_added", "group_chat", "member_removed"] * 2
        assert back.contents() == ["for bob 0", "for bob 1"]
        assert caught_up["missing"] == []


async def test_of_a_group_left_no_range_is_named_that_cannot_be_read(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        await two.close()
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await commit_all(bus, [(f"group.{group_id}", b'{"type":"group_chat"}')] * 1005)
        await one.ask("group_remove", group_id=group_id, users=[bob])
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        caught_up = await back.until("caught_up")
        assert len([each for each in back.frames if each["type"] == "group_chat"]) == 1000
        assert caught_up["missing"] == []


async def test_who_is_being_removed_misses_nothing_before(site: Site) -> None:
    """MongoDB has the removal, the log does not have it yet."""
    alice, bob = names("alice", "bob")
    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(site.mongo.url)
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        await two.close()
        await one.tell(group_id, "for bob")
        # As a directory leaves it that was killed after the change; not told before a minute.
        removed = {
            "type": "member_removed", "chat_id": f"group.{group_id}", "group_id": group_id,
            "by": alice, "users": [bob], "name": "x", "kind": "group", "size": 1,
        }  # fmt: skip
        entry = {
            "_id": {"group": group_id, "version": 2},
            "at": time.time_ns() // 10**6 + 60_000,
            "events": [[f"user.{bob}", json.dumps(removed).encode()]],
        }
        await mongo["hikyaku"]["outbox"].insert_one(entry)
        await mongo["hikyaku"]["members"].delete_one({"group": group_id, "user": bob})
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        await back.until("caught_up")
        await one.tell(group_id, "for bob too")
        await back.until("group_chat", content="for bob too")
        await mongo["hikyaku"]["outbox"].update_one({"_id": entry["_id"]}, {"$set": {"at": 0}})
        await back.until("member_removed")
        await one.tell(group_id, "not for bob")
        await back.say(bob, "end")
        await back.until("chat", content="end")
        assert back.contents() == ["for bob", "for bob too", "end"]
    await mongo.close()


async def test_many_groups_and_chats_with_news(site: Site) -> None:
    alice, bob = names("alice", "bob")
    peers = names(*["peer"] * 6)
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        groups = [(await one.group(bob))["group_id"] for _ in range(8)]
        await two.until("member_added", group_id=groups[-1])
        await two.close()
        expected: list[str] = []
        senders = [await connect(site.edges[0], peer) for peer in peers]
        for number in range(3):
            for group_id in groups:
                expected.append(f"{group_id} {number}")
                await one.tell(group_id, expected[-1])
            for sender in senders:
                expected.append(f"{sender.user} {number}")
                await sender.say(bob, expected[-1])
        back = await connect(site.edges[0], bob, cursor=two.cursor)
        await back.until("caught_up")
        assert back.contents() == expected


# --- last, because it takes from the log ---


async def test_what_has_left_the_log_is_named(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group_id = (await one.group(bob))["group_id"]
        await two.until("member_added")
        await two.close()
        acks = [await one.tell(group_id, str(number)) for number in range(6)]
        await one.say(bob, "dm")
        first = acks[4]["seq"]
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            question = json.dumps({"seq": first}).encode()
            answer = await bus.request("$JS.API.STREAM.PURGE.CHAT", question, timeout_s=10)
            assert json.loads(answer.data)["success"] is True
        back = await connect(site.edges[1], bob, cursor=two.cursor)
        caught_up = await back.until("caught_up")
        assert caught_up["recovered"] is True
        assert back.contents() == ["4", "5", "dm"]
        cursor = int(two.cursor.rpartition(":")[2])
        missing = {each["chat_id"]: each for each in caught_up["missing"]}
        assert missing[f"group.{group_id}"] == {
            "chat_id": f"group.{group_id}",
            "from_seq": cursor + 1,
            "to_seq": first - 1,
        }
        await one.tell(group_id, "live")
        await back.until("group_chat", content="live")
