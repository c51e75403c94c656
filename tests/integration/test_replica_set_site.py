"""A real `mongod` with a key file: made a set, its user permitted, corrected when asked again."""

import asyncio
import gc
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from deploy import local_mongo
from store import database as database_module
from store.config import StoreConfig
from store.database import connect
from store.directory import Directory
from store.errors import StoreUnavailable
from store.replica_set import Access
from store.replica_set_site import SiteSet, Unusable, make_site_set, site_set
from store.roles import NAMES, OF_BEFORE, OPERATOR
from tests.servers import Process

from ..ports import free_port

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

KEY = "kAVeryLongKeyOfAllMembers0123456789"
WITHIN_S = 60.0


class Member:
    """A `mongod` that wants to know who one is, of no set yet."""

    def __init__(self, folder: Path, port: int):
        (folder / "data").mkdir(parents=True)
        service = local_mongo.service(
            local_mongo.find(), folder, port=port, access=access(), env={}
        )
        self.process = Process(service.command, folder)
        self.address = f"127.0.0.1:{port}"
        self._data = folder / "data"

    def lose_disk(self) -> None:
        shutil.rmtree(self._data)
        self._data.mkdir()
        self.process.start()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """PyMongo 4.20 leaves the socket of a monitor that is cancelled while it connects to Python.

    It is collected here, where the warning is expected, and not in a later test.
    """
    yield
    gc.collect()


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[list[Member]]:
    ports = [free_port()]
    while len(ports) < 3:
        ports.append(free_port(ports))
    made = [Member(tmp_path / f"mongo{port}", port) for port in ports]
    try:
        made[0].process.start()
        yield made
    finally:
        for each in made:
            each.process.end(signal.SIGKILL)


def access(password: str = "first", key: str = KEY) -> Access:
    return Access(key, "hikyaku", {name: f"{password} {name}" for name in NAMES})


async def make(members: list[Member], password: str = "first", *, key: str = KEY) -> SiteSet:
    return await make_site_set(url(members), access(password, key), within_s=WITHIN_S)


def url(members: list[Member]) -> str:
    return f"mongodb://{','.join(each.address for each in members)}/?replicaSet=rs0"


def site(members: list[Member], password: str = "first", role: str = OPERATOR) -> StoreConfig:
    return StoreConfig(url=url(members), role=role, password=f"{password} {role}")


async def use(config: StoreConfig) -> None:
    async with connect(config) as database:
        with database.errors():
            await database["things"].insert_one({"a": 1})
            assert await database["things"].find_one({"a": 1})


def system(member: Member) -> AsyncMongoClient[dict[str, Any]]:
    whole = f"mongodb://__system:{KEY}@{member.address}/?authSource=local"
    return AsyncMongoClient(whole, directConnection=True)


async def voting(members: list[Member]) -> None:
    """Until all have a vote: one that was just added has none before it has the data."""
    deadline = time.monotonic() + WITHIN_S
    async with system(members[0]) as client:
        while True:
            status = await client.admin.command("replSetGetStatus")
            if status["votingMembersCount"] == len(members):
                return
            assert time.monotonic() < deadline, status
            await asyncio.sleep(0.1)


async def test_a_new_server_becomes_a_set_with_users(members: list[Member]) -> None:
    made = await make(members[:1])
    assert made.members == (members[0].address,)
    await use(site(members[:1]))
    await make(members[:1])
    await use(site(members[:1]))


async def test_a_password_that_changes_is_changed(members: list[Member]) -> None:
    await make(members[:1])
    await make(members[:1], "second")
    await use(site(members[:1], "second"))
    with pytest.raises(StoreUnavailable, match="refuses the user or the password"):
        await use(site(members[:1]))


async def test_a_role_may_use_its_collections_and_nothing_else(members: list[Member]) -> None:
    await make(members[:1])
    async with connect(site(members[:1], role="index")) as database:
        with database.errors():
            await database["search"].insert_one({"a": 1})
            assert await database["messages"].find_one({}) is None
        for refused in (
            database["messages"].insert_one({"a": 1}),
            database["messages"].drop(),
            database["devices"].find_one({}),
            database["search"].drop(),
        ):
            with pytest.raises(StoreUnavailable, match="let index do that"), database.errors():
                await refused
    operator = site(members[:1])
    other = StoreConfig(
        url=operator.url, role=OPERATOR, password=operator.password, database="other"
    )
    with pytest.raises(StoreUnavailable, match="does not let operator do that"):
        await use(other)


async def test_the_user_of_before_is_removed(members: list[Member]) -> None:
    await make(members[:1])
    async with system(members[0]) as client:
        await client.admin.command("createUser", OF_BEFORE, pwd="old", roles=["root"])
        await make(members[:1])
        assert (await client.admin.command("usersInfo", OF_BEFORE))["users"] == []


async def test_servers_that_come_are_added_and_one_may_go(members: list[Member]) -> None:
    await make(members[:1])
    await use(site(members[:1]))
    for each in members[1:]:
        each.process.start()
    await make(members)
    async with connect(site(members)) as database:
        assert await database["things"].find_one({"a": 1})
    # Again, while the one that was asked first is away: nothing is made anew.
    members[1].process.kill()
    await use(site(members))


async def test_a_first_server_without_its_disk_comes_back_into_the_set(
    members: list[Member],
) -> None:
    for each in members[1:]:
        each.process.start()
    await make(members)
    await use(site(members))
    await voting(members)
    for each in members:
        each.process.kill()
    members[0].lose_disk()
    # Alone, it cannot know that the others have a set, and it does not begin one.
    with pytest.raises(StoreUnavailable, match=f"{members[2].address} does not answer"):
        await make_site_set(url(members), access(), within_s=8)
    for each in members[1:]:
        each.process.start()
    await make(members)
    async with connect(site(members)) as database:
        assert await database["things"].find_one({"a": 1})


async def test_a_primary_without_a_majority_does_not_say_who_is_in_which_group(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be another primary, which has taken in more; a session would keep the answer."""
    monkeypatch.setattr(database_module, "TRANSACTION_MS", 500)
    for each in members[1:]:
        each.process.start()
    await make(members)
    await voting(members)
    async with connect(site(members)) as database:
        groups = Directory(
            database, site="test", max_members=9, events_of=lambda *_: [], chat_of=str
        )
        with database.errors():
            member = {"user": "alice", "group": "g", "kind": "group"}
            await database["members"].insert_one(member)
        assert await groups.groups_of(["alice", "bob"]) == {"alice": {"g": "group"}, "bob": {}}
        primary = (await database.command({"hello": 1}))["primary"]
        others = [each for each in members if each.address != primary]
        for each in others:
            each.process.send(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                await groups.groups_of(["alice"])
        finally:
            for each in others:
                each.process.send(signal.SIGCONT)
        assert await groups.groups_of(["alice"]) == {"alice": {"g": "group"}}


async def test_a_wrong_key_is_said_at_once(members: list[Member]) -> None:
    with pytest.raises(Unusable, match="refuses the key"):
        await make(members[:1], key=KEY + "x")


async def test_nobody_there_is_said_with_the_address(members: list[Member]) -> None:
    with pytest.raises(StoreUnavailable, match=f"{members[1].address} has no primary after 3 s"):
        await make_site_set(url(members[1:2]), access(), within_s=3)


@pytest.mark.parametrize(
    "wrong",
    ["mongodb://h:1/", "http://h", "mongodb://h:x"],
)
def test_a_url_that_says_too_little(wrong: str) -> None:
    with pytest.raises(Unusable, match="the URL of MongoDB"):
        site_set(wrong)


def test_hosts_without_a_port_have_the_usual_one() -> None:
    found = site_set("mongodb://a,b:1/?replicaSet=rs0")
    assert found.members == ("a:27017", "b:1")
