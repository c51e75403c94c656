"""The archive on a real MongoDB: what moves, what stays, retention, changes, checks, rebuilding."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.archive import Archive
from store.archive_check import Check
from store.archive_files import Damaged, Place
from store.archive_lease import Busy, Lease
from store.config import ArchiveConfig
from store.history import Window
from workers.archive import NAMES

from ..archives import FIRST_ID, SMALL, Split, Talk, seen, split, whole
from ..servers import Mongo

pytestmark = pytest.mark.anyio

FAR = FIRST_ID + 10_000
CHAT = "group.one"


@pytest.fixture
async def parts(mongo: Mongo, tmp_path: Path) -> AsyncIterator[Split]:
    async with split(mongo, tmp_path / "objects", "archive") as made:
        yield made


async def filled(parts: Split, talk: Talk, count: int = 20, chat: str = CHAT) -> None:
    assert await parts.messages.write([talk.say(chat, f"<{n}> here") for n in range(count)]) == []


async def test_old_messages_leave_mongodb_but_not_history(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk)
    before = await whole(parts.history, CHAT)
    report = await parts.run(FIRST_ID + 15)
    assert (report.moved, report.written) == (15, 3)
    assert await parts.hot_ids() == list(range(FIRST_ID + 15, FIRST_ID + 20))
    assert await whole(parts.history, CHAT) == before
    assert len(before) == 20
    assert await parts.problems() == []


async def test_the_last_message_of_a_chat_stays_at_hand(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk, 3)
    await parts.run(FAR)
    assert await parts.hot_ids() == [FIRST_ID + 2]
    await filled(parts, talk, 1)
    assert (await parts.run(FAR)).moved == 1
    assert await parts.hot_ids() == [FIRST_ID + 3]
    assert [each["seq"] for each in await whole(parts.history, CHAT)] == [4, 3, 2, 1]


async def test_small_runs_fill_one_file(parts: Split) -> None:
    talk = Talk()
    for _ in range(6):
        await filled(parts, talk, 1)
        await parts.run(FAR)
    entries = [each async for each in parts.archive.manifest.entries()]
    assert [each.rows for each in entries] == [5]
    objects = [key async for key in parts.objects.list("messages/")]
    assert sorted(objects) == [entries[0].key, f"{entries[0].key}.json"]


async def test_a_second_run_has_nothing_to_do(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk)
    await parts.run(FAR)
    report = await parts.run(FAR)
    assert (report.moved, report.written, report.changed, report.deleted) == (0, 0, 0, 0)


async def test_what_is_deleted_leaves_the_files_too(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk)
    await parts.run(FAR)
    assert await contains(parts, "<3> here")
    await parts.messages.write([talk.delete(3), talk.edit(4, "changed"), talk.react(5, "+", "bob")])
    seen_before = await whole(parts.history, CHAT)
    report = await parts.run(FAR)
    assert report.changed == 3
    assert await whole(parts.history, CHAT) == seen_before
    assert not await contains(parts, "<3> here")
    assert not await contains(parts, "<4> here")
    assert await parts.database["messages"].count_documents({"at": {"$exists": False}}) == 0
    by_id = {int(each["id"]): each for each in seen_before}
    assert by_id[FIRST_ID + 3]["deleted"]
    assert by_id[FIRST_ID + 3]["content"] == ""
    assert by_id[FIRST_ID + 4]["content"] == "changed"
    assert by_id[FIRST_ID + 5]["reactions"] == {"+": ["bob"]}


async def contains(parts: Split, text: str) -> bool:
    """Whether any file has this, uncompressed."""
    async for entry in parts.archive.manifest.entries():
        place = Place(entry.key, entry.size, entry.footer)
        async for group in parts.reader.files.groups(place):
            if any(text in each.get("content", "") for each in group):
                return True
    return False


async def test_replies_are_counted_in_both(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk, 2)
    replies = [talk.say(CHAT, "a reply", thread=FIRST_ID) for _ in range(9)]
    await parts.messages.write(replies)
    await parts.run(FIRST_ID + 6)
    window = Window(CHAT, 2, None, None, 5, False)
    assert (await seen(parts.history, window))[0]["replies"] == 9
    await parts.messages.write([talk.delete(3), talk.delete(9)])
    assert (await seen(parts.history, window))[0]["replies"] == 7
    await parts.run(FIRST_ID + 6)
    assert (await seen(parts.history, window))[0]["replies"] == 7
    found = await parts.history.replies(CHAT, [FIRST_ID], 100, deleted={str(FIRST_ID + 4)})
    assert found == {FIRST_ID: 6}


async def test_a_change_whose_message_never_came_is_forgotten(parts: Split) -> None:
    talk = Talk()
    talk.say(CHAT, "lost")
    await parts.messages.write([talk.edit(0, "of nothing")])
    await parts.run(FAR)
    assert await parts.database["messages"].count_documents({}) == 0


async def test_a_page_needs_two_requests_and_the_next_one_none(parts: Split) -> None:
    talk = Talk()
    big = parts.config = ArchiveConfig(buckets=1)
    assert big.file_rows == 50_000
    await filled(parts, talk, 3000)
    await parts.run(FAR)
    parts.reader.files.requests = 0
    page = await parts.history.page(Window(CHAT, 1900, None, None, 51, False))
    assert [each["seq"] for each in page] == list(range(1899, 1848, -1))
    assert parts.reader.files.requests == 2
    await parts.history.page(Window(CHAT, 1849, None, None, 51, False))
    assert parts.reader.files.requests == 2


async def test_retention_of_all_and_of_a_group(parts: Split) -> None:
    talk = Talk()
    for chat in ("group.short", "group.long", "group.plain", "dm.ann.bob"):
        await filled(parts, talk, 10, chat)
    await parts.database["groups"].insert_many(
        [
            {"_id": "short", "retention_days": FIRST_ID + 8},
            {"_id": "long", "retention_days": 0},
            {"_id": "plain"},
        ]
    )
    await parts.run(FIRST_ID + 35)
    lengths = {chat: len(await whole(parts.history, chat)) for chat in _chats(talk)}
    assert lengths == {"group.short": 2, "group.long": 10, "group.plain": 10, "dm.ann.bob": 10}
    parts.config = ArchiveConfig(file_rows=7, buckets=2, retention_days=FIRST_ID + 38)
    await parts.run(FIRST_ID + 35)
    lengths = {chat: len(await whole(parts.history, chat)) for chat in _chats(talk)}
    assert lengths == {"group.short": 2, "group.long": 10, "group.plain": 0, "dm.ann.bob": 2}
    assert await parts.problems() == []
    parts.config = SMALL


@pytest.mark.parametrize("ahead_days", [0, 20])
async def test_a_clock_that_runs_ahead_removes_nothing_early(
    parts: Split, monkeypatch: pytest.MonkeyPatch, ahead_days: int
) -> None:
    ages = {"group.new": 29.0, "group.old": 31.0}
    for chat, days in ages.items():
        await filled(parts, Talk(NAMES.before(days)), 3, chat)
    ahead_ns = ahead_days * 86_400 * 10**9
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + ahead_ns)
    config = ArchiveConfig(retention_days=30.0, hot_days=90.0)
    report = await Archive(parts.database, parts.objects, config, NAMES).run()
    assert report.removed == 3
    assert [len(await whole(parts.history, chat)) for chat in ages] == [3, 0]


def _chats(talk: Talk) -> set[str]:
    return {chat for chat, _, _ in talk.sent}


async def test_only_one_runs_at_a_time(parts: Split) -> None:
    async with Lease(parts.database) as first:
        with pytest.raises(Busy, match=first.owner):
            await parts.run(FAR)
        assert await first.finished_ago_s() is None
    await parts.run(FAR)
    ago_s = await Lease(parts.database).finished_ago_s()
    assert ago_s is not None
    assert ago_s < 10


async def test_verify_tells_what_is_wrong(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk, 40)
    await parts.run(FAR)
    entries = [each async for each in parts.archive.manifest.entries()]
    assert len(entries) >= 5
    await parts.objects.delete(entries[0].key)
    data = await parts.objects.get(entries[1].key)
    middle = len(data) // 2
    flipped = bytes([data[middle] ^ 1])
    await parts.objects.put(entries[1].key, data[:middle] + flipped + data[middle + 1 :])
    await parts.objects.delete(f"{entries[2].key}.json")
    await parts.objects.put("messages/0000/stray.parquet", b"x")
    await parts.database["archive_chats"].update_one(
        {"file": entries[3].key}, {"$inc": {"rows": 1}}
    )
    problems = await parts.problems()
    expected = [
        (entries[0].key, "the file is missing"),
        (entries[1].key, "the file has changed"),
        (entries[2].key, "the copy of the manifest is missing"),
        (entries[3].key, "what is listed of its chats differs"),
        ("messages/0000/stray.parquet", "the manifest does not know it"),
    ]
    assert len(problems) == len(expected)
    for key, what in expected:
        assert any(each.startswith(f"{key}: {what}") for each in problems), (key, problems)


async def test_a_lost_manifest_is_rebuilt(parts: Split) -> None:
    talk = Talk()
    await filled(parts, talk, 30)
    await parts.run(FIRST_ID + 25)
    before = await whole(parts.history, CHAT)
    for name in ("archives", "archive_chats", "archive_garbage", "leases"):
        await parts.database[name].delete_many({})
    assert len(await whole(parts.history, CHAT)) == 5
    restored = await Check(parts.database, parts.objects).rebuild()
    assert restored == 4
    assert await whole(parts.history, CHAT) == before
    assert (await parts.run(FIRST_ID + 25)).deleted == 0
    assert await whole(parts.history, CHAT) == before
    assert await parts.problems() == []


async def test_what_is_not_as_written_is_not_trusted(
    parts: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk()
    await filled(parts, talk)
    before = await whole(parts.history, CHAT)
    put = parts.objects.put

    async def spoil(key: str, data: bytes) -> None:
        await put(key, data[:100] + b"\0" + data[101:] if key.endswith(".parquet") else data)

    monkeypatch.setattr(parts.objects, "put", spoil)
    with pytest.raises(Damaged, match="read back"):
        await parts.run(FAR)
    assert len(await parts.hot_ids()) == 20
    monkeypatch.undo()
    await parts.run(FAR)
    assert await whole(parts.history, CHAT) == before
    assert await parts.problems() == []
