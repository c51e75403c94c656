"""Where a new log has to begin: raised before anything is written above it."""

from collections.abc import AsyncIterator

import pytest

from store.config import StoreConfig
from store.database import Database, connect
from store.log_floor import STEP, LogFloor
from tests.servers import Mongo

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(mongo: Mongo) -> AsyncIterator[Database]:
    async with connect(StoreConfig(url=mongo.url)) as database:
        for name in ("log", "chats", "reads"):
            await database[name].delete_many({})
        yield database


async def test_it_is_above_all_that_is_written(database: Database) -> None:
    one, other = LogFloor(database), LogFloor(database)
    assert await one.read() == 0
    for seq in (1, 2, STEP // 2, STEP, STEP + 1, 3 * STEP, 10 * STEP + 7):
        await one.cover(seq)
        assert await other.read() >= seq + STEP // 2
    high = await one.read()
    await other.cover(5)
    assert await one.read() == high, "it never goes down"


async def test_it_is_raised_seldom(database: Database) -> None:
    floor, seen = LogFloor(database), set()
    for seq in range(0, 3 * STEP, STEP // 100):
        await floor.cover(seq)
        seen.add(await floor.read())
    assert len(seen) <= 7


async def test_a_database_from_before_there_was_a_floor(database: Database) -> None:
    await database["chats"].insert_many([{"_id": "dm.a.b", "seq": 7}, {"_id": "group.x", "seq": 9}])
    assert await LogFloor(database).read() == 9 + STEP
    await database["reads"].insert_one({"_id": {"chat": "dm.a.b", "user": "a"}, "seq": 12})
    assert await LogFloor(database).read() == 12 + STEP
