"""What becomes of files: kept once, kept while a message has them, removed when nothing does."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bson.int64 import Int64

from broker import events, outbox, subjects
from broker.batch import Part, publish_all
from broker.roles import OPERATOR
from broker.snowflake import EPOCH_MS, unix_ms
from broker.streams import purge
from store.config import StoreConfig
from store.database import Database, connect
from store.documents import Entry
from store.messages import Messages
from tests.federation.test_trust import message, submitted
from tests.servers import as_role

from ..brokers import make_bus
from ..chat import Clients, names
from ..edges import trouble
from ..filesite import FileSite, Web
from ..pictures import halves, picture
from ..search_servers import SearchServer
from ..searching import search_env

pytestmark = pytest.mark.anyio

KB = 1024
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    """Here a day is two seconds, for what nothing refers to."""
    site = FileSite(
        tmp_path_factory.mktemp("sweep"),
        HIKYAKU_FILE_BYTES=str(100 * KB),
        HIKYAKU_FILES_QUOTA_BYTES=str(300 * KB),
        HIKYAKU_FILES_ORPHAN_S="2",
        HIKYAKU_FILES_UPLOAD_S="3",
        HIKYAKU_FILES_SWEEP_S="0.1",
        HIKYAKU_RETENTION_DAYS="60",
    )
    try:
        await site.start()
        yield site
        assert [each for server in (*site.edges, site.files) for each in trouble(server)] == []
    finally:
        site.stop()


@pytest.fixture
async def database(site: FileSite) -> AsyncIterator[Database]:
    async with connect(StoreConfig(url=site.mongo.url)) as database:
        yield database


async def until(database: Database, collection: str, query: dict[str, Any], count: int) -> None:
    deadline = time.monotonic() + 20
    while (found := await database[collection].count_documents(query)) != count:
        assert time.monotonic() < deadline, f"{collection} {query}: {found}, not {count}"
        await asyncio.sleep(0.02)


async def sweeps(site: FileSite, count: int = 2) -> None:
    """Wait until the worker has swept again."""
    goal = site.metric("sweeps_total", result="done") + count
    deadline = time.monotonic() + 30
    while site.metric("sweeps_total", result="done") < goal:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def days_later(database: Database, file_id: str) -> None:
    """As if the file had come, and been asked about, days ago."""
    await database["files"].update_one({"_id": file_id}, {"$set": {"keep_until": Int64(1)}})


async def is_there(web: Web, file_id: str) -> bool:
    status = (await web.get(file_id)).status
    assert status in (200, 404)
    return status == 200


def objects(site: FileSite, sha256: str) -> list[Path]:
    return [each for each in site.stored() if sha256 in each.name]


async def test_equal_bytes_are_kept_once(site: FileSite, database: Database) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    data = os.urandom(50 * KB)
    async with Web(site.edges[0], alice) as a, Web(site.edges[0], carol) as c:
        first = await a.upload(subjects.dm(alice, bob), data, "one")
        second = await c.upload(subjects.dm(carol, bob), data, "two")
        assert first["id"] != second["id"]
        assert first["sha256"] == second["sha256"]
        assert len(objects(site, first["sha256"])) == 1
        assert (await a.get(second)).status == (await c.get(first)).status == 404
        image = picture("PNG", halves(64, 48))
        one = await a.upload(subjects.dm(alice, bob), image, "x.png")
        two = await a.upload(subjects.dm(alice, bob), image + b"and more", "y.png")
        assert one["sha256"] == two["sha256"], "they differ in what is left out"
        assert len(objects(site, one["sha256"])) == 2, "the image and its thumbnail"
        await database["files"].update_one(
            {"_id": second["id"]}, {"$set": {"keep_until": Int64(unix_ms() + DAY_MS)}}
        )
        await until(database, "files", {"_id": first["id"]}, 0)
        await sweeps(site)
        assert (await c.get(second)).body == data, "the other one's bytes are not gone with it"
        await days_later(database, second["id"])
        await until(database, "files", {"_id": second["id"]}, 0)
        await until(database, "file_blobs", {"_id": first["sha256"]}, 0)
        await until(database, "file_garbage", {}, 0)
        assert objects(site, first["sha256"]) == []


async def test_what_no_message_has_is_removed(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect_client, Web(site.edges[0], alice) as a:
        client = await connect_client(site.edges[0], alice)
        chat = subjects.dm(alice, bob)
        lost = await a.upload(chat, os.urandom(KB))
        sent = await a.upload(chat, os.urandom(KB))
        await client.say(bob, "", attachments=[sent["id"]])
        await until(database, "file_uses", {"file": sent["id"]}, 1)
        await days_later(database, sent["id"])
        await until(database, "files", {"_id": lost["id"]}, 0)
        await sweeps(site)
        assert not await is_there(a, lost["id"])
        assert await is_there(a, sent["id"])
        assert "free" not in (await database["files"].find_one({"_id": sent["id"]}))
        refused = await client.write("chat", to=bob, content="", attachments=[lost["id"]])
        assert refused["code"] == "not_found"


async def test_a_deleted_message_releases_its_file(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect_client, Web(site.edges[0], alice) as a:
        client = await connect_client(site.edges[0], alice)
        file = await a.upload(chat, os.urandom(KB))
        said = [await client.say(bob, str(n), attachments=[file["id"]]) for n in range(2)]
        await until(database, "file_uses", {"file": file["id"]}, 2)
        await days_later(database, file["id"])
        for number, each in enumerate(said):
            await sweeps(site)
            assert await is_there(a, file["id"]), number
            await client.write("delete", chat_id=chat, message_id=each["message_id"])
        await until(database, "files", {"_id": file["id"]}, 0)
        await until(database, "file_uses", {"file": file["id"]}, 0)
        assert not await is_there(a, file["id"])


async def test_a_file_whose_message_is_on_its_way_is_kept(
    site: FileSite, database: Database
) -> None:
    """Between the question and MongoDB there may be any time: persist is away."""
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect_client, Web(site.edges[0], alice) as a:
        client = await connect_client(site.edges[0], alice)
        file = await a.upload(chat, os.urandom(KB))
        site.persist.process.kill()
        try:
            await client.say(bob, "", attachments=[file["id"]])
            await days_later(database, file["id"])
            behind = site.metric("sweeps_total", result="behind")
            deadline = time.monotonic() + 60
            while site.metric("sweeps_total", result="behind") == behind:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert await is_there(a, file["id"])
        finally:
            await site.persist.start()
        await until(database, "file_uses", {"file": file["id"]}, 1)
        await sweeps(site)
        assert await is_there(a, file["id"])


async def test_asking_about_a_file_keeps_it(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect_client, Web(site.edges[0], alice) as a:
        client = await connect_client(site.edges[0], alice)
        file = await a.upload(subjects.dm(alice, bob), os.urandom(KB))
        before = (await database["files"].find_one({"_id": file["id"]}))["keep_until"]
        await client.write("chat", to=bob, content="", attachments=[file["id"], "A" * 22])
        after = (await database["files"].find_one({"_id": file["id"]}))["keep_until"]
        assert after > before + 500_000


async def test_a_half_sent_upload_expires(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        where = (await a.create(subjects.dm(alice, bob), 10 * KB)).headers["Location"]
        upload_id = where.rpartition("/")[2]
        assert (await a.patch(where, 0, os.urandom(5 * KB))).status == 204
        assert [each for each in site.stored() if upload_id in each.name]
        await until(database, "file_uploads", {"_id": upload_id}, 0)
        await until(database, "file_garbage", {}, 0)
        assert not [each for each in site.stored() if upload_id in each.name]
        assert (await a.tus("HEAD", where)).status == 404
        # The parts of a finished one are gone too, and it is not.
        where = (await a.create(subjects.dm(alice, bob), 10 * KB)).headers["Location"]
        await a.patch(where, 0, os.urandom(5 * KB))
        done = await a.patch(where, 5 * KB, os.urandom(5 * KB))
        await database["files"].update_one(
            {"_id": done.headers["Hikyaku-File"]}, {"$set": {"keep_until": Int64(2**60)}}
        )
        upload_id = where.rpartition("/")[2]
        await until(database, "file_uploads", {"_id": upload_id}, 0)
        await until(database, "file_garbage", {}, 0)
        assert not [each for each in site.stored() if upload_id in each.name]
        assert await is_there(a, done.headers["Hikyaku-File"])


async def test_a_user_has_a_quota(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    data = os.urandom(100 * KB)
    async with Web(site.edges[0], alice) as a, Web(site.edges[0], bob) as b:
        files = [await a.upload(chat, data) for _ in range(3)]
        await database["files"].update_many(
            {"_id": {"$in": [each["id"] for each in files]}},
            {"$set": {"keep_until": Int64(2**60)}},
        )
        for size in (1, 100 * KB):
            over = await a.post(chat, bytes(size))
            assert (over.status, over.json["code"]) == (413, "too_large")
            assert "your files take 307200 of 307200 bytes" in over.json["message"]
        refused = await a.create(chat, 1)
        assert (refused.status, refused.json["code"]) == (413, "too_large")
        await b.upload(chat, data)
        await days_later(database, files[0]["id"])
        await until(database, "files", {"_id": files[0]["id"]}, 0)
        await a.upload(chat, data)
        # Unfinished ones count when others are begun, and all of them when they are finished.
        await days_later(database, files[1]["id"])
        await until(database, "files", {"_id": files[1]["id"]}, 0)
        first = await a.create(chat, 60 * KB)
        assert first.status == 201
        assert (await a.create(chat, 60 * KB)).status == 413


async def test_many_at_once_do_not_pass_the_quota(site: FileSite, database: Database) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], alice) as b:
        answers = await asyncio.gather(
            *((a, b)[n % 2].post(chat, os.urandom(90 * KB)) for n in range(8))
        )
        taken = [each for each in answers if each.status == 201]
        assert {each.status for each in answers} <= {201, 413, 503}
        assert 1 <= len(taken) <= 3
        owner = await database["file_owners"].find_one({"_id": alice})
        assert owner["bytes"] <= 300 * KB


async def test_messages_past_their_retention_keep_no_files(
    site: FileSite, database: Database
) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a:
        old = (unix_ms() - EPOCH_MS - 61 * DAY_MS) << 22
        young = (unix_ms() - EPOCH_MS - 59 * DAY_MS) << 22
        files = {}
        for message in (old, young):
            file = await a.upload(chat, os.urandom(KB))
            files[message] = file["id"]
            use = {"file": file["id"], "message": Int64(message), "chat": chat}
            await database["file_uses"].insert_one({"_id": uuid4().hex, **use})
            await days_later(database, file["id"])
        await until(database, "files", {"_id": files[old]}, 0)
        await sweeps(site)
        assert await is_there(a, files[young])


def message_with(file_ids: list[str], number: int, **more: Any) -> events.Chat:
    files = [
        events.File(id=each, name="x", size=1, content_type="x", sha256="0") for each in file_ids
    ]
    return events.Chat(
        id=str(number),
        chat_id="dm.a.b",
        from_="a",
        to="b",
        content="",
        content_type="text",
        timestamp=1,
        client_id=more.pop("client_id", f"c{number}"),
        attachments=file_ids,
        files=files,
        **more,
    )


@pytest.mark.parametrize("seed", range(20))
async def test_uses_are_right_in_any_order_and_number(
    site: FileSite, database: Database, seed: int
) -> None:
    """What is redelivered, overtaken or written by two processes at once changes nothing."""
    chance = random.Random(seed)
    name = f"uses{seed}"
    async with connect(StoreConfig(url=site.mongo.url, database=name)) as fresh:
        writers = [Messages(fresh) for _ in range(2)]
        await writers[0].ensure()
        entries = [Entry(n, message_with([f"f{n}", "shared"], n)) for n in range(1, 7)]
        entries.append(Entry(7, message_with(["twice"], 7, client_id="c1")))
        gone = chance.sample(range(1, 7), 3)
        entries += [
            Entry(
                100 + n,
                events.MessageDeleted(
                    id=str(n), chat_id="dm.a.b", from_="a", deleted_at=1, client_id=f"d{n}"
                ),
            )
            for n in gone
        ]
        await writers[0].write(entries[:1])  # The first place of `c1`.
        work = entries + chance.choices(entries, k=5)
        chance.shuffle(work)
        half = len(work) // 2
        await asyncio.gather(writers[0].write(work[:half]), writers[1].write(work[half:]))
        await writers[0].write(entries)
        left = {n for n in range(1, 7) if n not in gone}
        found = {(int(u["message"]), u["file"]) async for u in fresh["file_uses"].find()}
        assert found == {(n, file) for n in left for file in (f"f{n}", "shared")}, f"seed {seed}"


# --- export and erase ---


def hikyaku(
    site: FileSite, *words: str, search: SearchServer | None = None
) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "HIKYAKU_HOME": str(site.home),
        "HIKYAKU_MONGO_URL": site.mongo.url,
        "HIKYAKU_NATS_URL": site.nats.url,
        **as_role(OPERATOR),
        **(search_env(search) if search is not None else {}),
    }
    command = (sys.executable, "-m", "deploy.cli", *words)
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
async def search(tmp_path: Path) -> AsyncIterator[SearchServer]:
    """An erasure looks there too."""
    server = SearchServer(tmp_path / "search")
    try:
        await server.start()
        yield server
    finally:
        server.stop()


async def test_export_has_the_files_and_erase_removes_them(
    site: FileSite, database: Database, search: SearchServer, tmp_path: Path
) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    data = os.urandom(10 * KB)
    async with (
        Clients() as connect_client,
        Web(site.edges[0], alice) as a,
        Web(site.edges[1], bob) as b,
    ):
        client = await connect_client(site.edges[0], alice)
        files = [
            await a.upload(chat, data, "飛脚.bin"),
            await a.upload(chat, picture("PNG", halves(64, 48)), "x.png"),
        ]
        theirs = await b.upload(chat, data, "bob's")
        shared = [*(each["id"] for each in files), theirs["id"]]
        await client.say(bob, "", attachments=shared)
        await until(database, "file_uses", {"file": {"$in": shared}}, 3)
        other = await connect_client(site.edges[1], bob)
        await other.say(alice, "mine", attachments=[theirs["id"]])
        await until(database, "file_uses", {"file": theirs["id"]}, 2)
        folder = tmp_path / "export"
        done = await asyncio.to_thread(
            hikyaku, site, "export", "--user", alice, "--to", str(folder)
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(each) for each in (folder / "files.jsonl").read_text().splitlines()]
        assert sorted(each["id"] for each in lines) == sorted(each["id"] for each in files)
        named = {each["name"]: each for each in lines}
        assert (folder / named["飛脚.bin"]["path"]).read_bytes() == data
        assert "files.jsonl (2)" in (folder / "README.txt").read_text()
        packed = tmp_path / "alice.zip"
        done = await asyncio.to_thread(
            hikyaku, site, "export", "--user", alice, "--to", str(packed)
        )
        assert done.returncode == 0, done.stderr
        report = tmp_path / "report.json"
        words = ("erase", "--user", alice, "--yes", "--report", str(report))
        done = await asyncio.to_thread(hikyaku, site, *words, search=search)
        assert done.returncode == 0, done.stderr
        assert json.loads(report.read_text())["done"]["files removed"] == 2
        for each in files:
            assert not await is_there(b, each["id"])
        assert objects(site, files[1]["sha256"]) == []
        assert (await b.get(theirs)).body == data, "the same bytes are another one's too"
        assert await database["file_owners"].count_documents({"_id": alice}) == 0
        report.unlink()
        done = await asyncio.to_thread(hikyaku, site, *words, search=search)
        assert json.loads(report.read_text())["done"]["files removed"] == 0


async def test_what_a_killed_worker_left_half_written_is_removed(
    site: FileSite, tmp_path: Path
) -> None:
    """In a folder; the object store writes beside the object, and renames."""
    half = site.home / "files" / "blobs" / "00" / "half#1"
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"x")
    os.utime(half, (1, 1))
    fresh = half.with_name("fresh#1")
    fresh.write_bytes(b"x")
    site.files.process.end(signal.SIGTERM)
    await site.files.start()
    deadline = time.monotonic() + 20
    while half.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert fresh.exists()
    fresh.unlink()


async def test_a_file_stays_while_its_message_may_be_on_its_way_to_another_site(
    site: FileSite, database: Database
) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, f"{bob}@osaka")
    async with make_bus(site.nats.url) as bus, Web(site.edges[0], alice) as web:
        await bus.wait_connected(5)
        part = Part(
            outbox.submission("osaka", chat), submitted(message(alice, f"{bob}@osaka", "it"))
        )
        await publish_all(bus, [part], timeout_s=5)
        there, here = [await web.upload(to, b"x") for to in (chat, subjects.dm(alice, bob))]
        for each in (there, here):
            await days_later(database, each["id"])
        await until(database, "files", {"_id": here["id"]}, 0)
        await sweeps(site)
        assert await is_there(web, there["id"])
        await purge(bus, outbox.SUBMITTED, outbox.submissions("osaka"), before=2**40)
        await until(database, "files", {"_id": there["id"]}, 0)
