"""What is in the log ends in MongoDB, once, whoever is killed and whatever is in between."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from broker import events, subjects
from broker.consumer import Puller
from broker.log import STREAM
from store.documents import Entry
from store.messages import Messages
from tests.brokers import api, commit_all
from tests.metrics import above
from tests.mirror import (
    behind,
    compare,
    conversation,
    edited,
    message,
    store_in_log,
    until,
    until_persisted,
)
from tests.servers import eventually
from tests.stage import Stage, lag, metric
from workers.persist import CONSUMER

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")).running() as stage:
        yield stage


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    """Users of each test have names of their own; workers end with it."""
    yield shared
    shared.end_workers()


async def test_everything_once_whatever_comes_again(stage: Stage) -> None:
    """Two workers; afterwards the whole log once more, from its beginning."""
    first, second = stage.persist(), stage.persist()
    await asyncio.gather(first.start(), second.start())
    talk = [conversation(f"a{n}", f"b{n}", 300) for n in range(10)]
    for part in talk:
        await store_in_log(stage.bus, part)
    await until_persisted(stage.bus)
    assert await compare(stage.bus, stage.database) >= sum(map(len, talk))
    done = [metric(each, "persist_events_total") for each in (first, second)]
    assert sum(done) == sum(map(len, talk))
    assert all(done), "one of them did nothing"

    documents = {each["_id"]: each async for each in stage.database["messages"].find()}
    await api(stage.bus, f"CONSUMER.DELETE.{STREAM}.{CONSUMER.name}")
    await until_persisted(stage.bus)
    assert metric(first, "persist_events_total") + metric(second, "persist_events_total") > sum(
        done
    )
    assert {each["_id"]: each async for each in stage.database["messages"].find()} == documents
    await compare(stage.bus, stage.database)
    assert metric(first, "consumer_dead_letters_total", consumer="persist") == 0


async def test_a_message_that_the_log_has_twice(stage: Stage) -> None:
    """Its chat's last place is one at which there is a message."""
    messages = Messages(stage.database)
    await messages.ensure()
    said = message("twice", "there", "once")
    for seq in (7_000_001, 7_000_002, 7_000_001):
        assert await messages.write([Entry(seq, said)]) == []
        chat = await stage.database["chats"].find_one({"_id": said.chat_id})
        assert chat is not None
        assert chat["seq"] == 7_000_001
    # Put down by a change first: then it is where it was stored, whatever came before.
    late = message("twice", "late", "completed")
    await messages.write([Entry(7_000_004, edited(late, "edited"))])
    await messages.write([Entry(7_000_003, late)])
    chat = await stage.database["chats"].find_one({"_id": late.chat_id})
    assert chat is not None
    assert chat["seq"] == 7_000_003
    for each in (said, late):
        await stage.database["messages"].delete_many({"chat": each.chat_id})
        await stage.database["chats"].delete_many({"_id": each.chat_id})


async def test_killed_between_write_and_acknowledgement(stage: Stage) -> None:
    dying, living = stage.persist("die"), stage.persist()
    await dying.start()
    await store_in_log(stage.bus, conversation("killed", "bob", 200))
    await eventually(lambda: not dying.process.running)
    assert await behind(stage.bus) > 0
    written = await stage.database["messages"].count_documents({"from": "killed"})
    assert written > 0
    await living.start()
    await until_persisted(stage.bus)
    await compare(stage.bus, stage.database)
    assert metric(living, "persist_events_total") >= written, "it was written again"
    assert metric(living, "consumer_dead_letters_total", consumer="persist") == 0


async def test_a_worker_that_stops_gives_back_what_it_has(stage: Stage) -> None:
    """Else the next one would wait for the rest of `ack_wait_s`."""
    worker = stage.persist(ack_wait_s=60)
    await worker.start()
    await until_persisted(stage.bus)
    stage.mongo.process.send(signal.SIGSTOP)
    try:
        await store_in_log(stage.bus, [message("alice", "bob", "held")])

        async def held() -> bool:
            info = await api(stage.bus, f"CONSUMER.INFO.{STREAM}.{CONSUMER.name}")
            return bool(info["num_ack_pending"] == 1)

        await until(held)
        worker.process.send(signal.SIGTERM)
        puller = Puller(stage.bus, CONSUMER)
        (given,) = await puller.fetch(10) or await puller.fetch(10)
        assert (given.delivered, b"held" in given.data) == (2, True)
        puller.give_back([given])
        puller.close()
    finally:
        stage.mongo.process.send(signal.SIGCONT)
    await eventually(lambda: not worker.process.running)
    await stage.persist().start()
    await until_persisted(stage.bus)
    await compare(stage.bus, stage.database)


async def test_mongodb_away_for_ten_seconds(stage: Stage) -> None:
    worker = stage.persist()
    await worker.start()
    await store_in_log(stage.bus, conversation("alice", "bob", 100))
    await until_persisted(stage.bus)
    stage.mongo.process.kill()
    gone = time.monotonic()
    talk = [conversation(f"a{n}", "bob", 1000) for n in range(4)]
    for part in talk:
        await store_in_log(stage.bus, part)
    count = sum(map(len, talk))
    await eventually(lambda: lag(worker) == count, what="the lag is seen")
    await eventually(
        lambda: metric(worker, "consumer_oldest_seconds", consumer="persist") > 8, within_s=15
    )
    assert metric(worker, "consumer_retries_total", consumer="persist") > 0
    assert worker.process.running
    await eventually(lambda: time.monotonic() - gone > 10)
    assert await behind(stage.bus) == count, "nothing was acknowledged meanwhile"
    await stage.mongo.start()
    await until_persisted(stage.bus)
    await compare(stage.bus, stage.database)
    await eventually(lambda: lag(worker) == 0)
    await eventually(lambda: metric(worker, "consumer_oldest_seconds", consumer="persist") == 0)
    assert metric(worker, "consumer_dead_letters_total", consumer="persist") == 0
    assert above(worker.get("/metrics"), "persist_delay_seconds", "5.0") > 0


async def test_nats_away(stage: Stage) -> None:
    worker = stage.persist()
    await worker.start()
    await store_in_log(stage.bus, conversation("alice", "bob", 500))
    stage.nats.process.kill()
    await stage.nats.start()
    await stage.bus.wait_connected(10)
    await store_in_log(stage.bus, conversation("alice", "carol", 500))
    await until_persisted(stage.bus)
    await compare(stage.bus, stage.database)


async def test_read_receipts_are_mirrored(stage: Stage) -> None:
    worker = stage.persist()
    await worker.start()
    chat = subjects.dm("alice", "bob")

    def receipt(seq: int) -> tuple[str, bytes]:
        event = events.ReadReceipt(
            chat_id=chat, reader_id="alice", last_read_msg_id=f"{seq}0", read_seq=seq
        )
        return subjects.user("alice"), events.encode(event)

    await commit_all(stage.bus, [receipt(seq) for seq in (3, 9, 7, 1)])
    await until_persisted(stage.bus)
    found = [each async for each in stage.database["reads"].find()]
    key = {"chat": chat, "user": "alice"}
    assert found == [{"_id": key, "seq": 9, "message_id": "90"}]
