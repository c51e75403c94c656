"""kill -9 of the workers and of mongod while events flow: MongoDB ends as the log, event by event.

`HIKYAKU_TEST_ROUNDS` (5) kills, `HIKYAKU_TEST_RATE` (300) events a second; the seed is printed.
The bench does the same on a whole stack at the full rate: `python -m bench persist-faults`.
"""

import os
import random

import pytest

from bench.faults import Fault
from bench.persist_faults import VICTIMS, under_fire
from store.config import StoreConfig
from store.database import connect
from tests.brokers import make_bus
from tests.servers import Hikyaku, Mongo, Site

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("HIKYAKU_TEST_ROUNDS", "5"))
RATE = int(os.environ.get("HIKYAKU_TEST_RATE", "300"))


def fault(name: str, victim: Hikyaku | Mongo) -> Fault:
    async def healed() -> bool:
        await victim.start()
        return True

    return Fault(name=name, strike=victim.process.kill, healed=healed)


async def test_killed_at_random_while_events_flow(site: Site) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    victims: list[Hikyaku | Mongo] = [site.mongo, site.worker, site.persist, site.query]
    faults = [fault(name, victim) for name, victim in zip(VICTIMS, victims, strict=True)]
    plan = [each for _ in range(-(-ROUNDS // 4)) for each in chance.sample(faults, 4)][:ROUNDS]
    async with (
        make_bus(site.nats.url) as bus,
        connect(StoreConfig(url=site.mongo.url)) as database,
    ):
        await bus.wait_connected(10)
        result = await under_fire(bus, database, plan, run="test", rate=RATE, chance=chance)
    print(f"{result} killed: {[each.name for each in plan]}")
    assert result.group_changes > 0
