"""What a user has chosen to be: how long it lasts, and that an invisible user is not given away."""

import signal
from pathlib import Path

import pytest

from broker.bucket import Bucket
from tests.brokers import make_bus
from tests.edges import new_edge
from tests.integration.test_presence import (
    LEASE_S,
    NEVER,
    ONLINE,
    becomes,
    choose,
    friends,
    keys,
    told,
    watch,
)
from tests.mirror import until
from tests.servers import Site

pytestmark = pytest.mark.anyio


async def forget_leaving(site: Site, user: str) -> None:
    """As if the user had left longer ago than a choice lasts."""

    async def noted() -> bool:
        return bool(await keys(site, f"{user}.left"))

    await until(noted)
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(5)
        await Bucket(bus, "presence").purge(f"{user}.left")


async def test_a_choice_survives_reconnects_while_a_device_lives(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        await watch(watching, alice)
        one = await connect(site.edges[0], alice)
        assert await choose(one, "dnd", text="in a meeting") == {
            "status": "dnd",
            "text": "in a meeting",
            **NEVER,
        }
        await watching.until("presence", status="dnd", text="in a meeting", last_seen=None)
        two = await connect(site.edges[1], alice)
        await choose(two, "dnd")  # without a text it stays
        await one.close()
        one = await connect(site.edges[0], alice)
        await choose(one, "dnd")
        await two.close()
        assert (await told(watching, alice))[-1] == ("dnd", "in a meeting")
        assert ("offline", "") not in await told(watching, alice)
        await one.close()

        async def gone() -> bool:
            return (await told(watching, alice))[-1] == ("offline", "")

        await until(gone)
        await forget_leaving(site, alice)
        again = await connect(site.edges[0], alice)
        await watching.until("presence", user_id=alice, status="online", text="")
        assert await choose(again, "online", text="back") == {**ONLINE, "text": "back"}
        assert (await told(watching, alice))[-3:] == [
            ("offline", ""),
            ("online", ""),
            ("online", "back"),
        ]
        assert (await choose(again, "online", text=""))["text"] == ""


async def test_a_choice_outlives_a_short_gap_without_any_device(site: Site) -> None:
    async with friends(site, "alice", "bob") as (connect, watching, [alice, bob]):
        await watch(watching, alice, bob)
        hiding = await connect(site.edges[0], alice)
        await choose(hiding, "invisible", text="psst")
        busy = await connect(site.edges[0], bob)
        await choose(busy, "dnd", text="in a meeting")
        await watching.until("presence", user_id=bob, status="dnd", text="in a meeting")
        before = await told(watching, alice)
        for edge in (site.edges[0], site.edges[1], site.edges[0]):
            await hiding.close()
            await busy.close()
            await watching.until("presence", user_id=bob, status="offline")
            hiding = await connect(edge, alice)
            busy = await connect(edge, bob)
            await watching.until("presence", user_id=bob, status="dnd", text="in a meeting")
            await becomes(hiding, "invisible", alice)
            assert (await watch(hiding, alice))[alice]["text"] == "psst"
        assert await told(watching, alice) == before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_choice_outlives_the_end_of_an_edge(
    site: Site, tmp_path: Path, end: signal.Signals
) -> None:
    edge = new_edge(site, tmp_path, presence_lease_s=str(LEASE_S))
    try:
        await edge.start()
        async with friends(site, "alice", "bob") as (connect, watching, [alice, bob]):
            await watch(watching, alice)
            hiding = await connect(edge, alice)
            await choose(hiding, "invisible")
            before = await told(watching, alice)
            busy = await connect(edge, bob)
            await choose(busy, "dnd")
            edge.process.send(end)

            async def swept() -> bool:
                return not await keys(site, f"{alice}.*.*") and not await keys(site, f"{bob}.*.*")

            await until(swept)
            await connect(site.edges[0], bob)
            await becomes(watching, "dnd", bob)
            hiding = await connect(site.edges[0], alice)
            await becomes(hiding, "invisible", alice)
            assert await told(watching, alice) == before
    finally:
        edge.process.end(9)


async def test_nobody_is_told_that_an_invisible_user_types(site: Site) -> None:
    async with friends(site, "alice") as (connect, watching, [alice]):
        [group] = (await watching.ask("chats"))["chats"]
        group_id = group["chat_id"].partition(".")[2]
        device = await connect(site.edges[0], alice)
        await choose(device, "invisible")
        await device.send("typing", group_id=group_id)
        await device.close()
        device = await connect(site.edges[0], alice)
        await device.send("typing", group_id=group_id)
        await device.send("typing", to=watching.user)
        await device.say(watching.user, "out of the dark")
        await watching.until("chat")
        assert "typing" not in {frame["type"] for frame in watching.frames}
        await choose(device, "online")
        await becomes(watching, "online", alice)
        await device.close()
        device = await connect(site.edges[0], alice)
        await device.send("typing", group_id=group_id)
        await watching.until("typing", **{"from": alice})
