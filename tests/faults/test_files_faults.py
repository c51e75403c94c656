"""Files when parts are away, killed, full or slow: nothing half visible, nothing in memory."""

import asyncio
import hashlib
import os
import random
import resource
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from broker import subjects
from store.config import StoreConfig
from store.database import connect

from ..chat import Clients, names
from ..filesite import FileSite, Web, trickle
from ..objectstore import S3
from ..servers import eventually

pytestmark = pytest.mark.anyio

MB = 1024 * 1024


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    """Shared: every test leaves it whole."""
    folder = tmp_path_factory.mktemp("faults")
    site = FileSite(folder, HIKYAKU_FILES_SWEEP_S="0.2", HIKYAKU_FILES_ORPHAN_S="3600")
    try:
        await site.start()
        yield site
    finally:
        site.stop()


def peak_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


async def drain(web: Web, path: str) -> tuple[int, str]:
    """Size and hash of what comes, as it comes."""
    digest, size = hashlib.sha256(), 0
    async with web.http.get(web.base + path, headers=web.headers) as answer:
        assert answer.status == 200
        async for piece in answer.content.iter_any():
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


async def test_a_hundred_megabytes_are_never_in_memory(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    size = 100 * MB
    part = os.urandom(MB)
    pids = {"edge": site.edges[0].process.pid, "worker": site.files.process.pid}

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield number.to_bytes(4, "big") + part[4:]

    expected = hashlib.sha256()
    async for piece in pieces(100):
        expected.update(piece)
    async with Web(site.edges[0], alice) as a:
        await a.get(await a.upload(chat, b"warm"))
        before = {name: peak_kb(pid) for name, pid in pids.items()}
        file = await a.upload(chat, pieces(100))
        assert (file["size"], file["sha256"]) == (size, expected.hexdigest())
        assert await drain(a, f"/v1/files/{file['id']}") == (size, expected.hexdigest())
        where = (await a.create(chat, size)).headers["Location"]
        done = await a.patch(where, 0, pieces(100), **{"Content-Length": str(size)})
        assert done.status == 204, done
        again = await drain(a, f"/v1/files/{done.headers['Hikyaku-File']}")
        assert again == (size, expected.hexdigest())
        grown = {name: peak_kb(pid) - before[name] for name, pid in pids.items()}
        assert grown["edge"] < 20_000, grown
        assert grown["worker"] < 60_000, grown
        over = await a.post(chat, pieces(101))
        assert (over.status, over.json["code"]) == (413, "too_large")


async def test_while_the_worker_is_away_clients_are_told_to_repeat(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect_client, Web(site.edges[0], alice) as a:
        client = await connect_client(site.edges[0], alice)
        file = await a.upload(chat, b"x")
        site.files.process.kill()
        for answer in (await a.get(file), await a.post(chat, b"x"), await a.create(chat, 10)):
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert answer.json["retryable"] is True
            assert int(answer.headers["Retry-After"]) >= 1
            assert "does not answer" in answer.json["message"]
        refused = await client.write("chat", to=bob, content="", attachments=[file["id"]])
        assert (refused["code"], refused["retryable"]) == ("unavailable", True)
        assert (await client.say(bob, "others go on"))["type"] == "ack"
        await site.files.start()
        assert (await a.get(file)).body == b"x"
        await client.say(bob, "", attachments=[file["id"]])


async def test_a_download_that_breaks_off_is_seen_to_be_broken(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        file = await a.upload(subjects.dm(alice, bob), trickle(os.urandom(50 * MB), MB))
        path = f"{a.base}/v1/files/{file['id']}"
        async with a.http.get(path, headers=a.headers) as answer:
            await answer.content.readexactly(MB)
            site.files.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await asyncio.wait_for(answer.content.read(), 20)
        await site.files.start()
        rest = await a.get(file, Range=f"bytes={MB}-")
        assert (rest.status, len(rest.body)) == (206, 49 * MB)


async def test_mongodb_away(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a:
        file = await a.upload(chat, b"x")
        site.mongo.process.kill()
        for answer in (await a.get(file), await a.post(chat, b"x")):
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert "127.0.0.1" not in answer.json["message"]
        await site.mongo.start()
        deadline = time.monotonic() + 20
        while (await a.get(file)).status != 200:
            assert time.monotonic() < deadline
        await a.upload(chat, b"x")


async def test_a_full_disk(site: FileSite) -> None:
    """Here: no file may grow over half a megabyte, which is refused as a full disk is."""
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    pid = site.files.process.pid
    async with Web(site.edges[0], alice) as a:
        before = site.stored()
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (MB // 2, resource.RLIM_INFINITY))
        full = await a.post(chat, os.urandom(2 * MB))
        assert (full.status, full.json["code"]) == (503, "unavailable")
        assert "no room" in full.json["message"]
        where = (await a.create(chat, 3 * MB)).headers["Location"]
        data = os.urandom(3 * MB)
        part = await a.patch(where, 0, data)
        assert (part.status, part.json["code"]) == (503, "unavailable")
        assert (await a.tus("HEAD", where)).headers["Upload-Offset"] == "0"
        assert site.stored() == before
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        await a.upload(chat, os.urandom(2 * MB))
        done = await a.patch(where, 0, data)
        assert (await a.get(done.headers["Hikyaku-File"])).body == data


async def whole_or_not_at_all(site: FileSite, web: Web, owner: str, known: dict[str, str]) -> None:
    """Every file that there is can be read as it was sent, and every object belongs to one."""
    async with connect(StoreConfig(url=site.mongo.url)) as database:
        files = {each["_id"]: each async for each in database["files"].find()}
        assert known.keys() <= files.keys()
        for file_id, each in files.items():
            if each["owner"] != owner:
                continue
            size, digest = await drain(web, f"/v1/files/{file_id}")
            assert (size, digest) == (each["size"], each["sha"])
            assert known.get(file_id, digest) == digest
        await database["file_uploads"].update_many({}, {"$set": {"expires": 1}})
        await database["file_blobs"].update_many({}, {"$set": {"keep_until": 1}})
        deadline = time.monotonic() + 30
        while True:
            blobs = {each["key"] async for each in database["file_blobs"].find()}
            there = {
                str(path.relative_to(site.home / "files"))
                for path in site.stored()
                if "#" not in path.name
            }
            if there == blobs and len(blobs) == len({each["sha"] for each in files.values()}):
                return
            assert time.monotonic() < deadline, (there ^ blobs, len(blobs), len(files))
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_anywhere_the_worker_leaves_nothing_half(site: FileSite, seed: int) -> None:
    chance = random.Random(seed)
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    known: dict[str, str] = {}
    contents = [os.urandom(chance.randrange(100_000, 6 * MB)) for _ in range(6)]

    async def by_form(web: Web, data: bytes) -> None:
        answer = await web.post(chat, trickle(data, 100_000))
        if answer.status == 201:
            known[answer.json["id"]] = hashlib.sha256(data).hexdigest()

    async def by_parts(web: Web, data: bytes) -> None:
        created = await web.create(chat, len(data))
        if created.status != 201:
            return
        where = created.headers["Location"]
        for _ in range(50):
            head = await web.tus("HEAD", where)
            if "Hikyaku-File" in head.headers:
                known[head.headers["Hikyaku-File"]] = hashlib.sha256(data).hexdigest()
                return
            if head.status == 200:
                at = int(head.headers["Upload-Offset"])
                await web.patch(where, at, data[at : at + 1_500_000])
            await asyncio.sleep(0.05)

    async with Web(site.edges[0], alice) as a, Web(site.edges[1], alice) as b:
        for _ in range(6):
            async with asyncio.TaskGroup() as group:
                for number, data in enumerate(chance.sample(contents, 3)):
                    send = by_form if number == 0 else by_parts
                    group.create_task(send((a, b)[number % 2], data))
                await asyncio.sleep(chance.uniform(0.05, 1.0))
                site.files.process.kill()
                await site.files.start()
        await whole_or_not_at_all(site, a, alice, known)
        assert known, f"seed {seed}"


# --- S3 ---


async def test_files_in_s3_and_s3_away(tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    with S3(tmp_path / "s3", "files") as s3:
        settings = {**s3.env, "HIKYAKU_FILES_URL": "s3://files/site"}
        site = FileSite(tmp_path / "site", **settings)
        try:
            await site.start()
            async with Web(site.edges[0], alice) as a:
                small, large = os.urandom(1000), os.urandom(12 * MB)
                one = await a.upload(chat, small)
                two = await a.upload(chat, trickle(large, MB))
                assert (await a.get(one)).body == small
                assert (await a.get(two)).body == large
                part = await a.get(two, Range="bytes=7000000-7000009")
                assert (part.status, part.body) == (206, large[7_000_000:7_000_010])
                where = (await a.create(chat, len(large))).headers["Location"]
                assert (await a.patch(where, 0, large[:5_000_000])).status == 204
                s3.process.send(signal.SIGSTOP)
                s3.stop()
                for answer in (await a.get(one), await a.post(chat, os.urandom(1000))):
                    assert (answer.status, answer.json["code"]) == (503, "unavailable")
                    assert "s3" not in answer.json["message"]
                cut = await a.patch(where, 5_000_000, large[5_000_000:])
                assert (cut.status, cut.json["code"]) == (503, "unavailable")
                async with connect(StoreConfig(url=site.mongo.url)) as database:
                    assert await database["files"].count_documents({}) == 2
                assert site.metric("refused_total", code="unavailable") >= 3
        finally:
            site.stop()


async def test_the_worker_stops_in_order(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    before = site.stored()
    async with Web(site.edges[0], alice) as a:
        pause = asyncio.Event()
        uploading = asyncio.create_task(a.post(chat, trickle(bytes(3 * MB), MB, pause)))
        await eventually(lambda: site.metric("uploading") == 1)
        begun = time.monotonic()
        site.files.process.end(signal.SIGTERM)
        assert time.monotonic() - begun < 15
        pause.set()
        answer = await uploading
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        await site.files.start()
    assert site.stored() == before
    assert await asyncio.to_thread(os.listdir, site.home / "spool") == []
