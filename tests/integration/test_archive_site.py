"""The archive as operators run it: clients, workers, the command, and S3 over HTTP."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from broker import subjects
from store.archive_objects import Gone, Objects
from store.config import StoreConfig
from store.database import connect
from store.errors import StoreUnavailable

from ..archives import FIRST_ID, Talk, split, whole
from ..chat import Chat, Clients, names
from ..ports import free_port
from ..servers import Hikyaku, Site

pytestmark = pytest.mark.anyio

AGED = "0.002"
LOG_S = "120"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A server that speaks the API of S3, and the variables that lead to it."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(f"{endpoint}/archive", method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def objects(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Objects:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return Objects(f"s3://archive/{tmp_path.name}")


async def test_objects_in_s3(objects: Objects) -> None:
    await objects.put("messages/a b.parquet", b"0123456789")
    await objects.put("messages/c", b"x")
    assert await objects.get("messages/a b.parquet") == b"0123456789"
    assert await objects.part("messages/a b.parquet", 3, 7) == b"3456"
    keys = ["messages/a b.parquet", "messages/c"]
    assert sorted([key async for key in objects.list("messages/")]) == keys
    await objects.delete("messages/c")
    await objects.delete("messages/c")
    with pytest.raises(Gone):
        await objects.get("messages/c")
    with pytest.raises(Gone):
        await objects.part("messages/c", 0, 1)
    assert [key async for key in objects.list("messages/")] == keys[:1]


async def test_a_store_that_is_away_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("store.archive_objects.RETRIES_S", 1)
    with pytest.raises(StoreUnavailable, match="s3://archive/x"):
        await Objects("s3://archive/x").get("messages/a")
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    with pytest.raises(StoreUnavailable):
        await Objects(occupied.as_uri()).put("messages/a", b"x")


@pytest.fixture(scope="module")
async def aged(
    tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str]
) -> AsyncIterator[tuple[Site, dict[str, str]]]:
    """A site with its archive in S3, where messages are old after three minutes."""
    folder = tmp_path_factory.mktemp("aged")
    settings = {
        **s3,
        "HIKYAKU_OBJECTS_URL": "s3://archive/site",
        "HIKYAKU_HOT_DAYS": AGED,
        "HIKYAKU_STREAM_MAX_AGE_S": LOG_S,
    }
    site = Site(folder, **settings)
    env = {**settings, "HIKYAKU_MONGO_URL": site.mongo.url, "HIKYAKU_HOME": str(folder / "home")}
    try:
        await site.start()
        yield site, env
    finally:
        site.stop()


def hikyaku(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "deploy.cli", *words)
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


async def make_old(site: Site, chat: str, count: int) -> list[dict[str, Any]]:
    """Messages from long before, as they were persisted then; their seqs come before all."""
    async with connect(StoreConfig(url=site.mongo.url)) as database:
        documents = [
            {
                "_id": FIRST_ID + number,
                "chat": chat,
                "seq": number - count,
                "at": 1_704_067_200_000 + number,
                "from": "ann",
                "group_id": subjects.decode(subjects.parse(chat).tokens[0]),
                "client_id": f"{chat} {number}",
                "content": f"old {number}",
                "content_type": "text",
            }
            for number in range(count)
        ]
        await database["messages"].insert_many(documents)
    return documents


async def pages(client: Chat, chat: str, limit: int = 50) -> list[dict[str, Any]]:
    """All of a chat, newest first, as a client pages through it."""
    found: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    while True:
        page = await client.ask("history", chat_id=chat, limit=limit, **before)
        assert page["type"] == "result", page
        found += page["messages"]
        if not page["more"]:
            return found
        before = {"before": page["messages"][-1]["id"]}


async def test_clients_do_not_notice_the_archive(aged: tuple[Site, dict[str, str]]) -> None:
    site, env = aged
    (ann, bob) = names("ann", "bob")
    async with Clients() as connect_client:
        one = await connect_client(site.edges[0], ann)
        two = await connect_client(site.edges[1], bob)
        group = await one.group(bob)
        chat = group["chat_id"]
        for number in range(3):
            await one.tell(group["group_id"], f"new {number}")
        async with connect(StoreConfig(url=site.mongo.url)) as database:
            await until_persisted(database, chat, 3)
        await make_old(site, chat, 120)
        async with connect(StoreConfig(url=site.mongo.url)) as database:
            await database["messages"].update_many(
                {"chat": chat, "from": "ann"}, {"$set": {"from": ann}}
            )
        before = await pages(two, chat)
        assert [each["content"] for each in before[:3]] == ["new 2", "new 1", "new 0"]
        assert len(before) == 123
        done = hikyaku(env, "archive", "run")
        assert done.returncode == 0, done.stderr
        assert "Archived 120 messages" in done.stdout
        assert await pages(two, chat) == before
        assert await pages(two, chat, 7) == before
        await change_archived(one, two, chat, before)
        changed = await pages(two, chat)
        verified = hikyaku(env, "archive", "verify")
        assert (verified.returncode, verified.stderr) == (0, "")
        done = hikyaku(env, "archive", "run")
        assert "changed 3" in done.stdout, done
        assert await pages(two, chat) == changed


async def until_persisted(database: Any, chat: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while await database["messages"].count_documents({"chat": chat}) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def change_archived(one: Chat, two: Chat, chat: str, before: list[dict[str, Any]]) -> None:
    """Edit, delete, react to, answer and read messages that only the archive has."""
    edited, deleted, liked = (before[number]["id"] for number in (50, 80, 110))
    ack = await one.write("edit", message_id=edited, chat_id=chat, content="edited")
    assert ack["type"] == "ack", ack
    ack = await one.write("delete", message_id=deleted, chat_id=chat)
    assert ack["type"] == "ack", ack
    ack = await two.write("react", message_id=liked, chat_id=chat, emoji="+")
    assert ack["type"] == "ack", ack
    assert (await two.write("edit", message_id=liked, chat_id=chat, content="x"))["type"] == "error"
    by_id = {each["id"]: each for each in await pages(two, chat)}
    assert by_id[edited]["content"] == "edited"
    assert by_id[deleted]["deleted"]
    assert by_id[deleted]["content"] == ""
    assert by_id[liked]["reactions"] == {"+": [two.user]}
    newer = await two.ask("history", chat_id=chat, after=edited, limit=10)
    expected = [each["id"] for each in before[40:50]]
    assert [each["id"] for each in newer["messages"]] == expected
    read = await two.ask("read_receipt", chat_id=chat, last_read_msg_id=edited)
    assert read["type"] == "result", read


async def test_the_worker_runs_by_itself(aged: tuple[Site, dict[str, str]], tmp_path: Path) -> None:
    site, env = aged
    chat = f"group.{names('worker')[0]}"
    async with connect(StoreConfig(url=site.mongo.url)) as database:
        await database["messages"].insert_one(
            {"_id": 77, "chat": chat, "seq": 1, "at": 5, "from": "ann", "client_id": "w77"}
        )
        worker = Hikyaku(
            tmp_path, ["worker", "archive"], {**env, "HIKYAKU_ARCHIVE_INTERVAL_S": "1"}
        )
        try:
            await worker.start()
            deadline = time.monotonic() + 30
            while await database["messages"].find_one({"_id": 77}) is not None:
                assert time.monotonic() < deadline, worker.process.log.read_text()
                await asyncio.sleep(0.1)
        finally:
            worker.process.end()
        assert await database["archive_chats"].find_one({"chat": chat}) is not None


async def test_retention_by_command(aged: tuple[Site, dict[str, str]]) -> None:
    site, env = aged
    (ann,) = names("ann")
    async with Clients() as connect_client:
        client = await connect_client(site.edges[0], ann)
        group = await client.group()
        async with connect(StoreConfig(url=site.mongo.url)) as database:
            await database["messages"].insert_one(
                {
                    **{"_id": 99, "chat": group["chat_id"], "seq": -1, "at": 5, "from": ann},
                    **{"client_id": "w99", "group_id": group["group_id"]},
                }
            )
        assert hikyaku(env, "archive", "run").returncode == 0
        assert [each["id"] for each in await pages(client, group["chat_id"])] == ["99"]
        assert hikyaku(env, "archive", "keep", group["group_id"], "--days", "100").returncode == 0
        assert "removed 1" in hikyaku(env, "archive", "run").stdout
        assert await pages(client, group["chat_id"]) == []
        assert hikyaku(env, "archive", "keep", "no such group", "--days", "1").returncode == 2
        assert hikyaku(env, "archive", "verify").returncode == 0


async def test_a_run_over_s3(aged: tuple[Site, dict[str, str]], objects: Objects) -> None:
    site, _ = aged
    async with split(site.mongo, objects, "over_s3") as parts:
        talk = Talk()
        await parts.messages.write([talk.say("group.one", f"<{n}>") for n in range(60)])
        before = await whole(parts.history, "group.one")
        await parts.run(FIRST_ID + 50)
        await parts.messages.write([talk.delete(7)])
        await parts.run(FIRST_ID + 55)
        after = await whole(parts.history, "group.one")
        assert [each["id"] for each in after] == [each["id"] for each in before]
        assert await parts.problems() == []
        keys = [key async for key in objects.list("messages/") if key.endswith(".parquet")]
        assert len(keys) == len([each async for each in parts.archive.manifest.entries()])
        await objects.delete(keys[0])
        assert await parts.problems() == [f"{keys[0]}: the file is missing"]
