"""The directory's outbox: a change and its events are one; the events are told once, in order."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from broker import events
from broker.bus import Bus
from broker.log import Log
from store.directory import OutboxEntry
from tests.brokers import api, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.edges import trouble
from tests.servers import Hikyaku, Site, eventually
from workers.directory import identified

pytestmark = pytest.mark.anyio


async def outbox(site: Site) -> list[dict[str, Any]]:
    """What MongoDB still holds to be told."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(site.mongo.url)
    try:
        return [each async for each in client["hikyaku"]["outbox"].find().sort("_id.version", 1)]
    finally:
        await client.close()


async def outbox_of(site: Site, count: int, within_s: float = 20) -> list[dict[str, Any]]:
    """Wait until the outbox has so many entries."""
    deadline = time.monotonic() + within_s
    while len(found := await outbox(site)) != count:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def ready(edge: Hikyaku) -> None:
    def check() -> bool:
        try:
            return bool(edge.get("/readyz"))
        except OSError:
            return False

    await eventually(check, within_s=30, what="ready again")


def told(client: Chat, kind: str, group_id: str) -> list[Frame]:
    return [
        each for each in client.durable() if each["type"] == kind and each["group_id"] == group_id
    ]


async def test_forty_changes_at_once_to_one_group(site: Site, tmp_path: Path) -> None:
    """Twenty users are added while twenty others join."""
    alice, bob = names("alice", "bob")
    added, joining = names(*["a"] * 20), names(*["j"] * 20)
    async with Clients() as connect:
        owners = [await connect(site.edges[number % 2], alice) for number in range(4)]
        watching = await connect(site.edges[0], bob)
        joiners = [
            await connect(site.edges[number % 2], user) for number, user in enumerate(joining)
        ]
        group_id = (await owners[0].group(bob, kind="channel"))["group_id"]
        results = await asyncio.gather(
            *(_until_done(each, "group_join", group_id=group_id) for each in joiners),
            *(
                _add_all(owner, group_id, added[at * 5 : at * 5 + 5])
                for at, owner in enumerate(owners)
            ),
        )
        assert [each for each in results if each["type"] != "result"] == []
        for joiner in joiners:
            await joiner.tell(group_id, f"from {joiner.user}")
        for joiner in joiners:
            await watching.until("group_chat", content=f"from {joiner.user}")
        users = [
            user for each in told(watching, "member_added", group_id) for user in each["users"]
        ]
        assert sorted(users[1:]) == sorted([*added, *joining])
        info = (await owners[0].ask("group_info", group_id=group_id))["group"]
        assert info["version"] == 41
        assert len(info["members"]) == 42
        assert await outbox(site) == []
    assert trouble(site.worker) == []


async def _until_done(client: Chat, type: str, **fields: Any) -> Frame:
    """The answer; asked again when it says so, as on a slow machine."""
    async with asyncio.timeout(30):
        while (answer := await client.ask(type, **fields)).get("retryable"):
            continue
    return answer


async def _add_all(owner: Chat, group_id: str, users: tuple[str, ...]) -> Frame:
    answer: Frame = {}
    for user in users:
        answer = await _until_done(owner, "group_add", group_id=group_id, users=[user])
        if answer["type"] != "result":
            return answer
    return answer


async def test_a_worker_killed_between_the_change_and_its_events(site: Site) -> None:
    """NATS is paused, so that the transaction is done and the publish is not; then kill -9."""
    alice, bob, group_id = names("alice", "bob", "g")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        # The question passes a NATS that lives; the worker then finds it dead.
        site.worker.process.send(signal.SIGSTOP)
        create = {"client_id": "g1", "name": "x", "members": [bob], "group_id": group_id}
        await one.send("group_create", id=1, **create)
        await _question_is_at_the_worker(site)
        site.nats.process.send(signal.SIGSTOP)
        site.worker.process.send(signal.SIGCONT)
        entry = (await outbox_of(site, 1))[0]
        assert entry["_id"] == {"group": group_id, "version": 1}
        site.worker.process.kill()
        site.nats.process.send(signal.SIGCONT)
        error = await one.until("error", id=1)
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        for edge in site.edges:
            await ready(edge)
        assert len(await outbox(site)) == 1
        assert two.durable() == []
        site.worker.process.start()
        for client, user in ((one, alice), (two, bob)):
            added = await client.until("member_added")
            assert (added["group_id"], added["users"]) == (group_id, [user])
        await outbox_of(site, 0)
        result = await one.ask("group_create", **create)
        assert result["group"]["group_id"] == group_id
        await two.tell(group_id, "end")
        for client in (one, two):
            await client.until("group_chat", content="end")
            assert len(told(client, "member_added", group_id)) == 1


async def _question_is_at_the_worker(site: Site) -> None:
    """Until the stopped worker's socket has the question: its kernel holds unread bytes."""

    def check() -> bool:
        with open("/proc/net/tcp") as table:
            for line in table.readlines()[1:]:
                _, _local, remote, state, queues, *_rest = line.split()
                unread = int(queues.split(":")[1], 16)
                if int(remote[-4:], 16) == site.nats.port and state == "01" and unread > 50:
                    return True
        return False

    await eventually(check)


async def test_what_was_left_behind_is_told_in_order_of_version(site: Site) -> None:
    alice, bob, group_id = names("alice", "bob", "g")
    users = names(*["u"] * 5)
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        await one.group(bob, group_id=group_id)
        await two.until("member_added")
        # One connection's changes are made one after the other.
        others = [await connect(site.edges[0], alice) for _ in users]
        site.worker.process.send(signal.SIGSTOP)
        for user, other in zip(users, others, strict=True):
            await other.send("group_add", id=user, group_id=group_id, users=[user])
        await one.send("group_update", id="name", group_id=group_id, name="renamed")
        await _question_is_at_the_worker(site)
        site.nats.process.send(signal.SIGSTOP)
        site.worker.process.send(signal.SIGCONT)
        entries = await outbox_of(site, 6)
        assert [each["_id"]["version"] for each in entries] == [2, 3, 4, 5, 6, 7]
        site.worker.process.kill()
        site.nats.process.send(signal.SIGCONT)
        for edge in site.edges:
            await ready(edge)
        site.worker.process.start()
        await outbox_of(site, 0)
        await one.tell(group_id, "end")
        await two.until("group_chat", content="end")
        events = two.durable()[1:-1]
        assert len(events) == 6
        by_version = [_what(each["events"]) for each in entries]
        assert [_what_frame(each) for each in events] == by_version
        members = {
            user for each in told(two, "member_added", group_id)[1:] for user in each["users"]
        }
        assert members == set(users)


def _what(events: list[tuple[str, bytes]]) -> tuple[str, str]:
    """Type, and user or name, of a version's event for the group."""
    for subject, data in events:
        if subject.startswith("group."):
            return _what_frame(json.loads(data))
    raise AssertionError("no event for the group")


def _what_frame(frame: Frame) -> tuple[str, str]:
    return frame["type"], frame["users"][0] if "users" in frame else frame["name"]


async def test_changes_while_nats_restarts_are_told_once(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        groups = [(await one.group(bob))["group_id"] for _ in range(3)]
        for group_id in groups:
            await one.send("group_update", group_id=group_id, name=f"new {group_id}")
        site.nats.process.kill()
        await site.nats.start()
        for edge in site.edges:
            await ready(edge)
        for group_id in groups:
            deadline = time.monotonic() + 30
            while True:
                answer = await one.ask("group_update", group_id=group_id, roles={bob: "admin"})
                if answer["type"] == "result":
                    break
                assert answer["retryable"] is True, answer
                assert time.monotonic() < deadline
            await one.tell(group_id, "end")
            await two.until("group_chat", content="end", group_id=group_id)
            names_told = [each for each in told(two, "group_updated", group_id) if "name" in each]
            assert len(names_told) <= 1
        await outbox_of(site, 0)
        seqs = [each["seq"] for each in two.durable()]
        assert seqs == sorted(set(seqs))


async def test_what_was_told_in_part_long_ago_is_told_once(site: Site) -> None:
    """As after an outage longer than JetStream knows message ids: here it knows them for 0.1 s."""
    alice, bob, carol, group_id = names("alice", "bob", "carol", "g")
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(site.mongo.url)
    async with Clients() as connect, make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        await one.group(bob, group_id=group_id)
        await two.until("member_added")
        config = (await api(bus, "STREAM.INFO.CHAT"))["config"]
        await api(bus, "STREAM.UPDATE.CHAT", {**config, "duplicate_window": 100_000_000})
        try:
            event = events.MemberAdded(
                chat_id=f"group.{group_id}", group_id=group_id, by=alice, users=[carol],
                name="x", kind="group", size=3,
            )  # fmt: skip
            told_to = [f"group.{group_id}", f"user.{carol}"]
            what = [(subject, events.encode(event)) for subject in told_to]
            at = time.time_ns() // 10**6 - 90_000
            msg_ids = [each[0] for each in identified(OutboxEntry(group_id, 2, what, at))]
            assert await _publish(bus, *what[0], msg_ids[0])
            assert await _publish(bus, "user.probe", what[1][1], "probe")
            deadline = time.monotonic() + 20
            while not await _publish(bus, "user.probe", what[1][1], "probe"):
                assert time.monotonic() < deadline
            await two.until("member_added", users=[carol])
            entry = {"_id": {"group": group_id, "version": 2}, "at": at, "events": what}
            await client["hikyaku"]["outbox"].insert_one(entry)
            await outbox_of(site, 0)
            await one.tell(group_id, "end")
            await two.until("group_chat", content="end")
            assert len(told(two, "member_added", group_id)) == 2
            assert (await Log(bus).last([f"user.{carol}"]))[0].data == what[1][1]
        finally:
            await api(bus, "STREAM.UPDATE.CHAT", config)
            await client.close()


async def _publish(bus: Bus, subject: str, data: bytes, msg_id: str) -> bool:
    """Publish; whether it was new."""
    header = f"NATS/1.0\r\nNats-Msg-Id: {msg_id}\r\n\r\n".encode()
    reply = await bus.request(subject, data, timeout_s=5, header=header)
    return not json.loads(reply.data).get("duplicate")


async def test_one_bad_entry_does_not_keep_the_others_back(site: Site) -> None:
    """Found as a sweeper that ended for good."""
    alice, group_id = names("alice", "g")
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(site.mongo.url)
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        event = {
            "type": "member_added", "chat_id": f"group.{group_id}", "group_id": group_id,
            "by": alice, "users": [alice], "name": "x", "kind": "group",
        }  # fmt: skip
        await client["hikyaku"]["outbox"].insert_many(
            [
                {"_id": {"group": "a-bad", "version": 1}, "at": 0, "events": [["no pair"]]},
                {
                    "_id": {"group": group_id, "version": 1},
                    "at": 0,
                    "events": [[f"user.{alice}", json.dumps(event).encode()]],
                },
            ]
        )
        added = await one.until("member_added")
        assert added["group_id"] == group_id
        assert [each["_id"]["group"] for each in await outbox_of(site, 1)] == ["a-bad"]
        await client["hikyaku"]["outbox"].delete_many({})
        await client.close()
