"""A run killed at any point loses and doubles nothing, and the next run finishes it."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from store import archive, archive_files, archive_hot, archive_manifest, archive_objects
from store.config import ArchiveConfig

from ..archives import FIRST_ID, Split, Talk, split, whole
from ..servers import Mongo

pytestmark = pytest.mark.anyio

CHATS = ("group.one", "group.two", "dm.ann.bob")
CUT = FIRST_ID + 40
POINTS: tuple[tuple[type, str], ...] = (
    (archive_objects.Objects, "put"),
    (archive_objects.Objects, "delete"),
    (archive_manifest.Manifest, "begin"),
    (archive_manifest.Manifest, "commit"),
    (archive_manifest.Manifest, "cleared"),
    (archive_manifest.Manifest, "swept"),
    (archive_hot.Hot, "clear"),
    (archive_hot.Hot, "_clear_changed"),
    (archive_hot.Hot, "drop"),
    (archive_hot.Hot, "remove"),
    (archive.Run, "_rewrite"),
)
"""Everything that a run changes goes through one of these."""


class Killed(BaseException):
    """Nothing catches it."""


def deadly(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Die before the step with this number, which is after the one before it."""
    steps = itertools.count()

    def wrap(kind: type, name: str) -> None:
        original = getattr(kind, name)

        async def step(*given: Any, **named: Any) -> Any:
            if next(steps) == at:
                raise Killed
            return await original(*given, **named)

        monkeypatch.setattr(kind, name, step)

    for kind, name in POINTS:
        wrap(kind, name)


async def prepared(parts: Split, seed: int) -> None:
    """Messages in MongoDB and in files, with changes of both that are still to be made."""
    some = random.Random(seed)
    talk = Talk()
    await parts.messages.write([talk.say(some.choice(CHATS), f"text {n}") for n in range(25)])
    await parts.run(FIRST_ID + 18)
    await parts.messages.write([talk.say(some.choice(CHATS), f"text {n}") for n in range(25, 50)])
    for number in some.sample(range(45), 6):
        await parts.messages.write([talk.edit(number, f"edited {number}")])
    for number in some.sample(range(45), 4):
        await parts.messages.write([talk.delete(number)])
    for number in some.sample(range(45), 6):
        await parts.messages.write([talk.react(number, "+", "bob")])


async def all_of(parts: Split) -> list[list[dict[str, Any]]]:
    return [await whole(parts.history, chat) for chat in CHATS]


async def test_killed_at_every_point(
    mongo: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with split(mongo, tmp_path / "objects", "kill") as parts:
        for at in itertools.count():
            await parts.clear()
            for key in [each async for each in parts.objects.list("messages/")]:
                await parts.objects.delete(key)
            await prepared(parts, seed=at % 5)
            before = await all_of(parts)
            survived = await run_and_die(parts, monkeypatch, at)
            assert await all_of(parts) == before, f"after dying at step {at}"
            await parts.run(CUT)
            assert await all_of(parts) == before, f"after finishing what died at step {at}"
            assert await parts.problems() == [], f"step {at}"
            assert await parts.database["archive_garbage"].count_documents({}) == 0
            assert await parts.database["archives"].count_documents({"hot": True}) == 0
            old_changes = {"at": {"$exists": False}, "_id": {"$lt": CUT}}
            assert await parts.database["messages"].count_documents(old_changes) == 0
            assert (await parts.run(CUT)).written == 0
            if survived:
                break
        assert at > 40


async def run_and_die(parts: Split, monkeypatch: pytest.MonkeyPatch, at: int) -> bool:
    with monkeypatch.context() as patched:
        deadly(patched, at)
        try:
            await parts.run(CUT)
        except Killed:
            return False
    return True


async def test_changes_during_a_run_are_kept(
    mongo: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message changes after it was read for its file and before it leaves MongoDB."""
    async with split(mongo, tmp_path / "objects", "during") as parts:
        talk = Talk()
        await parts.messages.write([talk.say("group.one", f"text {n}") for n in range(20)])
        await parts.messages.write([talk.react(2, "+", "bob")])
        commit = archive_manifest.Manifest.commit
        changes = [talk.edit(1, "late"), talk.delete(2), talk.react(3, "+", "eve")]

        async def late(self: archive_manifest.Manifest, *given: Any) -> None:
            await commit(self, *given)
            if changes:
                await parts.messages.write(changes)
                changes.clear()
                late_view.extend(await all_of(parts))

        late_view: list[list[dict[str, Any]]] = []
        with monkeypatch.context() as patched:
            patched.setattr(archive_manifest.Manifest, "commit", late)
            await parts.run(CUT)
        one = {int(each["id"]) - FIRST_ID: each for each in (await all_of(parts))[0]}
        assert one[1]["content"] == "late"
        assert one[2]["deleted"]
        assert one[3]["reactions"] == {"+": ["eve"]}
        assert len(one) == 20
        assert await all_of(parts) == late_view
        await parts.run(CUT)
        assert await all_of(parts) == late_view
        assert await parts.problems() == []


async def test_one_that_lost_the_lease_commits_nothing(
    mongo: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is paused in the middle of a run, another one takes over and finishes."""
    async with split(mongo, tmp_path / "objects", "lease") as parts:
        await prepared(parts, seed=1)
        before = await all_of(parts)
        put = archive_objects.Objects.put
        pausing = True

        async def pause(self: archive_objects.Objects, *given: Any) -> None:
            nonlocal pausing
            await put(self, *given)
            if pausing:
                pausing = False
                await parts.database["leases"].update_one({}, {"$unset": {"until": 1}})
                await parts.run(CUT)

        monkeypatch.setattr(archive_objects.Objects, "put", pause)
        with pytest.raises((archive_manifest.LeaseLost, archive_files.Damaged)):
            await parts.run(CUT)
        assert await all_of(parts) == before
        await parts.run(CUT)
        assert await all_of(parts) == before
        assert await parts.problems() == []


async def test_kill_9_at_random(mongo: Mongo, tmp_path: Path) -> None:
    """The command itself, killed again and again until one of it comes through."""
    config = ArchiveConfig(buckets=16)
    async with split(mongo, tmp_path / "home" / "objects", "kill9", config) as parts:
        talk = Talk()
        messages = [talk.say(f"group.g{n % 40}", f"text {n}") for n in range(3000)]
        await parts.messages.write(messages)
        before = [await whole(parts.history, f"group.g{n}") for n in range(0, 40, 13)]
        env = {
            **os.environ,
            "HIKYAKU_HOME": str(tmp_path / "home"),
            "HIKYAKU_MONGO_URL": mongo.url,
            "HIKYAKU_MONGO_DATABASE": "kill9",
        }
        command = (sys.executable, "-m", "deploy.cli", "archive", "run")
        kills = 0
        for attempt in range(40):
            process = await asyncio.to_thread(
                subprocess.Popen, command, env=env, stdout=subprocess.DEVNULL
            )
            try:
                await asyncio.to_thread(process.wait, 1.1**attempt)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait, 10)
                kills += 1
            else:
                assert process.returncode == 0
                break
            # As a minute later, when the lease of the one that was killed has ended.
            await parts.database["leases"].update_many({}, {"$unset": {"until": 1}})
        print(f"{kills} kills")
        assert await parts.hot_ids() == list(range(FIRST_ID + 2960, FIRST_ID + 3000))
        assert [await whole(parts.history, f"group.g{n}") for n in range(0, 40, 13)] == before
        assert await parts.problems() == []
