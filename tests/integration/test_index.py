"""What MongoDB has ends in the index, whoever is killed and whatever is in between."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from bench.proxy import Proxy
from broker import events
from broker.committer import Committer
from broker.log import STREAM, Log
from store.searchable import SearchNumbers
from tests.brokers import api
from tests.metrics import above
from tests.mirror import (
    conversation,
    deleted,
    edited,
    message,
    new_id,
    store_in_log,
    until,
    until_persisted,
)
from tests.search_servers import SearchServer
from tests.searching import (
    SearchStage,
    assert_index_mirrors,
    documents_in,
    index_buried,
    index_lag,
    index_metric,
    index_oldest_s,
    index_retries,
    not_indexed,
    until_indexed,
    wanted,
)
from tests.servers import Hikyaku, eventually
from workers.index import CONSUMER

pytestmark = pytest.mark.anyio

SLOWLY_S = 1.5


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SearchStage]:
    async with SearchStage(tmp_path_factory.mktemp("stage")).running() as stage:
        yield stage


@pytest.fixture
def stage(shared: SearchStage) -> Iterator[SearchStage]:
    """Users of each test have names of their own; workers end with it."""
    yield shared
    shared.end_workers()


async def started(stage: SearchStage, *words: str, workers: int = 1) -> list[Hikyaku]:
    """`persist` and index workers; the latter."""
    found = [stage.index(*words) for _ in range(workers)]
    await asyncio.gather(stage.persist().start(), *(each.start() for each in found))
    return found


async def live(stage: SearchStage) -> str:
    return stage.indexes.uid((await SearchNumbers(stage.database).read()).live)


async def begin_again(stage: SearchStage) -> None:
    """The whole log comes once more, from its beginning."""

    async def there() -> bool:
        return await not_indexed(stage.bus) >= 0

    await until(there)
    await api(stage.bus, f"CONSUMER.DELETE.{STREAM}.{CONSUMER.name}")


def turmoil(seed: int, count: int) -> list[events.Message | events.Change]:
    """Messages, and edits and deletions of any earlier one, in a random order."""
    chance = random.Random(seed)
    said: list[events.Chat] = []
    found: list[events.Message | events.Change] = []
    for number in range(count):
        if said and chance.random() < 0.5:
            one = chance.choice(said)
            found.append(
                deleted(one) if chance.random() < 0.2 else edited(one, f"edit {number} by {seed}")
            )
        else:
            said.append(message(f"a{seed}", f"b{seed}", f"message {number}"))
            found.append(said[-1])
    return found


async def test_everything_once_whatever_comes_again(stage: SearchStage) -> None:
    """Two workers; afterwards the whole log once more, from its beginning."""
    first, second = await started(stage, workers=2)
    talk = [conversation(f"a{n}", f"b{n}", 300) for n in range(5)]
    for part in talk:
        await store_in_log(stage.bus, part)
    await until_indexed(stage.bus)
    assert await assert_index_mirrors(stage, stage.database) >= 1000
    assert index_buried(first) == 0
    before = await documents_in(stage.search, await live(stage))
    await begin_again(stage)
    await until_indexed(stage.bus)
    assert await documents_in(stage.search, await live(stage)) == before
    assert index_metric(first, "index_changes_total", change="put") + index_metric(
        second, "index_changes_total", change="put"
    ) > len(before)


async def test_changes_in_any_order_with_redeliveries(stage: SearchStage) -> None:
    """Events of one message come in several batches, from several workers, and again and again."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    await started(stage, workers=3)
    found = turmoil(seed, 1200)
    for start in range(0, len(found), 100):
        await store_in_log(stage.bus, found[start : start + 100])
        if start % 400 == 0:
            await begin_again(stage)
    await until_indexed(stage.bus)
    await until_persisted(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def test_an_edit_that_comes_before_its_message(stage: SearchStage) -> None:
    """In the log it is so when a message was published again; the message has the last word."""
    await started(stage)
    early = message("early", "bob", "first words")
    gone = message("early", "bob", "gone before it came")
    await store_in_log(stage.bus, [edited(early, "other words"), deleted(gone), edited(gone, "no")])
    await until_indexed(stage.bus)
    assert int(early.id) not in await documents_in(stage.search, await live(stage))
    await store_in_log(stage.bus, [early, gone])
    await until_indexed(stage.bus)
    found = await documents_in(stage.search, await live(stage))
    assert found[int(early.id)]["content"] == "other words"
    assert int(gone.id) not in found
    await assert_index_mirrors(stage, stage.database)


async def test_deleted_content_is_gone_from_the_index(stage: SearchStage) -> None:
    await started(stage)
    secret = f"zanzibar{new_id()}"
    said = message("keeps", "bob", secret)
    await store_in_log(stage.bus, [said, edited(said, f"{secret} again")])
    await until_indexed(stage.bus)
    assert secret in str(await documents_in(stage.search, await live(stage)))
    await store_in_log(stage.bus, [deleted(said)])
    await until_indexed(stage.bus)
    assert secret not in str(await documents_in(stage.search, await live(stage)))


async def test_killed_between_task_and_acknowledgement(stage: SearchStage) -> None:
    (dying,) = await started(stage, "die")
    said = conversation("killed", "bob", 200)
    await store_in_log(stage.bus, said)
    await eventually(lambda: not dying.process.running)
    assert await not_indexed(stage.bus) > 0
    there = await documents_in(stage.search, await live(stage))
    assert any(int(each.id) in there for each in said)
    living = stage.index()
    await living.start()
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)
    assert index_buried(living) == 0


async def test_the_search_server_away_for_ten_seconds(stage: SearchStage) -> None:
    (worker,) = await started(stage)
    await store_in_log(stage.bus, conversation("alice", "bob", 100))
    await until_indexed(stage.bus)
    stage.search.process.kill()
    gone = time.monotonic()
    talk = [turmoil(int(new_id()) + n, 1000) for n in range(4)]
    for part in talk:
        await store_in_log(stage.bus, part)
    await until_persisted(stage.bus)
    count = sum(map(len, talk))
    await eventually(lambda: index_lag(worker) == count, what="the lag is seen")
    await eventually(lambda: index_oldest_s(worker) > 8, within_s=15)
    assert index_retries(worker) > 0
    assert worker.process.running
    await eventually(lambda: time.monotonic() - gone > 10, within_s=15)
    assert await not_indexed(stage.bus) == count, "nothing was acknowledged meanwhile"
    info = await api(stage.bus, f"CONSUMER.INFO.{STREAM}.{CONSUMER.name}")
    assert info["num_ack_pending"] <= 2000, "it goes on fetching"
    await stage.search.start()
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)
    await eventually(lambda: index_lag(worker) == 0)
    assert index_oldest_s(worker) == 0
    assert index_buried(worker) == 0
    assert above(worker.get("/metrics"), "index_delay_seconds", "5.0") > 0


async def test_the_search_server_stands_still(stage: SearchStage) -> None:
    """It takes what it was sent while it stood still, later, beside what is sent again."""
    (worker,) = await started(stage)
    said = turmoil(int(new_id()), 300)
    stage.search.process.send(signal.SIGSTOP)
    try:
        for start in range(0, len(said), 30):
            await store_in_log(stage.bus, said[start : start + 30])
        await eventually(lambda: index_retries(worker) > 0, within_s=40)
    finally:
        stage.search.process.send(signal.SIGCONT)
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def test_killed_at_random_while_events_flow(stage: SearchStage) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    first, second = await started(stage, workers=2)
    victims: list[Hikyaku | SearchServer] = [first, second, stage.search, stage.search]
    for number, victim in enumerate(chance.sample(victims, len(victims))):
        await store_in_log(stage.bus, turmoil(seed + number, 400))
        victim.process.kill()
        await store_in_log(stage.bus, turmoil(seed + number + 100, 100))
        await victim.start()
    await until_indexed(stage.bus)
    await until_persisted(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def rebuild(stage: SearchStage) -> subprocess.CompletedProcess[str]:
    """The command, beside the workers."""
    command = [sys.executable, "-m", "deploy.cli", "search", "rebuild"]
    return await asyncio.to_thread(
        subprocess.run, command, env=stage.full_env(), capture_output=True, text=True, timeout=120
    )


async def test_a_lost_index_is_made_again_with_its_settings_and_filled_by_a_rebuild(
    stage: SearchStage,
) -> None:
    (worker,) = await started(stage)
    await store_in_log(stage.bus, conversation("lost", "bob", 20))
    await until_indexed(stage.bus)
    number = (await SearchNumbers(stage.database).read()).live
    await stage.indexes.remove(number)
    said = message("lost", "bob", "after the loss")
    await store_in_log(stage.bus, [said])
    await until_indexed(stage.bus)
    found = await documents_in(stage.search, await live(stage))
    assert set(found) == {int(said.id)}
    # Filters work, so the settings are there.
    assert await stage.indexes.forget(number, "at < 5") == 0
    assert worker.process.running
    done = await rebuild(stage)
    assert done.returncode == 0, done.stderr
    await assert_index_mirrors(stage, stage.database)


async def test_old_messages_leave_the_index(stage: SearchStage) -> None:
    old, young = message("old", "bob", "of long ago"), message("old", "bob", "of today")
    old.timestamp -= 40 * 86_400_000
    keeping = stage.index(HIKYAKU_SEARCH_DAYS="50", HIKYAKU_HOT_DAYS="50")
    await asyncio.gather(stage.persist().start(), keeping.start())
    await store_in_log(stage.bus, [old, young])
    await until_indexed(stage.bus)
    assert {int(old.id), int(young.id)} <= set(await documents_in(stage.search, await live(stage)))
    keeping.process.end()
    removing = stage.index()
    await removing.start()
    await eventually(lambda: index_metric(removing, "index_pruned_total") == 1)
    found = await documents_in(stage.search, await live(stage))
    assert (int(old.id) in found, int(young.id) in found) == (False, True)
    await store_in_log(stage.bus, [edited(old, "of long ago, edited")])
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def flow(stage: SearchStage, said: list[events.Message | events.Change]) -> None:
    """Events into the log, one after another."""
    async with Committer(stage.bus, Log(stage.bus)) as committer:
        for each in said:
            await committer.commit(each.chat_id, events.encode(each), msg_id=new_id())


async def test_a_rebuild_while_events_flow(stage: SearchStage) -> None:
    await started(stage, workers=2)
    await store_in_log(stage.bus, conversation("rebuilt", "bob", 2500))
    await until_indexed(stage.bus)
    before = (await SearchNumbers(stage.database).read()).live
    flowing = asyncio.create_task(flow(stage, turmoil(int(new_id()), 1500)))
    done = await rebuild(stage)
    assert done.returncode == 0, done.stderr
    assert "is searched now" in done.stdout
    after = (await SearchNumbers(stage.database).read()).live
    assert after > before
    await flowing
    await until_indexed(stage.bus)
    await until_persisted(stage.bus)
    await assert_index_mirrors(stage, stage.database)

    async def only_one() -> bool:
        return await stage.indexes.numbers() == [after]

    await until(only_one)


async def test_a_rebuild_that_is_killed_changes_nothing_and_can_be_repeated(
    stage: SearchStage,
) -> None:
    await started(stage)
    await store_in_log(stage.bus, conversation("killed", "bob", 2000))
    await until_indexed(stage.bus)
    numbers = SearchNumbers(stage.database)
    command = [sys.executable, "-m", "deploy.cli", "search", "rebuild"]
    for number in (signal.SIGKILL, signal.SIGINT):
        before = await numbers.read()
        # It takes seconds then, so that it is in the midst of its work when it is killed.
        async with Proxy(stage.search.port) as far:
            far.up.delay_s = far.down.delay_s = SLOWLY_S
            env = {**stage.full_env(), "HIKYAKU_SEARCH_URL": f"http://127.0.0.1:{far.port}"}
            process = await asyncio.to_thread(
                subprocess.Popen, command, env=env, stderr=subprocess.DEVNULL
            )
            try:

                async def began(last: int | None = before.building) -> bool:
                    building = (await numbers.read()).building
                    if building in (None, last):
                        return False
                    return building in await stage.indexes.numbers()

                await until(began)
            finally:
                process.send_signal(number)
                await asyncio.to_thread(process.wait, 30)
        now = await numbers.read()
        assert now.live == before.live
        assert (now.building is None) == (number == signal.SIGINT)
        await store_in_log(stage.bus, conversation("meanwhile", "bob", 30))
        await until_indexed(stage.bus)
        await assert_index_mirrors(stage, stage.database)
    done = await rebuild(stage)
    assert done.returncode == 0, done.stderr
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)
    assert (await numbers.read()).building is None
    assert await stage.indexes.numbers() == [(await numbers.read()).live]
    assert await wanted(stage.database)
