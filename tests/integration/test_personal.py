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
from broker.roles import OPERATOR
from store.archive_check import Check
from store.archive_files import Place
from store.archive_manifest import Manifest
from store.archive_objects import Objects
from store.archive_reader import Reader
from store.config import StoreConfig
from store.database import Database, connect
from store.devices import DeviceRecord, Devices
from store.pushes import News, Pushes, PushRecord
from tests.servers import as_role

from ..archives import FIRST_ID
from ..chat import Chat, Clients, names
from ..searching import SearchSite, documents_in, search_env, until_found
from .test_archive_site import pages, until_persisted

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def home(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[SearchSite, Path]]:
    folder = tmp_path_factory.mktemp("personal")
    site = SearchSite(folder)
    try:
        await site.start()
        yield site, folder / "home"
    finally:
        site.stop()


class World:
    """Two users with a group, a conversation, an archive, reactions and pointers."""

    def __init__(self, site: SearchSite, home: Path):
        self.site = site
        self.home = home
        self.env = {
            **os.environ,
            "HIKYAKU_HOME": str(home),
            "HIKYAKU_MONGO_URL": site.mongo.url,
            "HIKYAKU_NATS_URL": site.nats.url,
            **as_role(OPERATOR),
            **search_env(site.search),
        }
        self.ann, self.bob = names("ann", "bob")
        self.dm = subjects.dm(self.ann, self.bob)
        self.group: dict[str, Any] = {}
        self.last = ""

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

    async def push(self) -> None:
        """What there is about pushes to ann."""
        async with self.database() as database:
            devices, pushes = Devices(database), Pushes(database)
            address = {"token": "secret-token"}
            device = DeviceRecord(self.ann, "phone", "fcm", address, True, False, 0)
            await devices.register(device, unique=f"fcm {self.ann}", most=5)
            await devices.change(
                self.ann,
                content=False,
                mentions=None,
                quiet=None,
                no_quiet=False,
                mute={self.dm: True},
                most_muted=5,
            )
            until_ms = time.time_ns() // 1_000_000 + 3_600_000
            at = (self.dm, "dm", "", FIRST_ID, 1, False, until_ms)
            await pushes.plan([PushRecord(f"1/{self.ann}", self.ann, "phone", "fcm", *at)])
            await pushes.plan_news([News(self.ann, "group.g", FIRST_ID, 1, until_ms)], 60)

    async def make(self, ann: Chat, bob: Chat, first: int) -> None:
        """Old messages go to the archive, new ones stay; `first` is the id of the first old one."""
        await self.push()
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
            told = await ann.tell(self.group["group_id"], f"secret of {self.ann} {number}")
            self.last = told["message_id"]
            await bob.say(self.ann, f"secret of {self.bob} {number}")
        ack = await ann.say(self.bob, f"secret of {self.ann}")
        mine = await bob.say(self.ann, "like this")
        for message_id, chat in ((str(first + 1), self.chat), (mine["message_id"], self.dm)):
            ack = await ann.write("react", message_id=message_id, chat_id=chat, emoji="❤")
            assert ack["type"] == "ack", ack
        await bob.write("react", message_id=mine["message_id"], chat_id=self.dm, emoji="+")
        read = await ann.ask("read_receipt", chat_id=self.dm, last_read_msg_id=mine["message_id"])
        assert read["type"] == "result", read
        chosen = await ann.ask("presence_set", status="dnd", text="busy")
        assert chosen["type"] == "result", chosen
        await ann.send("delivery_receipt", chat_id=self.chat, last_delivered_msg_id=self.last)
        await bob.until("delivery_receipt", user_id=self.ann)
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


async def test_an_export_has_everything(home: tuple[SearchSite, Path], tmp_path: Path) -> None:
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
    (pointer,) = lines(found["delivery_pointers"])
    assert (pointer["chat_id"], pointer["delivered_up_to"]) == (world.chat, world.last)
    assert {"chosen": {"mode": "dnd", "text": "busy"}} in lines(found["presence"])
    assert lines(found["groups_created"]) == [
        {"group_id": world.group["group_id"], "name": "a group"}
    ]
    (device,) = lines(found["devices"])
    assert (device["device"], device["address"]) == ("phone", {"token": "secret-token"})
    (settings,) = lines(found["notifications"])
    assert (settings["content"], settings["muted"]) == (False, [world.dm])
    assert "messages.jsonl (36): " in found["README"]
    assert "messages.jsonl: 36\n" in done.stdout
    again = world.hikyaku("export", "--user", world.ann, "--to", str(tmp_path / "ann"))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    packed = tmp_path / "ann.zip"
    assert world.hikyaku("export", "--user", world.ann, "--to", str(packed)).returncode == 0
    with zipfile.ZipFile(packed) as archive:
        assert lines(archive.read("messages.jsonl").decode()) == messages
    left = await asyncio.to_thread(lambda: sorted(each.name for each in tmp_path.iterdir()))
    assert left == ["ann", "ann.zip"]
    modes = [(tmp_path / each).stat().st_mode & 0o077 for each in left]
    assert modes == [0, 0], "it is nobody else's to read"
    nobody = world.hikyaku("export", "--user", "nobody at all", "--to", str(tmp_path / "none"))
    assert (nobody.returncode, "Nothing is held about 'nobody at all'" in nobody.stdout) == (
        0,
        True,
    )
    assert (tmp_path / "none" / "messages.jsonl").read_text() == ""
    assert world.hikyaku("export", "--user", "a\nb", "--to", str(tmp_path / "no")).returncode == 2


async def test_erasing_needs_to_be_meant(home: tuple[SearchSite, Path]) -> None:
    done = World(*home).hikyaku("erase", "--user", "someone")
    assert (done.returncode, "say --yes" in done.stderr) == (2, True)


async def test_what_fails_leaves_nothing_half_done_unsaid(
    home: tuple[SearchSite, Path], tmp_path: Path
) -> None:
    """A file of the archive is gone: no part of an export stays; an erasure says how far it is."""
    world = World(*home)
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID + 3000)
    async with world.database() as database:
        keys = [each.key async for each in Manifest(database).entries()]
    lost = [world.home / "objects" / each for each in keys]
    for each in lost:
        each.rename(each.with_suffix(".away"))
    try:
        to = tmp_path / "to"
        done = await asyncio.to_thread(
            world.hikyaku, "export", "--user", world.ann, "--to", str(to / "ann")
        )
        assert (done.returncode, "is not in the object store" in done.stderr) == (1, True)
        assert await asyncio.to_thread(lambda: list(to.iterdir())) == []
        report = tmp_path / "report.json"
        words = ("erase", "--user", world.ann, "--yes", "--report", str(report))
        done = await asyncio.to_thread(world.hikyaku, *words)
        assert done.returncode == 1
        assert "repeat the command" in done.stderr
        assert "in part:\n  groups left: 1" in done.stdout
        assert "Warning" not in done.stderr
        told = json.loads(report.read_text())
        assert (told["done"]["groups left"], "not in the object" in told["failed"]) == (1, True)
    finally:
        for each in lost:
            each.with_suffix(".away").rename(each)
    words = (*words[:-1], str(tmp_path / "again.json"))
    assert (await asyncio.to_thread(world.hikyaku, *words)).returncode == 0


async def test_what_cannot_be_done_is_said_in_one_line(
    home: tuple[SearchSite, Path], tmp_path: Path
) -> None:
    world = World(*home)
    nowhere = tmp_path / "nowhere" / "report.json"
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").touch()
    for words, why in (
        (("erase", "--user", "", "--yes"), "--user: must be 1 to 64 bytes"),
        (("erase", "--user", "x", "--yes", "--report", str(nowhere)), f"cannot write {nowhere}"),
        (("export", "--user", "x", "--to", str(there)), "is there already"),
        (("archive", "keep", "group"), "--days"),
        (("archive", "keep", "no such group", "--days", "5"), "there is no group"),
        (("archive", "keep", "group", "--days", "x"), "from 0 to 36500"),
        (("archive", "run", "--days", "5"), "unrecognized arguments"),
    ):
        done = world.hikyaku(*words)
        assert (done.returncode, why in done.stderr, done.stdout) == (2, True, ""), (words, done)
        assert "Traceback" not in done.stderr
    world.env["HIKYAKU_HOME"] = str(tmp_path / "other")
    del world.env["HIKYAKU_NATS_URL"]
    del world.env["HIKYAKU_MONGO_URL"]
    unreachable: list[tuple[str, ...]] = [
        ("erase", "--user", "x", "--yes", "--report", str(tmp_path / "r.json")),
        ("export", "--user", "x", "--to", str(tmp_path / "x")),
        ("archive", "verify"),
    ]
    for asked in unreachable:
        done = world.hikyaku(*asked)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"does `hikyaku up` run with HIKYAKU_HOME={tmp_path / 'other'}?" in line
    assert not (tmp_path / "r.json").exists()
    assert not (tmp_path / "x").exists()


async def test_an_erased_user_is_gone(home: tuple[SearchSite, Path], tmp_path: Path) -> None:
    world = World(*home)
    report = tmp_path / "report.json"
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID + 1000)
        secret = f'"secret of {world.ann}"'
        await until_found(bob, secret, [each["id"] for each in await sent(bob, world)])
        await ann.close()
        # What is not indexed yet is not indexed later either.
        world.site.index.process.kill()
        words = ("erase", "--user", world.ann, "--yes", "--report", str(report))
        done = await asyncio.to_thread(world.hikyaku, *words)
        assert done.returncode == 0, done.stderr
        told = json.loads(report.read_text())
        assert told["done"] == {
            "groups left": 1,
            "groups that no longer name their maker": 1,
            "messages deleted in all chats": 36,
            "reactions taken back": 2,
            "archived messages rewritten": 31,
            "messages removed from the search index": told["done"][
                "messages removed from the search index"
            ],
            "files removed": 0,
            "read pointers removed": 1,
            "delivery pointers removed": 1,
            "presence keys removed": told["done"]["presence keys removed"],
            "devices and settings of pushes removed": 2,
        }
        assert told["failed"] is None
        assert any("copies of events in the log" in each["what"] for each in told["remains"])
        assert told["done"]["messages removed from the search index"] == 6
        await world.site.index.start()
        info = await bob.ask("group_info", group_id=world.group["group_id"])
        assert world.ann not in str(info)
        taken = await asyncio.to_thread(world.hikyaku, *words)
        assert (taken.returncode, "is there already" in taken.stderr) == (2, True)
        report.unlink()
        await bob.until("message_deleted")
        await bob.until("reaction", removed=True)
        await bob.until("member_removed")
        await nothing_left(world, bob)
        again = await asyncio.to_thread(world.hikyaku, *words)
        assert again.returncode == 0, again.stderr
        assert set(json.loads(report.read_text())["done"].values()) == {0}


async def sent(bob: Chat, world: World) -> list[dict[str, Any]]:
    """Ann's messages that are not archived."""
    found = await pages(bob, world.chat) + await pages(bob, world.dm)
    return [each for each in found if each["from"] == world.ann and each["timestamp"] > 10**9]


async def nothing_left(world: World, bob: Chat) -> None:
    for chat, own in ((world.chat, 30), (world.dm, 6)):
        found = await pages(bob, chat)
        theirs = [each for each in found if each["from"] == world.ann]
        assert theirs
        assert all(each["deleted"] and each["content"] == "" for each in theirs)
        assert len([each for each in found if each["from"] == world.bob]) == own
        assert not any(world.ann in str(each.get("reactions")) for each in found)
    secret = f"secret of {world.ann}"
    assert secret not in str(await documents_in(world.site.search, "messages-1"))
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
            ("devices", {"user": world.ann}),
            ("notifications", {"_id": world.ann}),
            ("pushes", {"user": world.ann}),
            ("push_chats", {"user": world.ann}),
        ):
            assert await database[name].count_documents(query) == 0


async def test_killed_and_repeated_it_finishes(
    home: tuple[SearchSite, Path], tmp_path: Path
) -> None:
    world = World(*home)
    async with Clients() as connect_client:
        ann = await connect_client(world.site.edges[0], world.ann)
        bob = await connect_client(world.site.edges[1], world.bob)
        await world.make(ann, bob, FIRST_ID + 2000)
        await ann.close()
        command = (sys.executable, "-m", "deploy.cli", "erase", "--user", world.ann, "--yes")
        for attempt in range(40):
            process = await asyncio.to_thread(
                subprocess.Popen,
                (*command, "--report", str(tmp_path / f"report{attempt}.json")),
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
