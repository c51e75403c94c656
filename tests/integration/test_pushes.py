"""The queue of pushes in a real MongoDB: planned once, claimed by one, kept until it is done."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from store.config import StoreConfig
from store.database import Database, connect
from store.devices import DeviceRecord, Devices
from store.pushes import News, Pushes, PushRecord, key_of
from tests.mirror import until
from tests.servers import Mongo

pytestmark = pytest.mark.anyio

LEASE_S = 0.5


@pytest.fixture
async def database(mongo: Mongo) -> AsyncIterator[Database]:
    config = StoreConfig(url=mongo.url, database=f"d{uuid4().hex[:8]}")
    async with connect(config) as database:
        await Pushes(database).ensure()
        await Devices(database).ensure()
        yield database


def record(number: int, user: str = "bob", device: str = "phone") -> PushRecord:
    until_ms = time.time_ns() // 1_000_000 + 3_600_000
    key = key_of(number, user, device)
    at = ("dm.alice.bob", "dm", "", number, number, False, until_ms)
    return PushRecord(key, user, device, "apns", *at)


async def test_a_push_is_planned_once(database: Database) -> None:
    pushes = Pushes(database)
    await pushes.plan([record(1), record(2), record(1)])
    await asyncio.gather(*(pushes.plan([record(1), record(2)]) for _ in range(10)))
    claimed = await pushes.claim("apns", 10, LEASE_S)
    assert sorted(each.key for each in claimed) == [record(1).key, record(2).key]
    assert [each.attempts for each in claimed] == [1, 1]
    assert claimed[0]._replace(attempts=0, until_ms=0) in [
        each._replace(until_ms=0) for each in (record(1), record(2))
    ]
    for each in claimed:
        await pushes.done(each.key, "sent")
    await pushes.plan([record(1), record(2), record(3)])
    assert [each.key for each in await pushes.claim("apns", 10, LEASE_S)] == [record(3).key]
    assert await pushes.claim("fcm", 10, LEASE_S) == []


async def test_two_never_claim_the_same(database: Database) -> None:
    workers = [Pushes(database) for _ in range(8)]
    await workers[0].plan([record(number) for number in range(400)])
    claimed: Counter[str] = Counter()

    async def work(pushes: Pushes) -> None:
        while found := await pushes.claim("apns", 20, 60):
            claimed.update(each.key for each in found)

    for _ in range(20):
        await asyncio.gather(*map(work, workers))
        if len(claimed) == 400:
            break
    assert (len(claimed), set(claimed.values())) == (400, {1})


async def test_what_is_not_done_comes_again_when_its_lease_ends(database: Database) -> None:
    pushes = Pushes(database)
    await pushes.plan([record(1)])
    (first,) = await pushes.claim("apns", 10, LEASE_S)
    assert await pushes.claim("apns", 10, LEASE_S) == []
    again: list[PushRecord] = []

    async def claimed() -> bool:
        again.extend(await pushes.claim("apns", 10, 60))
        return bool(again)

    await until(claimed)
    assert [(each.key, each.attempts) for each in again] == [(first.key, 2)]
    await pushes.again(first.key, 0, tried=False)
    (third,) = await pushes.claim("apns", 10, 60)
    assert third.attempts == 2, "it was no attempt"
    await pushes.again(first.key, 3600)
    assert await pushes.claim("apns", 10, 60) == []
    assert (await pushes.waiting("apns", 100))[0] == 1
    await pushes.done(first.key, "sent")
    await pushes.again(first.key, 0)
    assert await pushes.claim("apns", 10, 60) == [], "what is done stays done"


def news(seq: int, user: str = "bob") -> News:
    until_ms = time.time_ns() // 1_000_000 + 3_600_000
    return News(user, "group.g", seq * 10, seq, until_ms)


async def test_news_are_told_together_and_once(database: Database) -> None:
    pushes = Pushes(database)
    await pushes.plan_news([news(5)], 0)
    await pushes.plan_news([news(7)], 3600)
    await pushes.plan_news([news(6), news(6, "carol")], 0)
    found = {each.user: each for each in await pushes.claim_news(10, 60)}
    assert (found["bob"].seq, found["bob"].message_id) == (7, 70)
    await pushes.told(found.values(), 0)
    for seq in (5, 6, 7):
        await pushes.plan_news([news(seq)], 0)
    assert await pushes.claim_news(10, 60) == [], "they were told of"
    await pushes.plan_news([news(8)], 0)
    (again,) = await pushes.claim_news(10, 60)
    assert again.seq == 8
    await pushes.plan_news([news(9)], 0)
    await pushes.told([again], 0)
    (last,) = await pushes.claim_news(10, 60)
    assert last.seq == 9, "what came while it was told of is told of as well"


async def test_records_go_by_themselves(database: Database) -> None:
    """MongoDB removes them an hour after the message may be planned for the last time."""
    pushes = Pushes(database)
    await pushes.plan([record(1)])
    await pushes.plan_news([news(1)], 0)
    for name in ("pushes", "push_chats"):
        each = await database[name].find_one({})
        assert each["gone_at"].timestamp() - time.time() == pytest.approx(7200, abs=60)
        indexes = await database[name].index_information()
        assert indexes["gone_at"]["expireAfterSeconds"] == 0
    assert await pushes.forget("bob") == 2


def device(user: str, name: str = "phone", **fields: object) -> DeviceRecord:
    made = DeviceRecord(user, name, "apns", {"token": "t"}, True, False, 0)
    return made._replace(**fields)  # type: ignore[arg-type]


async def test_a_token_moves_to_who_registers_it(database: Database) -> None:
    devices = Devices(database)
    users = [f"user{number}" for number in range(10)]
    await asyncio.gather(
        *(devices.register(device(user), unique="apns t", most=5) for user in users)
    )
    found = await devices.of(users)
    assert len(found) == 1, "one of those who register it at once has it"


async def test_a_registration_is_told_from_the_one_before(database: Database) -> None:
    devices = Devices(database)
    first = await devices.register(device("bob"), unique="a", most=5)
    second = await devices.register(device("bob"), unique="a", most=5)
    assert second.registered_ms > first.registered_ms
    assert not await devices.remove_gone("bob", "phone", first.registered_ms)
    assert await devices.remove_gone("bob", "phone", second.registered_ms)
    assert not await devices.remove_gone("bob", "phone", second.registered_ms)


async def test_names_with_signs_of_mongodb_are_names(database: Database) -> None:
    devices = Devices(database)
    odd = device("$bob.{}", address={"token": "$ROOT"})
    await devices.register(odd, unique="$$NOW", most=5)
    (found,) = (await devices.of(["$bob.{}"]))["$bob.{}"]
    assert found.address == {"token": "$ROOT"}
    pushes = Pushes(database)
    await pushes.plan([record(1, "$bob")._replace(chat_name="$name {$gt: 1}")])
    (claimed,) = await pushes.claim("apns", 1, 60)
    assert (claimed.user, claimed.chat_name) == ("$bob", "$name {$gt: 1}")


def test_no_two_pushes_have_one_key() -> None:
    keys = {key_of(1, "a/b", "c"), key_of(1, "b", "c"), key_of(1, "b", "c-a")}
    assert len(keys) == 3
