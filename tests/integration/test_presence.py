"""Presence: devices, choices, who may watch whom, and edges that die, hang or lose NATS."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.log import Log
from tests.brokers import api, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.edges import extra_edge, new_edge
from tests.mirror import until, until_persisted
from tests.servers import Site

pytestmark = pytest.mark.anyio

LEASE_S = 3
SETTLE_S = 0.3
"""Ten times the window in which changes are put together."""


async def watch(client: Chat, *users: str) -> dict[str, Frame]:
    result = await client.ask("presence_subscribe", users=users)
    assert result["type"] == "result", result
    presence: dict[str, Frame] = result["presence"]
    return presence


async def online(client: Chat, *users: str) -> None:
    """Begin to watch users, and wait until each is known to be online."""
    await becomes(client, "online", *users)


async def becomes(client: Chat, status: str, *users: str) -> None:
    """Begin to watch users, and wait until each is known to be this."""
    for user, seen in (await watch(client, *users)).items():
        if seen["status"] != status:
            await client.until("presence", user_id=user, status=status)


async def choose(client: Chat, status: str, **fields: str) -> Frame:
    result = await client.ask("presence_set", status=status, **fields)
    assert result["type"] == "result", result
    own: Frame = result["presence"][client.user]
    return own


async def when_back(client: Chat, question: str, **fields: object) -> Frame:
    """The answer, once the server can give one."""
    deadline = time.monotonic() + 30
    while (answer := await client.ask(question, **fields))["type"] == "error":
        assert answer["retryable"], answer
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)
    return answer


async def told(client: Chat, user: str) -> list[tuple[str, str]]:
    """Status and text of all frames about a user so far, once nothing more can be on its way."""
    await asyncio.sleep(SETTLE_S)
    await client.ask("presence_unsubscribe", users=["nobody"])
    return [
        (frame["status"], frame["text"])
        for frame in client.frames
        if frame["type"] == "presence" and frame["user_id"] == user
    ]


def view(frame: Frame) -> Frame:
    """A frame's view, as it stands in a result."""
    return {name: frame[name] for name in ("status", "text", "last_seen")}


async def keys(site: Site, filter: str) -> list[str]:
    """The keys of the bucket that match and have a value."""
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(5)
        found = await Log(bus, stream="KV_presence").last([f"$KV.presence.{filter}"])
        return [each.subject.removeprefix("$KV.presence.") for each in found if each.data]


@asynccontextmanager
async def friends(site: Site, *words: str) -> AsyncIterator[tuple[Clients, Chat, list[str]]]:
    """Clients, one who may watch (on the second edge), and the users it shares a group with."""
    users = names(*words)
    (watcher,) = names("watcher")
    async with Clients() as connect:
        watching = await connect(site.edges[1], watcher)
        await watching.group(*users)
        yield connect, watching, list(users)


def offline(since: float) -> Any:
    """What a view of someone is who left after `since`, a Unix time."""

    class Matches:
        def __eq__(self, other: object) -> bool:
            assert isinstance(other, dict)
            seen = other["last_seen"]
            rest = {**other, "last_seen": None} == {"status": "offline", "text": "", **NEVER}
            return rest and since * 1000 - 50 <= seen <= time.time() * 1000 + 50

    return Matches()


NEVER = {"last_seen": None}
ONLINE = {"status": "online", "text": "", **NEVER}
OFFLINE = {"status": "offline", "text": "", **NEVER}


async def test_coming_and_going_is_told_on_the_other_edge_once(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        assert await watch(watching, alice) == {alice: OFFLINE}
        begun = time.time()
        device = await connect(site.edges[0], alice)
        frame = await watching.until("presence", user_id=alice)
        assert frame == {"type": "presence", "user_id": alice, **ONLINE}
        assert await watch(watching, alice) == {alice: ONLINE}
        await device.close()
        frame = await watching.until("presence", user_id=alice, status="offline")
        assert view(frame) == offline(begun)
        assert await watch(watching, alice) == {alice: view(frame)}
        assert await told(watching, alice) == [("online", ""), ("offline", "")]


async def test_a_user_is_online_while_one_of_several_devices_is(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        await watch(watching, alice)
        devices = [await connect(site.edges[number % 2], alice) for number in range(4)]
        await watching.until("presence", user_id=alice, status="online")
        for device in devices[:3]:
            await device.close()
        assert await told(watching, alice) == [("online", "")]
        devices[3].abort()
        await watching.until("presence", user_id=alice, status="offline")


async def test_away_only_when_all_devices_are(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        one, two = [await connect(edge, alice) for edge in site.edges]
        await choose(two, "online")
        await online(watching, alice)
        before = await told(watching, alice)
        assert await choose(one, "away") == ONLINE
        assert await told(watching, alice) == before
        assert (await choose(two, "away"))["status"] == "away"
        await watching.until("presence", user_id=alice, status="away")
        three = await connect(site.edges[0], alice)
        await asyncio.gather(one.close(), two.close())
        assert await told(watching, alice) == [*before, ("away", "")]
        assert await choose(three, "online") == ONLINE
        await watching.until("presence", user_id=alice, status="online")


async def test_a_device_that_changes_its_connection_is_there_all_the_time(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        device = await connect(site.edges[0], alice)
        await choose(device, "dnd", text="moving")
        await becomes(watching, "dnd", alice)
        before = await told(watching, alice)
        for turn in range(6):
            before_break = await connect(site.edges[turn % 2], alice)
            device.abort()
            device = before_break
        assert await told(watching, alice) == before
        assert await watch(watching, alice) == {
            alice: {"status": "dnd", "text": "moving", **NEVER},
        }


async def test_who_is_invisible_looks_offline_but_not_to_own_devices(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        await watch(watching, alice)
        one, two = [await connect(edge, alice) for edge in site.edges]
        await watch(two, alice)
        begun = time.time()
        assert (await choose(one, "invisible", text="psst"))["status"] == "invisible"
        hidden = await watching.until("presence", user_id=alice, status="offline")
        assert await two.until("presence", status="invisible", text="psst", last_seen=None)
        assert view(hidden) == offline(begun)
        before = await told(watching, alice)
        await asyncio.gather(one.close(), two.close())
        # Leaving unseen moves nothing.
        assert await told(watching, alice) == before
        assert await watch(watching, alice) == {alice: view(hidden)}


async def test_an_invisible_user_comes_back_invisible_while_a_device_lives(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        one = await connect(site.edges[0], alice)
        await choose(one, "invisible")
        await watch(watching, alice)
        for _ in range(3):
            two = await connect(site.edges[1], alice)
            await watch(two, alice)
            await two.close()
        assert await told(watching, alice) == []
        await choose(one, "online")
        await watching.until("presence", user_id=alice, status="online")


async def test_only_who_shares_a_chat_may_watch(site: Site) -> None:
    alice, bob, carol, dave, stranger = names("alice", "bob", "carol", "dave", "stranger")
    async with Clients() as connect:
        clients = [await connect(site.edges[0], user) for user in (alice, bob, carol, stranger)]
        one, two, _, _ = clients
        everyone = [alice, bob, carol, dave, stranger]
        assert set(await watch(one, *everyone)) == {alice}
        await two.say(alice, "a word")
        await two.group(carol, dave)
        assert set(await watch(one, *everyone)) == {alice, bob}
        assert set(await watch(two, *everyone)) == {alice, bob, carol, dave}


async def test_a_dm_that_has_left_the_log_still_counts(site: Site) -> None:
    alice, bob, stranger = names("alice", "bob", "stranger")
    async with Clients() as connect, make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        said = await one.say(bob, "long ago")
        await until_persisted(bus)
        await api(bus, "STREAM.PURGE.CHAT", {"filter": said["chat_id"]})
        assert (await watch(two, alice, stranger)).keys() == {alice}
        assert (await watch(one, bob, stranger)).keys() == {bob}


async def test_unsubscribing_ends_it(site: Site) -> None:
    async with friends(site, "alice", "bob") as (connect, watching, [alice, bob]):
        await watch(watching, alice, bob)
        result = await watching.ask("presence_unsubscribe", users=[alice])
        assert (result["type"], result["presence"]) == ("result", {})
        for user in (alice, bob):
            await connect(site.edges[0], user)
        await watching.until("presence", user_id=bob, status="online")
        assert await told(watching, alice) == []


async def test_limits(site: Site) -> None:
    users = [f"u{number}-{names('x')[0]}" for number in range(2001)]
    async with Clients() as connect:
        client = await connect(site.edges[0], users[0])
        for watched in ([], users[:501], ["x\n"], None):
            error = await client.ask("presence_subscribe", users=watched)
            assert error["code"] == "invalid"
        for status, text in (("offline", ""), ("dnd", "x" * 201), (None, "")):
            error = await client.ask("presence_set", status=status, text=text)
            assert error["code"] == "invalid"
        for start in range(1, 2001, 250):
            await client.group(*users[start : start + 250])
        for start in range(0, 2000, 500):
            part = users[start : start + 500]
            begun = time.monotonic()
            assert set(await watch(client, *part)) == set(part)
            assert time.monotonic() - begun < 2
        error = await client.ask("presence_subscribe", users=[users[2000]])
        assert (error["code"], error["retryable"]) == ("invalid", False)
        await client.ask("presence_unsubscribe", users=users[:1])
        assert set(await watch(client, users[2000])) == {users[2000]}


async def test_a_killed_edge_takes_its_users_offline_when_its_lease_ends(
    site: Site, tmp_path: Path
) -> None:
    edge = new_edge(site, tmp_path, presence_lease_s=str(LEASE_S))
    try:
        await edge.start()
        async with friends(site, "alice", "bob", "eve") as (connect, watching, users):
            alice, bob, eve = users
            for user in users:
                await connect(edge, user)
            stays = await connect(site.edges[0], bob)
            hiding = await connect(site.edges[0], eve)
            await choose(hiding, "invisible")
            await hiding.close()
            await online(watching, alice, bob)
            views = await watch(watching, *users)
            assert (views[alice], views[bob]) == (ONLINE, ONLINE)
            before = await told(watching, bob)
            assert views[eve]["status"] == "offline"
            left = set(await keys(site, f"{alice}.*.*"))
            assert len(left) == 1
            begun = time.time()
            edge.process.kill()
            await watching.until("presence", user_id=alice, status="offline")
            assert LEASE_S * 0.5 < time.time() - begun < LEASE_S + 1.5
            assert await told(watching, bob) == before
            assert await told(watching, eve) == []
            dead = left.pop().split(".")[1]

            async def swept() -> bool:
                return not await keys(site, f"*.{dead}.*") and bool(
                    await keys(site, f"{alice}.seen")
                )

            deadline = time.monotonic() + 10
            while not await swept():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            after = await watch(watching, alice, eve)
            assert abs(after[alice]["last_seen"] / 1000 - begun) < 35
            assert after[eve] == views[eve]
            assert len(await keys(site, f"{bob}.*.*")) == 1
            await stays.close()
            await watching.until("presence", user_id=bob, status="offline")
    finally:
        edge.process.end(9)


async def test_an_edge_that_slept_through_its_lease_comes_back(site: Site, tmp_path: Path) -> None:
    async with (
        extra_edge(site, tmp_path, presence_lease_s=str(LEASE_S)) as edge,
        friends(site, "alice") as (connect, watching, [alice]),
    ):
        await watch(watching, alice)
        device = await connect(edge, alice)
        await watching.until("presence", user_id=alice, status="online")
        edge.process.send(signal.SIGSTOP)
        try:
            await watching.until("presence", user_id=alice, status="offline")
            await asyncio.sleep(1.5)  # the janitor has been
        finally:
            edge.process.send(signal.SIGCONT)
        await watching.until("presence", user_id=alice, status="online")
        await device.close()
        await watching.until("presence", user_id=alice, status="offline")

        async def gone() -> bool:
            return await keys(site, f"{alice}.*.*") == []

        await until(gone)


async def test_an_edge_that_stops_takes_its_users_offline_at_once(
    site: Site, tmp_path: Path
) -> None:
    edge = new_edge(site, tmp_path, presence_lease_s="600")
    try:
        await edge.start()
        async with friends(site, "alice") as (connect, watching, [alice]):
            await watch(watching, alice)
            await connect(edge, alice)
            await watching.until("presence", user_id=alice, status="online")
            begun = time.time()
            await asyncio.to_thread(edge.process.end, signal.SIGTERM)
            frame = await watching.until("presence", 2, user_id=alice, status="offline")
            assert view(frame) == offline(begun)
    finally:
        edge.process.end(9)


async def known(site: Site, user: str, connections: int) -> None:
    async def enough() -> bool:
        return len(await keys(site, f"{user}.*.*")) >= connections

    await until(enough)


async def test_connections_are_counted_on_all_edges(site: Site, tmp_path: Path) -> None:
    """The newest of too many are closed, once none of the others can be a dead edge's."""
    (alice,) = names("alice")
    few = {"connections_per_user": "3", "presence_lease_s": str(LEASE_S)}
    folders = (tmp_path / "one", tmp_path / "other")
    async with (
        extra_edge(site, folders[0], **few) as one,
        extra_edge(site, folders[1], **few) as other,
        Clients() as connect,
    ):
        clients = []
        for number, edge in enumerate((one, one, other, other, one)):
            clients.append(await connect(edge, alice))
            await known(site, alice, number + 1)
        begun = time.monotonic()
        for client in clients[3:]:
            assert (await client.closed())[0] == 4009
        assert LEASE_S < time.monotonic() - begun < LEASE_S + 6
        for client in clients[:3]:
            await client.say(alice, "still here")


async def test_who_comes_over_from_an_edge_that_died_is_not_too_many(
    site: Site, tmp_path: Path
) -> None:
    (alice,) = names("alice")
    few = {"connections_per_user": "3", "presence_lease_s": str(LEASE_S)}
    dying = new_edge(site, tmp_path / "dying", **few)
    try:
        await dying.start()
        async with extra_edge(site, tmp_path / "other", **few) as other, Clients() as connect:
            for _ in range(3):
                await connect(dying, alice)
            await known(site, alice, 3)
            dying.process.kill()
            clients = [await connect(other, alice) for _ in range(3)]
            begun = time.monotonic()
            while time.monotonic() - begun < LEASE_S + 4:
                await clients[0].say(alice, "still here")
                await asyncio.sleep(0.5)
            for client in clients:
                await client.say(alice, "still here")
    finally:
        dying.process.end(9)


async def test_nats_away(fresh_site: Site) -> None:
    """Not watchable meanwhile; afterwards all is as it is, whatever was missed."""
    site = fresh_site
    await site.start()
    async with friends(site, "alice", "bob") as (connect, watching, [alice, bob]):
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[0], bob)
        await online(watching, alice)
        site.nats.process.kill()
        error: Frame = {"code": ""}
        while error.get("code") != "unavailable":
            error = await watching.ask("presence_subscribe", users=[bob])
            await asyncio.sleep(0.05)
        assert error["retryable"] is True
        assert (await two.ask("presence_set", status="dnd"))["code"] == "unavailable"
        await one.close()
        await asyncio.sleep(0.5)
        await site.nats.start()
        await watching.until("presence", user_id=alice, status="offline")
        answer = await when_back(watching, "presence_subscribe", users=[bob])
        if answer["presence"][bob]["status"] != "online":
            await watching.until("presence", user_id=bob, status="online")
        await when_back(two, "presence_set", status="dnd")
        await watching.until("presence", user_id=bob, status="dnd")
