"""What cannot be stored goes to the dead letters, holds up nothing, and can be tried again."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from broker import events, subjects
from broker.consumer import Delivery
from broker.dead import DeadLetters
from broker.errors import BrokerError
from deploy.cli import main
from store import documents
from tests.brokers import commit_all
from tests.mirror import (
    behind,
    deleted,
    edited,
    message,
    store_in_log,
    stored_documents,
    until_persisted,
)
from tests.stage import Stage, metric

pytestmark = pytest.mark.anyio

FORBIDDEN = "what MongoDB does not take"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")).running() as stage:
        yield stage


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    yield shared
    shared.end_workers()


Dead = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def dead(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dead:
    """Runs `hikyaku dead …`; status, output and error output."""
    monkeypatch.setattr("deploy.dead.CONNECT_S", 1.0)
    monkeypatch.setenv("COLUMNS", "300")
    for name in [name for name in os.environ if name.startswith("HIKYAKU_")]:
        monkeypatch.delenv(name)

    async def run(*words: str, **settings: str) -> tuple[int, str, str]:
        for name, value in stage.env(**settings).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        try:
            status = await asyncio.to_thread(main, ["dead", *words])
        except SystemExit as wrong_use:
            status = int(str(wrong_use))
        return status, *capsys.readouterr()

    return run


async def forbid(stage: Stage, content: str | None) -> None:
    """MongoDB refuses messages with this content, or none any more."""
    rule = {} if content is None else {"content": {"$ne": content}}
    await stage.database._database.command("collMod", "messages", validator=rule)


async def test_poison_holds_up_nothing_and_is_replayed_when_mended(
    stage: Stage, dead: Dead
) -> None:
    worker = stage.persist()
    await worker.start()
    await forbid(stage, FORBIDDEN)
    good = [message("alice", "bob", f"good {number}") for number in range(6)]
    refused = message("alice", "bob", FORBIDDEN)
    large = message("alice", "bob", "an id too large", thread=str(2**70))
    strange = message("alice", "bob", "an id that is none")
    strange.id = "abc"
    elsewhere = message("alice", "carol", "of another chat")
    to_forbidden = edited(good[0], FORBIDDEN)
    pointer = events.ReadReceipt(
        chat_id=good[0].chat_id, reader_id="bob", last_read_msg_id="1", read_seq=2**70
    )
    chat = subjects.dm("alice", "bob")
    stored = [(chat, events.encode(each)) for each in (good[0], refused, good[1], large, good[2])]
    stored += [(chat, events.encode(strange)), (chat, events.encode(elsewhere))]
    stored += [(chat, b"\xff\x00 garbage"), (chat, b""), (chat, b'{"type":"unheard of"}')]
    stored += [(subjects.user("bob"), events.encode(pointer)), (chat, events.encode(good[3]))]
    stored += [(chat, events.encode(to_forbidden)), (chat, events.encode(good[4]))]
    seqs = await commit_all(stage.bus, stored)
    began = time.monotonic()
    await until_persisted(stage.bus, within_s=20)
    assert time.monotonic() - began < 15

    letters = await DeadLetters(stage.bus).all()
    by_seq = {each.seq - seqs[0]: each for each in letters}
    assert sorted(by_seq) == [1, 3, 5, 6, 7, 8, 9, 10, 12]
    assert {each.worker for each in letters} == {"persist"}
    assert {each.subject for each in letters} == {chat, subjects.user("bob")}
    for place, why in {
        1: "failed validation",
        3: "too large",
        5: "'abc' is no message id",
        6: "names the chat 'dm.alice.carol'",
        7: "not readable",
        8: "not readable",
        9: "unheard of",
        10: "OverflowError",
        12: "failed validation",
    }.items():
        assert why in by_seq[place].reason
        assert by_seq[place].event == stored[place][1]
    found = await stored_documents(stage.database)
    assert all(int(each.id) in found for each in good[:5])
    assert found[int(good[0].id)]["content"] == "good 0"
    assert metric(worker, "consumer_dead_letters_total", consumer="persist") == len(letters)
    assert b"Traceback" not in worker.process.log.read_bytes()

    status, out, _ = await dead("list")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["number", "worker", "seq", "subject", "reason"]
    assert len(lines) == 1 + len(letters)
    for each, line in zip(letters, lines[1:], strict=True):
        assert line.split()[:4] == [str(each.number), "persist", str(each.seq), each.subject]
        assert each.reason[:20] in line

    status, out, _ = await dead("show", str(by_seq[7].number))
    assert status == 0
    assert "\\xff\x00 garbage" in out
    assert by_seq[7].reason in out

    number = str(by_seq[1].number)
    status, _, err = await dead("replay", number)
    assert (status, "failed validation" in err) == (1, True)
    await forbid(stage, None)
    status, out, _ = await dead("replay", number)
    assert (status, "is in MongoDB" in out) == (0, True)
    found = await stored_documents(stage.database)
    assert documents.view(found[int(refused.id)])["content"] == FORBIDDEN
    assert found[int(refused.id)]["seq"] == by_seq[1].seq
    status, _, err = await dead("replay", number)
    assert (status, f"there is no dead letter {number}" in err) == (2, True)

    status, out, err = await dead("replay", "--all")
    assert status == 1, "garbage stays garbage"
    assert out.count("is in MongoDB") == 1
    assert err.count("is kept") == 7
    left = {each.seq - seqs[0] for each in await DeadLetters(stage.bus).all()}
    assert left == {3, 5, 6, 7, 8, 9, 10}
    found = await stored_documents(stage.database)
    assert found[int(good[0].id)]["content"] == FORBIDDEN, "the edit was replayed"


async def test_replaying_what_changed_since(stage: Stage, dead: Dead) -> None:
    """An old edit does not undo a newer one, and a deleted message stays deleted."""
    letters = DeadLetters(stage.bus)
    one, two = message("alice", "dave", "one"), message("alice", "dave", "two")
    found: list[events.Message | events.Change] = [one, two]
    found += [edited(one, "old"), edited(two, "old"), edited(one, "new"), deleted(two)]
    seqs = await store_in_log(stage.bus, found)
    for place in (2, 3):
        data = events.encode(found[place])
        delivery = Delivery(seqs[place], one.chat_id, data, 1, 0, 0, "")
        await letters.bury("persist", delivery, "just so")
        await letters.bury("persist", delivery, "a redelivery is buried once")
    worker = stage.persist()
    await worker.start()
    await until_persisted(stage.bus)
    mine = [each for each in await letters.all() if each.reason == "just so"]
    assert len(mine) == 2
    for each in mine:
        status, _, err = await dead("replay", str(each.number))
        assert status == 0, err
    after = await stored_documents(stage.database)
    assert after[int(one.id)]["content"] == "new"
    assert "content" not in after[int(two.id)]


async def test_wrong_use_and_servers_that_are_away(stage: Stage, dead: Dead) -> None:
    for words in (
        ("show",),
        ("replay",),
        ("list", "1"),
        ("list", "--all"),
        ("replay", "1", "--all"),
    ):
        status, _, err = await dead(*words)
        assert (status, "use `dead list`" in err) == (2, True), words
    for words in (("bury",), ("show", "x"), ("show", "0")):
        assert (await dead(*words))[0] == 2
    away = {"HIKYAKU_NATS_URL": "nats://127.0.0.1:9"}
    status, _, err = await dead("list", **away)
    assert (status, "127.0.0.1:9" in err) == (2, True)
    letters = DeadLetters(stage.bus)
    delivery = Delivery(10**6, "dm.a.b", b"{}", 1, 0, 0, "")
    await letters.bury("other", delivery, "another worker's")
    data = events.encode(message("alice", "erin", "x"))
    await letters.bury("persist", Delivery(10**6, "dm.alice.erin", data, 1, 0, 0, ""), "sound")
    other, sound = (await letters.all())[-2:]
    status, _, err = await dead("replay", str(other.number))
    assert (status, "'other'" in err) == (1, True)
    away = {"HIKYAKU_MONGO_URL": "mongodb://127.0.0.1:9/?directConnection=true"}
    status, _, err = await dead("replay", str(sound.number), **away)
    assert (status, "127.0.0.1:9" in err) == (2, True)
    assert await letters.get(sound.number) is not None, "not replayed, so not removed"
    for each in await letters.all():
        await letters.remove(each.number)
    status, out, _ = await dead("list")
    assert (status, out) == (0, "There are no dead letters.\n")
    with pytest.raises(BrokerError):
        await letters.remove(10**9)


async def test_pages_of_letters(stage: Stage) -> None:
    letters = DeadLetters(stage.bus)
    for seq in range(5):
        await letters.bury("w", Delivery(seq, "dm.a.b", b"\x00\xff", 1, 0, 0, ""), "r" * 5000)
    found = await letters.all()
    assert [each.seq for each in found] == [0, 1, 2, 3, 4]
    assert [each.seq for each in await letters.all(3)] == [0, 1, 2]
    await letters.remove(found[1].number)
    assert [each.seq for each in await letters.all(3)] == [0, 2, 3]
    assert await letters.get(found[1].number) is None
    assert {len(each.reason) for each in found} == {1000}
    assert await behind(stage.bus) >= 0
