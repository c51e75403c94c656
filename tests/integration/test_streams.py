"""`ensure` on a real server: what is declared is what the server has."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.declared import declared
from broker.errors import NewerLayout, Refused, Unavailable
from broker.log import Log
from broker.streams import (
    LAYOUT,
    LEAST,
    Consumer,
    Stream,
    bucket,
    chat_stream,
    check_usable,
    ensure,
    layout_of,
)
from tests.brokers import api, commit_all, make_bus
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio

DAY_NS = 86_400 * 1_000_000_000
WORKER = Consumer("CHAT", "worker", {"ack_wait": 60_000_000_000, "filter_subjects": ["group.*"]})


async def config_of(bus: Bus, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await api(bus, f"STREAM.INFO.{stream}"))["config"]
    return config


class Changes:
    """What the server says about streams and consumers being made or changed."""

    def __init__(self, bus: Bus):
        self.seen: list[str] = []
        for kind in ("STREAM", "CONSUMER"):
            for action in ("CREATED", "UPDATED", "DELETED"):
                bus.subscribe(f"$JS.EVENT.ADVISORY.{kind}.{action}.>", self._on)

    def _on(self, subject: bytes, _: bytes, _header: bytes | None, _data: bytes) -> None:
        self.seen.append(subject.decode().removeprefix("$JS.EVENT.ADVISORY."))


async def test_the_log_is_as_designed(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig(max_bytes=1_000_000_000)))
        config = await config_of(bus, "CHAT")
    expected = {
        "subjects": ["dm.*.*", "group.*", "user.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 7 * DAY_NS,
        "max_bytes": 1_000_000_000,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "num_replicas": 1,
        "duplicate_window": 120_000_000_000,
        "allow_direct": True,
        "allow_atomic": True,
        "republish": {"src": ">", "dest": "live.>"},
    }
    assert {key: config.get(key) for key in expected} == expected
    assert len(config["metadata"]["epoch"]) == 12
    assert not config.get("persist_mode"), "an ack before the write"
    assert not config.get("no_ack")


async def test_a_bucket_is_as_designed(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        config = await config_of(bus, "KV_machines")
    expected = {
        "subjects": ["$KV.machines.>"],
        "storage": "file",
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "deny_delete": True,
    }
    assert {key: config.get(key) for key in expected} == expected


async def test_again_changes_nothing(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        changes = Changes(bus)
        streams = declared(BrokerConfig())
        await ensure(bus, streams, [WORKER])
        await eventually(lambda: len(changes.seen) == len(streams) + 1)
        before = [await config_of(bus, each.name) for each in streams]
        await commit_all(bus, [("group.a", b"kept")])

        for _ in range(2):
            # Each start declares anew, with another epoch.
            await ensure(bus, declared(BrokerConfig()), [WORKER])
        assert [await config_of(bus, each.name) for each in streams] == before
        await api(bus, "CONSUMER.DELETE.CHAT.worker")
        await eventually(lambda: "CONSUMER.DELETED.CHAT.worker" in changes.seen)
        made = len(streams) + 1
        assert [each for each in changes.seen[made:] if "CONSUMER" not in each] == []
        assert (await Log(bus).state()).last_seq == 1


async def test_what_differs_is_updated_and_the_epoch_stays(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, [chat_stream(BrokerConfig())])
        before = await config_of(bus, "CHAT")
        await commit_all(bus, [("group.a", b"kept")])
        changed = BrokerConfig(max_age_s=3 * 86400.0, max_bytes=5_000_000)
        await ensure(bus, [chat_stream(changed)])
        after = await config_of(bus, "CHAT")
        assert after["max_age"] == 3 * DAY_NS
        assert after["max_bytes"] == 5_000_000
        assert after["metadata"]["epoch"] == before["metadata"]["epoch"]
        different = {key for key in {*before, *after} if before.get(key) != after.get(key)}
        assert different == {"max_age", "max_bytes"}
        state = await Log(bus).state()
        assert (state.epoch, state.last_seq) == (before["metadata"]["epoch"], 1)


async def test_what_an_operator_changed_by_hand_is_put_right(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        before = await config_of(bus, "CHAT")
        await api(bus, "STREAM.UPDATE.CHAT", {**before, "discard": "old", "description": "mine"})
        await ensure(bus, declared(BrokerConfig()))
        after = await config_of(bus, "CHAT")
        assert after["discard"] == "new"
        assert after["description"] == "mine", "what is not declared is not touched"


async def test_a_change_that_is_not_possible_is_refused(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, [bucket("x", BrokerConfig())])
        wanted = bucket("x", BrokerConfig())
        with pytest.raises(Refused, match="storage"):
            await ensure(bus, [Stream(wanted.name, {**wanted.config, "storage": "memory"})])


async def test_many_processes_may_start_at_once(nats: Nats) -> None:
    async with AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(make_bus(nats.url, f"process {number}"))
            for number in range(8)
        ]
        for bus in buses:
            await bus.wait_connected(10)
        configs = [BrokerConfig(max_age_s=86400.0 * (1 + number % 2)) for number in range(8)]
        await asyncio.gather(
            *(
                ensure(bus, declared(config), [WORKER])
                for bus, config in zip(buses, configs, strict=True)
            )
        )
        epochs = {(await Log(bus).state()).epoch for bus in buses}
        assert len(epochs) == 1
        assert "" not in epochs
        assert (await config_of(buses[0], "CHAT"))["max_age"] in (DAY_NS, 2 * DAY_NS)


async def test_consumers_are_created_and_updated(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()), [WORKER])
        first = await api(bus, "CONSUMER.INFO.CHAT.worker")
        assert first["config"]["ack_policy"] == "explicit"
        assert first["config"]["durable_name"] == "worker"
        assert first["config"]["ack_wait"] == 60_000_000_000
        changed = Consumer(WORKER.stream, WORKER.name, {**WORKER.config, "ack_wait": 90 * 10**9})
        await ensure(bus, [], [changed])
        second = await api(bus, "CONSUMER.INFO.CHAT.worker")
        assert second["config"]["ack_wait"] == 90_000_000_000
        assert second["created"] == first["created"], "updated, not made anew"


async def test_no_jetstream_is_unavailable(nats: Nats) -> None:
    nats.process.kill()
    async with make_bus(nats.url) as bus:
        with pytest.raises(Unavailable):
            await ensure(bus, declared(BrokerConfig()))


async def test_the_shortest_age_that_can_be_set_is_possible(nats: Nats) -> None:
    """JetStream refuses a duplicate window that is longer than the age."""
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig(max_age_s=120.0)))
        assert (await config_of(bus, "CHAT"))["max_age"] == 120_000_000_000


# --- layouts ---


async def laid_out(bus: Bus, name: str, layout: int, least: int, **changes: Any) -> dict[str, Any]:
    """A stream as another version left it."""
    config = await config_of(bus, name)
    metadata = {**config["metadata"], "layout": str(layout), "layout_least": str(least)}
    await api(bus, f"STREAM.UPDATE.{name}", {**config, **changes, "metadata": metadata})
    return await config_of(bus, name)


async def test_streams_say_which_layout_they_have(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        for each in declared(BrokerConfig()):
            assert layout_of((await config_of(bus, each.name))["metadata"]) == (LAYOUT, LEAST)


async def test_a_log_from_before_layouts_is_updated_and_keeps_its_events(nats: Nats) -> None:
    """It lacks a subject, a limit and the layout, as an early version made it."""
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        log = chat_stream(BrokerConfig())
        early = {key: value for key, value in log.config.items() if key != "max_msg_size"}
        early |= {"name": "CHAT", "subjects": ["dm.*.*", "group.*"]}
        await api(bus, "STREAM.CREATE.CHAT", early)
        await commit_all(bus, [("group.a", b"kept")])
        before = await Log(bus).state()
        await ensure(bus, declared(BrokerConfig()), [WORKER])
        after = await config_of(bus, "CHAT")
        assert after["subjects"] == ["dm.*.*", "group.*", "user.*"]
        assert after["max_msg_size"] == log.config["max_msg_size"]
        assert layout_of(after["metadata"]) == (LAYOUT, LEAST)
        assert await Log(bus).state() == before
        assert await commit_all(bus, [("user.a", b"new")]) == [2]


async def test_a_newer_layout_that_this_version_can_use_is_left_as_it_is(nats: Nats) -> None:
    """Two versions run during an upgrade: the older one does not undo the newer one's work."""
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        subjects = ["dm.*.*", "group.*", "user.*", "room.*"]
        newer = await laid_out(bus, "CHAT", LAYOUT + 1, LAYOUT, subjects=subjects)
        await ensure(bus, declared(BrokerConfig(max_age_s=86400.0)), [WORKER])
        assert await config_of(bus, "CHAT") == newer
        assert await commit_all(bus, [("group.a", b"works")]) == [1]


async def test_a_newer_layout_that_it_cannot_use_is_refused(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        newer = await laid_out(bus, "KV_reads", LAYOUT + 2, LAYOUT + 1)
        with pytest.raises(NewerLayout, match="KV_reads has layout") as refused:
            await ensure(bus, declared(BrokerConfig()))
        assert not refused.value.retryable
        assert await config_of(bus, "KV_reads") == newer


async def test_who_makes_no_streams_looks_whether_it_can_use_them(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await ensure(bus, declared(BrokerConfig()))
        await check_usable(bus, "CHAT")
        await laid_out(bus, "CHAT", LAYOUT + 2, LAYOUT + 1)
        with pytest.raises(NewerLayout):
            await check_usable(bus, "CHAT")
        await api(bus, "STREAM.DELETE.CHAT")
        await api(bus, "STREAM.CREATE.CHAT", {"name": "CHAT", "mirror": {"name": "RESTORE"}})
        with pytest.raises(Refused, match="is being restored"):
            await check_usable(bus, "CHAT")
        with pytest.raises(Refused, match="is being restored"):
            await ensure(bus, declared(BrokerConfig()))
