"""What is told to other sites goes by the log, however far behind it the relay is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker import events, outbox, sites, subjects
from broker.bucket import Bucket
from broker.links import Links, Reached
from broker.log import STREAM, Log
from broker.sites import Sites
from store.directory import Change, Directory
from store.mirrored import Mirrored
from tests.brokers import api, commit_all
from tests.chat import names
from tests.stage import Stage
from workers.directory import events_of
from workers.relay.telling import Teller

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
ALICE, BOB, ZOE = "alice", "bob@osaka", "zoe@osaka"


class Home:
    """A site where groups live, and its relay, which looks when it is told to."""

    def __init__(self, stage: Stage):
        self._stage = stage
        self.directory = Directory(
            stage.database,
            site="tokyo",
            max_members=100,
            events_of=events_of,
            chat_of=subjects.group,
        )
        self.mirrored = Mirrored(stage.database)
        self.links = Links(stage.bus)
        self.outbox = Log(stage.bus, stream=outbox.STREAM)
        self.sites = Sites("tokyo", stage.bus, stage.bus, lambda: None)
        (self.group,) = names("group")
        self.chat_id = subjects.group(self.group)
        self.teller = self.relay()

    async def begin(self) -> None:
        await self.directory.ensure()
        await self.mirrored.guests.ensure()
        await Bucket(self._stage.bus, sites.BUCKET).put("osaka", sites.encode(sites.Peer()))
        await self.sites.refresh()
        await self.look()

    def relay(self) -> Teller:
        return Teller(self._stage.bus, self.links, self.sites, self.mirrored, lambda: None)

    async def look(self) -> list[str]:
        """A relay that begins looks through the log to its end; what it told of this group."""
        last = (await self.outbox.state()).last_seq
        self.teller = self.relay()
        running = asyncio.create_task(self.teller.run())
        try:
            await self._at_the_end()
        finally:
            running.cancel()
            await asyncio.wait([running])
        await self.links.reached()
        page = await self.outbox.read(outbox.told("osaka"), last + 1)
        return [_short(outbox.decode(each.data)) for each in page.events]

    async def _at_the_end(self) -> None:
        log = await Log(self._stage.bus).state()
        async with asyncio.timeout(WAIT_S):
            while True:
                reached = await Links(self._stage.bus).reached()
                if reached == Reached(epoch=log.epoch, seq=log.last_seq):
                    return
                await asyncio.sleep(0.02)

    async def changed(self, change: Change) -> None:
        """Put into the log what a change left to tell."""
        await commit_all(self._stage.bus, events_of(change))
        await self._stage.database["outbox"].delete_many({})

    async def create(self, *users: str) -> None:
        made = self.directory.create(
            ALICE, client_id=self.group, name="", users=[*users], kind="group", group_id=self.group
        )
        await self.changed(await made)

    async def add(self, user: str) -> None:
        await self.changed(await self.directory.add(ALICE, self.group, [user]))

    async def remove(self, user: str) -> None:
        await self.changed(await self.directory.remove(ALICE, self.group, [user]))

    async def say(self, content: str) -> None:
        await commit_all(self._stage.bus, [(self.chat_id, self._said(content))])

    def _said(self, content: str) -> bytes:
        fields: dict[str, Any] = {"from_": ALICE, "content": content, "content_type": "text"}
        names: dict[str, Any] = {"chat_id": self.chat_id, "group_id": self.group}
        event = events.GroupChat(id="1", client_id=content, timestamp=1, **names, **fields)
        return events.encode(event)

    async def restored(self, *, end: int, ancestor: str) -> None:
        """The log goes on from another one, far behind its end."""
        info = (await api(self._stage.bus, f"STREAM.INFO.{STREAM}"))["config"]
        metadata = {"epoch": f"after-{ancestor}", "ancestors": f"{ancestor}:{end}"}
        kept = {name: each for name, each in info["metadata"].items() if name not in metadata}
        info["metadata"] = {**kept, **metadata}
        await api(self._stage.bus, f"STREAM.UPDATE.{STREAM}", info)


def _short(parcel: Any) -> str:
    if isinstance(parcel, outbox.GroupPage):
        return "page"
    event = events.decode(parcel.data)
    if isinstance(event, events.GroupChat):
        return event.content
    return f"{'own ' if isinstance(parcel, outbox.Own) else ''}{type(event).__name__}"


OWN_ADDED, OWN_REMOVED = "own MemberAdded", "own MemberRemoved"
ADDED, REMOVED = "MemberAdded", "MemberRemoved"


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")).running() as stage:
        yield stage


@pytest.fixture
async def home(stage: Stage) -> AsyncIterator[Home]:
    home = Home(stage)
    async with home.sites:
        await home.begin()
        yield home


async def test_who_leaves_while_the_relay_is_behind(home: Home) -> None:
    await home.create(BOB, ZOE)
    await home.say("both")
    assert await home.look() == ["page", OWN_ADDED, OWN_ADDED, "both"]
    await home.remove(ZOE)
    await home.say("bob is a member now")
    await home.remove(BOB)
    await home.say("nobody there is")
    assert await home.look() == [OWN_REMOVED, REMOVED, "bob is a member now", OWN_REMOVED]


async def test_who_comes_again_while_the_relay_is_behind(home: Home) -> None:
    await home.create(BOB)
    assert await home.look() == ["page", OWN_ADDED]
    await home.remove(BOB)
    await home.say("not for osaka")
    await home.add(BOB)
    await home.say("for osaka")
    assert await home.look() == [OWN_REMOVED, "page", OWN_ADDED, "for osaka"]


async def test_killed_before_the_place_was_put_down(home: Home) -> None:
    """What is looked through again is not told to who came later."""
    await home.create(BOB)
    await home.look()
    before = await home.links.reached()
    await home.remove(BOB)
    await home.say("not for osaka")
    await home.add(ZOE)
    told = [OWN_REMOVED, "page", OWN_ADDED]
    assert await home.look() == told
    await home.links.reach(before)
    await home.say("for osaka")
    assert await home.look() == ["for osaka"]


async def test_a_paused_relay_changes_nothing(home: Home) -> None:
    """It puts down who came or went when another one knows more of the log."""
    guests = home.mirrored.guests
    await home.create(BOB)
    await home.look()
    seq = (await guests.told(home.group)).seq
    assert await guests.settle(home.group, seq + 5, set(), {BOB: ("osaka", False)})
    assert not await guests.settle(home.group, seq + 1, {"osaka"}, {BOB: ("osaka", True)})
    assert await guests.told(home.group) == (set(), seq + 5)
    assert not await guests.any_but(home.group, "osaka", [])


async def test_a_group_of_before(home: Home, stage: Stage) -> None:
    """A version that did not put guests down has told of it."""
    await home.create(BOB, ZOE)
    await home.look()
    await stage.database["guests"].delete_many({"group": home.group})
    await stage.database["groups"].update_one({"_id": home.group}, {"$unset": {"told_seq": ""}})
    await home.remove(ZOE)
    await home.say("bob is a member")
    assert await home.look() == [OWN_REMOVED, REMOVED, "bob is a member"]


async def test_mongodb_is_older_than_the_place_in_the_log(home: Home, stage: Stage) -> None:
    """As after a restore of it: who came since is learned from the log, once more."""
    await home.look()
    reached = await home.links.reached()
    await home.create(BOB)
    assert await home.look() == ["page", OWN_ADDED]
    await stage.database["guests"].delete_many({"group": home.group})
    fields = {"told": "", "told_seq": ""}
    await stage.database["groups"].update_one({"_id": home.group}, {"$unset": fields})
    await home.mirrored.guests.reach(reached.epoch, reached.seq)
    await home.say("for osaka")
    assert await home.look() == ["page", OWN_ADDED, "for osaka"]


# --- another log ---


async def test_a_restored_log_is_told_from_where_the_lost_one_was(home: Home) -> None:
    await home.create(BOB)
    await home.look()
    before = await home.links.reached()
    await home.say("not told")
    await home.restored(end=before.seq + 1, ancestor=before.epoch)
    await home.say("after")
    assert await home.look() == ["not told", "after"]
    assert home.teller.missed == 0


async def test_a_backup_of_the_log_that_is_older_than_that_of_the_links(home: Home) -> None:
    """What was told behind the end of the restored log was another event."""
    await home.create(BOB)
    await home.look()
    before = await home.links.reached()
    await home.links.reach(Reached(epoch=before.epoch, seq=before.seq + 1000))
    await home.restored(end=before.seq, ancestor=before.epoch)
    await home.say("after")
    assert await home.look() == ["after"]


async def test_the_gap_of_a_restored_log_is_not_missed(home: Home, stage: Stage) -> None:
    """Also when all of it that was before has aged."""
    await home.create(BOB)
    await home.look()
    before = await home.links.reached()
    await home.say("aged before it was told")
    await home.restored(end=before.seq + 1, ancestor=before.epoch)
    for number in range(5):
        await home.say(f"stands for the gap {number}")
    await api(stage.bus, f"STREAM.PURGE.{STREAM}", {"seq": before.seq + 7})
    await home.say("after")
    assert await home.look() == ["after"]
    assert home.teller.missed == 1


async def test_a_log_that_goes_on_from_none_is_told_from_its_beginning(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.create(BOB)
    await home.look()
    reached = await home.links.reached()
    await home.links.reach(Reached(epoch="lost", seq=reached.seq))
    await home.say("not told")
    assert (await home.look())[-1] == "not told"
    assert f"told up to {reached.seq}" in caplog.text
