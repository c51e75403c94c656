"""`hikyaku export` and `hikyaku erase` on a whole site."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import subjects
from store.archive_check import Check
from store.archive_files import Place
from store.archive_manifest import Manifest
from store.archive_objects import Objects
from store.archive_reader import Reader
from store.config import StoreConfig
from store.database import Database, connect

from ..archives import FIRST_ID
from ..chat import Chat, Clients, names
from ..servers import Site
from .test_archive_site import pages, until_persisted

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Path]]:
    folder = tmp_path_factory.mktemp("personal")
    site = Site(folder)
    try:
        await site.start()
        yield site, folder / "home"
    finally:
        site.stop()


class World:
    """Two users with a group, a conversation, an archive, reactions and pointers."""

    def __init__(self, site: Site, home: Path):
        self.site = site
        self.home = home
        self.env = {
            **os.environ,
            "HIKYAKU_HOME": str(home),
            "HIKYAKU_MONGO_URL": site.mongo.url,
            "HIKYAKU_NATS_URL": site.nats.url,
        }
        self.ann, self.bob = names("ann", "bob")
        self.dm = subjects.dm(self.ann, self.bob)
        self.group: dict[str, Any] = {}

    def hikyaku(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "deploy.cli", *words)
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def database(self) -> Any:
        return connect(StoreConfig(url=self.site.mongo.url))

    @property
    def chat(self) -> str:
        chat: str = self.group["chat_id"]
        return chat

    async def make(self, ann: Chat, bob: Chat, first: int) -> None:
        """Old messages go to the archive, new ones stay; `first` is the id of the first old one."""
        self.group = await ann.group(self.bob)
        old = [
            {
                "_id": first + number,
                "chat": self.chat,
                "seq": number - 1000,
                "at": number + 1,
                "from": (self.ann, self.bob)[number % 2],
                "group_id": self.group["group_id"],
                "client_id": f"old {first + number}",
                "content": f"secret of {(self.ann, self.bob)[number % 2]}",
                "content_type": "text",
            }
            for number in range(60)
        ]
        async with self.database() as database:
            await database["messages"].insert_many(old)
        done = self.hikyaku("archive", "run")
        assert "Archived 60 messages" in done.stdout, done
        for number in range(5):
            await ann.tell(self.group["group_id"], f"secret of {self.ann} {number}")
            await bob.say(self.ann, f"secret of {self.bob} {number}")
        ack = await ann.say(self.bob, f"secret of {self.ann}")
        mine = await bob.say(self.ann, "like this")
        for message_id, chat in ((str(first + 1), self.chat), (mine["message_id"], self.dm)):
            ack = await ann.write("react", message_id=message_id, chat_id=chat, emoji="❤")
            assert ack["type"] == "ack", ack
        await bob.write("react", message_id=mine["message_id"], chat_id=self.dm, emoji="+")
        read = await ann.ask("read_receipt", chat_id=self.dm, last_read_msg_id=mine["message_id"])
        assert read["type"] == "result", read
        async with self.database() as database:
            await until_persisted(database, self.dm, 7)
            deadline = time.monotonic() + 20
            while await database["reads"].find_one({"_id.user": self.ann}) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def archived(self, database: Database) -> list[dict[str, Any]]:
        objects = Objects((self.home / "objects").as_uri())
        files = Reader(database, objects).files
        found = []
        async for entry in Manifest(database).entries():
            async for group in files.groups(Place(entry.key, entry.size, entry.footer)):
                found += [each for each in group if each["chat"] == self.chat]
        assert [each async for each in Check(database, objects).problems()] == []
        return found


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in text.splitlines()]


async def test_an_export_has_everything(home: tuple[Site, Path], tmp_path: Path) -> None:
    world = World(*home)
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID)
    done = world.hikyaku("export", "--user", world.ann, "--to", str(tmp_path / "ann"))
    assert done.returncode == 0, done.stderr
    found = {each.stem: each.read_text() for each in (tmp_path / "ann").iterdir()}
    messages = lines(found["messages"])
    assert len(messages) == 36
    assert {each["content"] for each in messages} == {
        f"secret of {world.ann}",
        *(f"secret of {world.ann} {number}" for number in range(5)),
    }
    assert len({each["id"] for each in messages}) == 36
    assert sorted(each["emoji"] for each in lines(found["reactions"])) == ["❤", "❤"]
    (group,) = lines(found["groups"])
    assert (group["group_id"], group["role"]) == (world.group["group_id"], "owner")
    assert lines(found["conversations"]) == [{"chat_id": world.dm, "with": world.bob}]
    (pointer,) = lines(found["read_pointers"])
    assert pointer["chat_id"] == world.dm
    assert "messages.jsonl: 36 lines" in found["README"]
    again = world.hikyaku("export", "--user", world.ann, "--to", str(tmp_path / "ann"))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    packed = tmp_path / "ann.zip"
    assert world.hikyaku("export", "--user", world.ann, "--to", str(packed)).returncode == 0
    with zipfile.ZipFile(packed) as archive:
        assert lines(archive.read("messages.jsonl").decode()) == messages
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("*.part")))
    nobody = world.hikyaku("export", "--user", "nobody at all", "--to", str(tmp_path / "none"))
    assert nobody.returncode == 0
    assert (tmp_path / "none" / "messages.jsonl").read_text() == ""
    assert world.hikyaku("export", "--user", "a\nb", "--to", str(tmp_path / "no")).returncode == 2


async def test_erasing_needs_to_be_meant(home: tuple[Site, Path]) -> None:
    done = World(*home).hikyaku("erase", "--user", "someone")
    assert (done.returncode, "say --yes" in done.stderr) == (2, True)


async def test_an_erased_user_is_gone(home: tuple[Site, Path], tmp_path: Path) -> None:
    world = World(*home)
    report = tmp_path / "report.json"
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID + 1000)
        await ann.close()
        words = ("erase", "--user", world.ann, "--yes", "--report", str(report))
        done = await asyncio.to_thread(world.hikyaku, *words)
        assert done.returncode == 0, done.stderr
        told = json.loads(report.read_text())
        assert told["done"] == {
            "groups left": 1,
            "messages deleted in all chats": 36,
            "reactions taken back": 2,
            "archived messages rewritten": 31,
            "read pointers removed": 1,
            "presence keys removed": told["done"]["presence keys removed"],
        }
        assert any("copies of events in the log" in each["what"] for each in told["remains"])
        await bob.until("message_deleted")
        await bob.until("reaction", removed=True)
        await bob.until("member_removed")
        await nothing_left(world, bob)
        again = await asyncio.to_thread(world.hikyaku, *words)
        assert again.returncode == 0, again.stderr
        assert set(json.loads(report.read_text())["done"].values()) == {0}


async def nothing_left(world: World, bob: Chat) -> None:
    for chat, own in ((world.chat, 30), (world.dm, 6)):
        found = await pages(bob, chat)
        theirs = [each for each in found if each["from"] == world.ann]
        assert theirs
        assert all(each["deleted"] and each["content"] == "" for each in theirs)
        assert len([each for each in found if each["from"] == world.bob]) == own
        assert not any(world.ann in str(each.get("reactions")) for each in found)
    secret = f"secret of {world.ann}"
    async with world.database() as database:
        for each in await world.archived(database):
            assert secret not in str(each)
            assert world.ann not in str(each.get("reactions"))
        async for each in database["messages"].find({}):
            assert secret not in str(each)
            assert world.ann not in str(each.get("reactions"))
            assert world.ann.encode().hex() not in str(each)
        for name, query in (
            ("reads", {"_id.user": world.ann}),
            ("members", {"user": world.ann}),
        ):
            assert await database[name].count_documents(query) == 0


async def test_killed_and_repeated_it_finishes(home: tuple[Site, Path], tmp_path: Path) -> None:
    world = World(*home)
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID + 2000)
        await ann.close()
        report = str(tmp_path / "report.json")
        command = (sys.executable, "-m", "deploy.cli", "erase", "--user", world.ann, "--yes")
        for attempt in range(40):
            process = await asyncio.to_thread(
                subprocess.Popen,
                (*command, "--report", report),
                env=world.env,
                stdout=subprocess.DEVNULL,
            )
            try:
                await asyncio.to_thread(process.wait, 0.7 + 0.1 * attempt)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait, 10)
                async with world.database() as database:
                    # As a minute later, when the lease of the one that was killed has ended.
                    await database["leases"].update_many({}, {"$unset": {"until": 1}})
            else:
                assert process.returncode == 0
                break
        await nothing_left(world, bob)
