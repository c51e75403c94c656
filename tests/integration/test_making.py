"""The log is made where there is none; one of which only the description was lost is kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.errors import HalfMade, NoResponders, OlderLog
from broker.log import Log
from broker.making import begin_log, finish_log
from broker.streams import check_usable
from store.config import StoreConfig
from store.database import connect as connect_database
from store.log_floor import STEP, LogFloor
from tests.brokers import api, commit_all, make_bus
from tests.servers import Mongo, Nats
from workers.bus_keeper import BusKeeper

pytestmark = pytest.mark.anyio

CONFIG = BrokerConfig()


class Here(NamedTuple):
    nats: Nats
    folder: Path
    floor: LogFloor

    def keeper(self, bus: Bus) -> BusKeeper:
        return BusKeeper(bus, CONFIG, self.floor, [], makes=True)

    def bus(self) -> Bus:
        return make_bus(self.nats.url)


@pytest.fixture
async def here(mongo: Mongo, nats: Nats, tmp_path: Path) -> AsyncIterator[Here]:
    async with connect_database(StoreConfig(url=mongo.url)) as database:
        for name in ("log", "chats", "reads", "messages"):
            await database[name].delete_many({})
        yield Here(nats, tmp_path, LogFloor(database))


async def lose_description(here: Here) -> None:
    """The server starts anew and cannot read what the stream is."""
    here.nats.process.end()
    (description,) = here.folder.glob("**/CHAT/meta.sum")
    description.write_bytes(b"")
    await here.nats.start()


@pytest.mark.parametrize("remembered", [True, False])
async def test_events_whose_description_was_lost_are_kept(here: Here, remembered: bool) -> None:
    async with here.bus() as bus:
        await bus.wait_connected(10)
        await here.keeper(bus).make()
        seqs = await commit_all(bus, [("group.a", b"%d" % number) for number in range(20)])
        await here.floor.cover(seqs[3])  # MongoDB has these
        before = await Log(bus).state()
        if remembered:
            await here.floor.remember(before.epoch)
    await lose_description(here)
    async with here.bus() as bus, here.bus() as other:
        await bus.wait_connected(10)
        await other.wait_connected(10)
        await asyncio.gather(here.keeper(bus).make(), here.keeper(other).make())
        log = Log(bus)
        after = await log.state()
        assert (after.first_seq, after.last_seq, after.messages) == (seqs[0], seqs[-1], 20)
        # Cursors go on if it is known that it is the same log, else they are void.
        assert (after.epoch == before.epoch) is remembered
        assert len((await log.read("group.a", 1)).events) == 20
        assert await commit_all(bus, [("group.a", b"next")]) == [seqs[-1] + 1]


async def test_events_that_came_back_and_are_an_older_copy_are_not_used(here: Here) -> None:
    async with here.bus() as bus:
        await bus.wait_connected(10)
        await here.keeper(bus).make()
        await commit_all(bus, [("group.a", b"x")])
        await here.floor.cover(2 * STEP)  # so MongoDB has events up to there
    await lose_description(here)
    async with here.bus() as bus:
        await bus.wait_connected(10)
        for _ in range(2):
            with pytest.raises(OlderLog):
                await here.keeper(bus).make()
        with pytest.raises(HalfMade):
            await Log(bus).state()


async def test_a_new_log_begins_after_all_that_mongodb_may_have(here: Here) -> None:
    await here.floor.cover(7)
    await here.floor.remember("lost")
    async with here.bus() as bus, here.bus() as other:
        await bus.wait_connected(10)
        await other.wait_connected(10)
        await asyncio.gather(*(here.keeper(each).make() for each in (bus, other)))
        state = await Log(bus).state()
        assert (state.first_seq, state.last_seq) == (STEP + 8, STEP + 7)
        assert state.epoch != "lost"
        assert await commit_all(bus, [("group.a", b"x")]) == [STEP + 8]
        await here.floor.cover(5 * STEP)
        with pytest.raises(OlderLog):
            await here.keeper(bus).make()
        assert (await Log(bus).state()).epoch == state.epoch


async def test_half_made_it_is_not_used_and_any_maker_goes_on(here: Here) -> None:
    """Who began died; the floor has been raised since, and the first decision stays."""
    async with here.bus() as bus:
        await bus.wait_connected(10)
        assert await begin_log(bus, CONFIG, 1001)
        assert not await begin_log(bus, CONFIG, 2001)
        with pytest.raises(HalfMade):
            await Log(bus).state()
        with pytest.raises(HalfMade):
            await check_usable(bus, "CHAT")
        with pytest.raises(NoResponders):
            await bus.request("group.a", b"x", timeout_s=5)
        await here.floor.cover(5000)
        await here.keeper(bus).make()
        assert (await Log(bus).state()).first_seq == 1001


async def test_a_late_maker_takes_nothing_from_a_log_that_is_in_use(here: Here) -> None:
    """It looked when the log was half made, and does the rest when it has events."""
    async with here.bus() as bus:
        await bus.wait_connected(10)
        await begin_log(bus, CONFIG, 1001)

        async def late(made: object) -> str:
            await here.keeper(bus).make()
            assert await commit_all(bus, [("group.a", b"x")]) == [1001]
            await api(bus, "STREAM.PURGE.CHAT", {"seq": 1001})
            return (await Log(bus).state()).epoch

        await finish_log(bus, CONFIG, late)
        state = await Log(bus).state()
        assert (state.first_seq, state.last_seq, state.messages) == (1001, 1001, 1)
        assert await finish_log(bus, CONFIG, late) is None
