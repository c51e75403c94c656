"""The driver's settings against a real mongod, and what a killed process leaves behind."""

import time
from pathlib import Path

import pytest

from store.config import StoreConfig
from store.database import Session, connect
from tests.servers import Mongo

pytestmark = pytest.mark.anyio

WITHIN_S = 9.5
"""Below the 10 s for which the driver waits for an answer."""


async def test_the_transaction_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    """Its lock used to stay for a minute, so that every other writer timed out."""
    mongo = Mongo(tmp_path / "mongo")
    try:
        await mongo.start()
        async with connect(StoreConfig(url=mongo.url)) as database:
            await database["leases"].insert_one({"_id": "one", "holder": "nobody"})

            class Killed(Exception):
                """Stands for the end of the process in the middle."""

            async def work(session: Session) -> None:
                await database["leases"].update_one(
                    {"_id": "one"}, {"$set": {"holder": "dead"}}, session=session
                )
                begun = time.monotonic()
                async with connect(StoreConfig(url=mongo.url)) as other:
                    change = {"$set": {"holder": "alive"}}
                    await other["leases"].update_one({"_id": "one"}, change)
                assert time.monotonic() - begun < WITHIN_S
                raise Killed

            with pytest.raises(Killed):
                await database.transaction(work)
            found = await database["leases"].find_one({"_id": "one"})
            assert found["holder"] == "alive"
    finally:
        mongo.process.kill()
