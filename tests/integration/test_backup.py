"""A site backed up while it serves, and restored into empty servers: what comes back."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from bson import decode_file_iter
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from broker.bus import Bus
from broker.log import Log
from broker.roles import OPERATOR
from broker.streams import LAYOUT
from deploy import local_nats
from deploy.backup_format import Manifest, object_lines, read_manifest, write_manifest
from store.config import StoreConfig
from store.database import connect as connect_database
from tests.brokers import api, event_at, make_bus
from tests.chat import Clients, Frame
from tests.filesite import FileSite, Web
from tests.mirror import compare, until_persisted
from tests.servers import LINKS, Mongo, Nats, as_role, eventually, password

pytestmark = pytest.mark.anyio

WITHIN_S = 120.0
MOVING = {"messages", "chats", "reads", "log", "file_uses", "outbox"}
"""Collections into which a restore writes what the log has more."""


class Answer(NamedTuple):
    status: int
    said: str


async def hikyaku(site: FileSite, *words: str, **settings: str) -> Answer:
    """Run a command as an operator of this site does."""
    own = site.persist.process._env or {}
    env = {**os.environ, **own, **as_role(OPERATOR), **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy.cli", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Answer(process.returncode, said.decode())


class Story(NamedTuple):
    """What happened at the site that was backed up."""

    source: FileSite
    folder: Path
    manifest: Manifest
    said: str
    group: str
    file: Frame
    content: bytes
    acks: list[Frame]
    carols: str
    alices: str
    epoch: str


@pytest.fixture(scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    folder = tmp_path_factory.mktemp("backup")
    site = FileSite(folder / "source", HIKYAKU_MESSAGES_PER_S="500", HIKYAKU_MESSAGES_BURST="1000")
    try:
        await site.start()
        yield await _lived(site, folder / "site")
    finally:
        site.stop()


async def _lived(site: FileSite, folder: Path) -> Story:
    content = os.urandom(300_000)
    async with Clients() as connect, Web(site.edges[0], "alice") as web:
        alice = await connect(site.edges[0], "alice")
        bob = await connect(site.edges[1], "bob")
        carol = await connect(site.edges[1], "carol")
        group = (await alice.group("bob", "carol"))["group_id"]
        await carol.until("member_added")
        first = await alice.say("bob", "the first")
        await alice.write(
            "edit", chat_id=first["chat_id"], message_id=first["message_id"], content="edited"
        )
        await bob.ask(
            "read_receipt", chat_id=first["chat_id"], last_read_msg_id=first["message_id"]
        )
        await bob.ask("presence_set", status="dnd", text="busy")
        file = await web.upload(first["chat_id"], content)
        await alice.say("bob", "with a file", attachments=[file["id"]])
        await carol.close()
        carols = carol.cursor

        acks: list[Frame] = [await alice.say("carol", f"before {n}") for n in range(20)]
        stop = asyncio.Event()

        async def flow() -> None:
            while not stop.is_set():
                acks.append(await alice.say("carol", f"while {len(acks)}"))

        flowing = asyncio.create_task(flow())
        done = await hikyaku(site, "backup", str(folder))
        assert done.status == 0, done.said
        stop.set()
        await flowing
        acks += [await alice.say("carol", f"after {n}") for n in range(5)]
        await alice.until("chat", content="after 4")
        manifest = read_manifest(folder)
        epoch = alice.welcome["epoch"]
        alices = alice.cursor
    return Story(
        *(site, folder, manifest, done.said, group, file, content, acks, carols, alices, epoch)
    )


class Restored(NamedTuple):
    """A site restored from the backup; `said` by the command, `untouched` what was compared."""

    site: FileSite
    said: str


@pytest.fixture(scope="module")
async def restored(
    story: Story, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Restored]:
    site = FileSite(tmp_path_factory.mktemp("restored"))
    try:
        _configure(site.nats, restoring=True)
        await asyncio.gather(site.nats.start(), site.mongo.start())
        done = await hikyaku(site, "restore", str(story.folder))
        assert done.status == 0, done.said
        await _compare_servers(story, site)
        site.nats.process.end()
        _configure(site.nats, restoring=False)
        await site.nats.start()
        processes = (site.worker, site.persist, site.query, site.files, *site.edges)
        await asyncio.gather(*(each.start() for each in processes))
        yield Restored(site, done.said)
    finally:
        site.stop()


def _configure(nats: Nats, *, restoring: bool) -> None:
    service = local_nats.service(
        local_nats.find(),
        nats.process.log.parent,
        site="test",
        port=nats.port,
        monitor_port=nats.monitor_port,
        links_folder=nats.process.log.parent / LINKS,
        password=password,
        env={},
        restoring=restoring,
    )
    nats._probe = service.probe


async def _compare_servers(story: Story, site: FileSite) -> None:
    """Before anything of ours runs: what the servers have is what the manifest says."""
    manifest = story.manifest
    async with make_bus(story.source.nats.url) as before, make_bus(site.nats.url) as bus:
        await before.wait_connected(10)
        await bus.wait_connected(10)
        for part in manifest.streams:
            name = part.config["name"]
            info = await api(bus, f"STREAM.INFO.{name}")
            if name not in ("KV_edges", "KV_machines", "KV_presence"):  # they have what ends
                assert info["state"]["messages"] >= part.state["messages"], name
            if name != "CHAT":
                assert info["state"]["last_seq"] >= part.state["last_seq"], name
                assert info["config"]["subjects"] == part.config["subjects"]
        for seq in range(manifest.log.first_seq, manifest.log.last_seq + 1):
            assert await event_at(bus, seq) == await event_at(before, seq)
        for bucket in ("KV_reads", "KV_delivered"):
            assert await _values(before, bucket) == await _values(bus, bucket)
        consumers = (await api(bus, "CONSUMER.NAMES.CHAT"))["consumers"]
        assert "persist" in consumers
        state = await Log(bus).state()
        assert state.epoch != story.epoch
        assert state.ancestors == {story.epoch: manifest.log.last_seq}
        assert state.last_seq > story.acks[-1]["seq"] + 900_000
        async with connect_database(StoreConfig(url=site.mongo.url)) as database:
            assert await compare(bus, database) > 20
    async with connect_database(StoreConfig(url=site.mongo.url)) as database:
        for collection in manifest.collections:
            kept = _documents(story.folder / collection.file.path)
            assert len(kept) == collection.documents
            raw = database[collection.name].with_options(
                codec_options=CodecOptions(document_class=RawBSONDocument)
            )
            found = {repr(each["_id"]): bytes(each.raw) async for each in raw.find({})}
            if collection.name not in MOVING:
                assert found == kept, collection.name
            assert kept.keys() <= found.keys(), collection.name
            if collection.name == "messages":
                assert kept.items() <= found.items()
            if not collection.indexes:
                continue
            answer = await database.command({"listIndexes": collection.name})
            names = {each["name"] for each in answer["cursor"]["firstBatch"]}
            assert names >= {each["name"] for each in collection.indexes}
    for objects in manifest.objects:
        if objects.store == "files":
            keys = sorted(line.key for line in object_lines(story.folder, objects))
            home = site.home / "files"
            assert keys == sorted(str(each.relative_to(home)) for each in site.stored())
            for key in keys:
                assert (home / key).read_bytes() == (
                    story.folder / "objects" / "files" / key
                ).read_bytes()


async def _values(bus: Bus, bucket: str) -> dict[str, bytes]:
    log = Log(bus, stream=bucket)
    return {each.subject: each.data for each in (await log.read(">", 1)).events}


def _documents(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        found = decode_file_iter(file, CodecOptions(document_class=RawBSONDocument))
        return {repr(each["_id"]): bytes(each.raw) for each in found}


async def test_the_backup_says_what_it_has(story: Story) -> None:
    manifest = story.manifest
    assert f"The log from 1 to {manifest.log.last_seq}, epoch {story.epoch}" in story.said
    assert manifest.log.epoch == story.epoch
    assert manifest.layout == LAYOUT
    assert manifest.created_ms <= manifest.finished_ms
    assert 0 < manifest.log.persisted_seq <= manifest.log.last_seq
    acked = [each["seq"] for each in story.acks]
    assert acked[19] <= manifest.log.last_seq < acked[-1], "messages flowed meanwhile"
    assert [each.objects for each in manifest.objects if each.store == "files"] == [1]
    assert not list(story.folder.parent.glob(".*"))


async def test_a_cursor_of_the_backup_goes_on_with_exactly_the_rest(
    story: Story, restored: Restored
) -> None:
    async with Clients() as connect:
        carol = await connect(restored.site.edges[0], "carol", cursor=story.carols)
        caught_up = await carol.until("caught_up")
        assert caught_up["recovered"] is True
        assert caught_up["missing"] == []
        assert carol.welcome["epoch"] != story.epoch
        last = story.manifest.log.last_seq
        wanted = [each["message_id"] for each in story.acks if each["seq"] <= last]
        found = [each["id"] for each in carol.durable()]
        assert found[: len(wanted)] == wanted
        assert [each["seq"] for each in carol.durable()] == sorted(
            {each["seq"] for each in carol.durable()}
        )


async def test_a_cursor_from_after_the_backup_is_told_and_loses_nothing_that_is_there(
    story: Story, restored: Restored
) -> None:
    seen = {each["seq"] for each in story.acks}
    async with Clients() as connect:
        alice = await connect(restored.site.edges[0], "alice", cursor=story.alices)
        assert (await alice.until("caught_up"))["recovered"] is False
        again = await alice.say("carol", "after the restore")
        assert again["seq"] > max(seen)
        assert again["message_id"] not in {each["message_id"] for each in story.acks}
        found = await alice.ask("history", chat_id=again["chat_id"], limit=200)
        last = story.manifest.log.last_seq
        kept = [each["message_id"] for each in story.acks if each["seq"] <= last]
        ids = [each["id"] for each in found["messages"]]
        assert set(kept[-150:]) <= set(ids)
        # And its new cursor is one of the new log.
        cursor = alice.cursor
        await alice.close()
        back = await connect(restored.site.edges[1], "alice", cursor=cursor)
        assert (await back.until("caught_up"))["recovered"] is True


async def test_what_was_there_is_there(story: Story, restored: Restored) -> None:
    site = restored.site
    async with Clients() as connect, Web(site.edges[1], "bob") as web:
        bob = await connect(site.edges[1], "bob")
        chats = (await bob.ask("chats"))["chats"]
        assert {each["kind"] for each in chats} == {"dm", "group"}
        with_alice = next(each for each in chats if each["kind"] == "dm")
        found = await bob.ask("history", chat_id=with_alice["chat_id"])
        assert [each["content"] for each in found["messages"]] == ["with a file", "edited"]
        assert with_alice["unread"] == 1
        answer = await web.get(story.file)
        assert answer.body == story.content
        await bob.tell(story.group, "hello again")
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await until_persisted(bus)


async def test_servers_that_have_something_are_refused(story: Story, restored: Restored) -> None:
    done = await hikyaku(restored.site, "restore", str(story.folder))
    assert done.status == 2
    for each in ("NATS has CHAT, ", "; NATS has ", " messages, ", "is not empty: MongoDB has "):
        assert each in done.said
    assert done.said.count("MongoDB has") == 1


async def test_a_damaged_file_is_named_and_nothing_is_written(story: Story, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(story.folder, copy)
    (messages,) = [each for each in story.manifest.collections if each.name == "messages"]
    victim = copy / messages.file.path
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    # No server runs: it is found before one is asked.
    done = await hikyaku(FileSite(tmp_path / "site"), "restore", str(copy))
    assert done.status == 1
    assert f"{victim} is damaged" in done.said


async def test_only_mongodb_was_lost(story: Story, tmp_path: Path) -> None:
    """The log has what came after the backup too, so nothing is lost."""
    fresh = Mongo(tmp_path)
    await fresh.start()
    try:
        log = {"HIKYAKU_MONGO_URL": fresh.url}
        done = await hikyaku(story.source, "restore", str(story.folder), "--keep-log", **log)
        assert done.status == 0, done.said
        assert "store of files: left as it is" in done.said
        async with (
            make_bus(story.source.nats.url) as bus,
            connect_database(StoreConfig(url=fresh.url)) as database,
        ):
            await bus.wait_connected(10)
            assert await compare(bus, database) > 20
            assert await database["groups"].count_documents({}) == 1
            newest = await database["messages"].find_one({}, sort=[("seq", -1)])
            assert newest["seq"] >= story.acks[-1]["seq"]
        again = await hikyaku(story.source, "restore", str(story.folder), "--keep-log", **log)
        assert again.status == 2
        assert "is not empty: MongoDB has " in again.said
    finally:
        fresh.process.kill()


async def test_a_log_that_is_another_is_not_kept(story: Story, restored: Restored) -> None:
    older = story.folder.parent / "older"
    shutil.copytree(story.folder, older)
    (older / "manifest.json").unlink()
    (older / "manifest.sha256").unlink()
    log = msgspec.structs.replace(story.manifest.log, epoch="another")
    write_manifest(older, msgspec.structs.replace(story.manifest, log=log))
    done = await hikyaku(restored.site, "restore", str(older), "--keep-log")
    assert done.status == 2
    assert "the log cannot be kept: it is not the one of the backup" in done.said


async def test_a_killed_backup_is_none(story: Story, tmp_path: Path) -> None:
    site = story.source
    folder, part = tmp_path / "killed", tmp_path / ".killed.part"
    site.mongo.process.send(signal.SIGSTOP)
    try:
        running = asyncio.create_task(hikyaku(site, "backup", str(folder)))
        await eventually(part.exists, within_s=30)
        running.cancel()
        await asyncio.wait([running])
    finally:
        site.mongo.process.send(signal.SIGCONT)
    assert not folder.exists()
    done = await hikyaku(site, "restore", str(part))
    assert done.status == 2
    assert "is not a backup: it was not finished" in done.said
    done = await hikyaku(site, "backup", str(folder), "--without-objects")
    assert done.status == 0, done.said
    assert "which an interrupted backup left" in done.said
    assert read_manifest(folder).objects == []
    assert not part.exists()


async def test_a_backup_that_cannot_be_made_leaves_nothing(story: Story, tmp_path: Path) -> None:
    nobody = {"HIKYAKU_NATS_URL": "nats://127.0.0.1:9"}
    done = await hikyaku(story.source, "backup", str(tmp_path / "new"), **nobody)
    assert done.status == 1
    assert "NATS does not answer" in done.said
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_backup_does_not_overwrite(story: Story) -> None:
    done = await hikyaku(story.source, "backup", str(story.folder))
    assert done.status == 2
    assert "is there already" in done.said


async def test_another_site_or_a_clock_before_the_backup(story: Story, tmp_path: Path) -> None:
    other = FileSite(tmp_path / "site")
    done = await hikyaku(other, "restore", str(story.folder), HIKYAKU_SITE="other")
    assert done.status == 2
    assert "HIKYAKU_SITE=" in done.said
    later = tmp_path / "later"
    later.mkdir()
    ahead = story.manifest.created_ms + 3_600_000
    write_manifest(later, msgspec.structs.replace(story.manifest, created_ms=ahead))
    done = await hikyaku(other, "restore", str(later))
    assert done.status == 2
    assert "the clock of this machine is wrong" in done.said


async def test_a_backup_of_a_version_with_a_newer_layout(story: Story, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    changed = {"layout": LAYOUT + 1, "layout_least": LAYOUT + 1}
    write_manifest(newer, msgspec.structs.replace(story.manifest, **changed))
    done = await hikyaku(FileSite(tmp_path / "site"), "restore", str(newer))
    assert done.status == 2
    assert "Run the newer version" in done.said
