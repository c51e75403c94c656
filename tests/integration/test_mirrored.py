"""Groups of other sites follow their home's order, whoever brings it how often and how late."""

from collections.abc import AsyncIterator

import pytest

from broker import subjects
from store.directory import Directory
from store.mirrored import Mirrored, Place
from tests.chat import names
from tests.stage import Stage

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")).running() as stage:
        yield stage


class Mirror:
    """What is known of one group, `bob`'s."""

    def __init__(self, stage: Stage):
        self._stage = stage
        self.mirrored = Mirrored(stage.database)
        self.group = f"{names('group')[0]}@osaka"

    async def know(self, seq: int, *members: str, part: int = 0) -> None:
        await self.mirrored.know(
            self.group,
            Place(seq, part),
            home="osaka",
            name="first",
            kind="group",
            created_by="bob@osaka",
            size=1,
            members=dict.fromkeys(members, "member"),
        )

    async def join(self, seq: int, user: str) -> None:
        await self.mirrored.join(self.group, Place(seq, 0), "group", [user], size=2)

    async def remove(self, seq: int, user: str) -> None:
        await self.mirrored.remove(self.group, Place(seq, 0), [user], size=1)

    async def members(self) -> list[str]:
        return [user for user, _ in await self.mirrored.page(self.group, None, 100)]


@pytest.fixture
async def mirror(stage: Stage) -> Mirror:
    directory = Directory(
        stage.database, site="tokyo", max_members=9, events_of=None, chat_of=subjects.group
    )
    await directory.ensure()
    return Mirror(stage)


async def test_a_join_that_comes_after_the_removal(mirror: Mirror) -> None:
    """A relay was paused before it put down the join; another one went on from there."""
    await mirror.know(5, "bob@osaka")
    await mirror.join(6, "alice")
    await mirror.remove(7, "alice")
    await mirror.join(6, "alice")
    assert await mirror.members() == ["bob@osaka"]
    described = await mirror.mirrored.described(mirror.group)
    assert described is not None
    assert described["size"] == 1
    await mirror.know(5, "alice", "bob@osaka")
    assert await mirror.members() == ["bob@osaka"]
    await mirror.join(8, "alice")
    assert await mirror.members() == ["alice", "bob@osaka"]


async def test_a_name_and_a_role_that_come_late(mirror: Mirror) -> None:
    await mirror.know(5, "bob@osaka", "alice")
    mirrored, group = mirror.mirrored, mirror.group
    await mirrored.update(group, Place(7, 0), name="third", roles={"alice": "member"})
    await mirrored.update(group, Place(6, 0), name="second", roles={"alice": "admin"})
    assert await mirrored.page(group, None, 9) == [("alice", "member"), ("bob@osaka", "member")]
    described = await mirrored.described(group)
    assert described is not None
    assert described["name"] == "third"


async def test_pages_of_one_place(mirror: Mirror) -> None:
    """A large group is described in parts."""
    await mirror.know(5, "a", "b")
    await mirror.know(5, "c", part=1)
    await mirror.know(5, "never", part=1)
    await mirror.join(6, "d")
    assert await mirror.members() == ["a", "b", "c", "d"]


async def test_a_link_that_begins_anew(mirror: Mirror) -> None:
    """The home was set back: what it says has places that it had given before."""
    await mirror.know(5, "bob@osaka")
    await mirror.join(9, "alice")
    await mirror.mirrored.begin_anew("osaka")
    await mirror.remove(7, "alice")
    await mirror.join(8, "carol")
    assert await mirror.members() == ["bob@osaka", "carol"]
