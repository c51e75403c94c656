"""What the search server refuses, and a server that has too much to do."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.dead import DeadLetters
from broker.streams import ensure
from tests.brokers import api, commit_all
from tests.mirror import conversation, edited, message, store_in_log, until_persisted
from tests.searching import (
    SearchStage,
    assert_index_mirrors,
    documents_in,
    index_buried,
    index_lag,
    index_oldest_s,
    not_indexed,
    until_indexed,
)
from tests.servers import Process, eventually
from workers.persist import CONSUMER

pytestmark = pytest.mark.anyio

SMALL_BYTES = 4000
MOST_FETCHED = 2000


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[SearchStage]:
    async with SearchStage(tmp_path).running() as stage:
        yield stage


def small(stage: SearchStage) -> Process:
    """The same server with the same data, which takes less at once."""
    search = stage.search
    words = (str(search.folder / "search"), str(search.port), search.key, str(SMALL_BYTES))
    return Process((sys.executable, "-m", "tests.small_search", *words), search.folder)


async def dead(stage: SearchStage, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.cli", "dead", *words]
    return await asyncio.to_thread(
        subprocess.run, command, env=stage.full_env(), capture_output=True, text=True, timeout=60
    )


async def test_a_refused_message_is_kept_with_the_reason_and_can_be_replayed(
    stage: SearchStage,
) -> None:
    # What comes again, as on a slow machine, would be buried and counted again.
    worker = stage.index(ack_wait_s=20.0)
    await asyncio.gather(stage.persist().start(), worker.start())
    grown = message("alice", "bob", "small at first")
    await store_in_log(stage.bus, [grown])
    await until_indexed(stage.bus)
    own = stage.search.process
    own.end()
    stage.search.process = small(stage)
    await stage.search.start()
    try:
        said = conversation("alice", "bob", 60)
        large = message("alice", "bob", "too large " * 1000)
        await store_in_log(stage.bus, [*said, large, edited(grown, "large later " * 1000)])
        await until_indexed(stage.bus)
        assert index_buried(worker) == 2
        found = await documents_in(stage.search, "messages-1")
        assert len(found) > 50
        assert int(large.id) not in found
        assert int(grown.id) not in found, "nor is what it was before"
        letters = await DeadLetters(stage.bus).all()
        assert [each.worker for each in letters] == ["index", "index"]
        assert all("payload_too_large" in each.reason for each in letters)
        assert f"message {large.id} was refused" in letters[0].reason
        listed = await dead(stage, "list")
        assert "payload_too_large" in listed.stdout
        kept = await dead(stage, "replay", "--all")
        assert (kept.returncode, kept.stderr.count("payload_too_large")) == (1, 2)
    finally:
        stage.search.process.end()
        stage.search.process = own
    await stage.search.start()
    done = await dead(stage, "replay", "--all")
    assert (done.returncode, done.stdout.count("is in the index")) == (0, 2), done
    assert await DeadLetters(stage.bus).all() == []
    await until_persisted(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def test_with_too_many_tasks_nothing_more_is_fetched(stage: SearchStage) -> None:
    """The worker is told that even no task is too many."""
    busy = stage.index("busy")
    await asyncio.gather(stage.persist().start(), busy.start())
    said = conversation("alice", "bob", 5000)
    await store_in_log(stage.bus, said)
    await until_persisted(stage.bus)
    await eventually(lambda: index_lag(busy) == len(said))
    info = await api(stage.bus, "CONSUMER.INFO.CHAT.index")
    assert info["num_ack_pending"] <= MOST_FETCHED
    await eventually(lambda: index_oldest_s(busy) > 1)
    assert await documents_in(stage.search, "messages-1") == {}
    assert await not_indexed(stage.bus) == len(said)
    busy.process.end(signal.SIGTERM)
    await stage.index().start()
    await until_indexed(stage.bus)
    await assert_index_mirrors(stage, stage.database)


async def test_persist_away(stage: SearchStage) -> None:
    """Nothing is indexed, and nothing lost, until MongoDB has it."""
    await ensure(stage.bus, [], [CONSUMER])  # as the directory does, which is not here
    worker = stage.index()
    await worker.start()
    said = conversation("alice", "bob", 200)
    await store_in_log(stage.bus, said)
    await eventually(lambda: index_lag(worker) == len(said))
    await eventually(lambda: index_oldest_s(worker) > 1)
    assert await not_indexed(stage.bus) == len(said)
    await stage.persist().start()
    await until_indexed(stage.bus)
    assert await assert_index_mirrors(stage, stage.database) > 100
    assert index_buried(worker) == 0


async def test_what_cannot_be_read_holds_up_nothing(stage: SearchStage) -> None:
    worker = stage.index()
    await asyncio.gather(stage.persist().start(), worker.start())
    good = message("alice", "bob", "good")
    await commit_all(
        stage.bus,
        [
            ("dm.alice.bob", b"garbage"),
            ("dm.alice.bob", b'{"type":"unheard_of"}'),
            ("dm.alice.carol", b'{"type":"message_deleted","id":"x"}'),
        ],
    )
    await store_in_log(stage.bus, [good])
    await until_indexed(stage.bus)
    assert set(await documents_in(stage.search, "messages-1")) == {int(good.id)}
    await until_persisted(stage.bus)
    letters = await DeadLetters(stage.bus).all()
    assert {each.worker for each in letters} == {"persist"}, "told once"
