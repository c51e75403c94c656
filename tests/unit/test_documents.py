"""A message is the same document whatever the order and number of its writes; in a real MongoDB."""

import itertools
import random
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, ConfigurationError

from broker import events
from store import bulk, documents
from store.config import StoreConfig
from store.database import Database, connect
from store.documents import Document, Entry
from store.errors import StoreUnavailable
from store.messages import Messages
from tests.mirror import (
    deleted,
    edited,
    expected,
    message,
    new_id,
    reaction,
    stored_documents,
    without_emptiness,
)
from tests.servers import Mongo

pytestmark = pytest.mark.anyio

SECRET = "5ecret"
USERS = ("alice", "bob", "$user", "a.b", "日本")
EMOJI = ("+1", "👍", "$content", "a.b", "\0")
CONTENTS = (f"{SECRET} one", f"${SECRET}", f"$$ROOT {SECRET}", f"{SECRET}\0 日本", f"{{{SECRET}}}")


_places = itertools.count(1000, 1000)
"""Where a test's events begin in the log, far from those of the others."""


class Life(NamedTuple):
    """What happened to some messages, in order of seq."""

    entries: list[Entry]

    def documents(self) -> dict[int, Document]:
        return {key: without_emptiness(each) for key, each in expected(self.entries).items()}

    def views(self) -> dict[int, Document]:
        return {key: documents.view(each) for key, each in expected(self.entries).items()}


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """Up to three messages of one chat, and up to ten changes of any of them."""
    rich: dict[str, Any] = {
        "attachments": [f"{SECRET}-file"],
        "files": [
            events.File(
                id=f"{SECRET}-file", name=f"{SECRET} name", size=1, content_type="x", sha256="0"
            )
        ],
        "mentions": [f"{SECRET}-user"],
        "reply_to": "1",
        "thread": "2",
    }
    said = [
        message(
            "alice", "bob", draw(st.sampled_from(CONTENTS)), **draw(st.sampled_from([{}, rich]))
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    found: list[events.Message | events.Change] = []
    waiting = list(said)
    for _ in range(draw(st.integers(0, 10))):
        if waiting and (not found or draw(st.booleans())):
            found.append(waiting.pop(0))
        subject = draw(st.sampled_from(said[: len(said) - len(waiting)]))
        match draw(st.sampled_from("eerrrd")):
            case "e":
                found.append(edited(subject, draw(st.sampled_from(CONTENTS))))
            case "d":
                found.append(deleted(subject))
            case _:
                by, emoji = draw(st.sampled_from(USERS)), draw(st.sampled_from(EMOJI))
                found.append(reaction(subject, by, emoji, removed=draw(st.booleans())))
    first = next(_places)
    gaps = draw(st.integers(1, 3))
    return Life([Entry(first + n * gaps, event) for n, event in enumerate([*found, *waiting], 1)])


def scrambled(life: Life, chance: random.Random) -> list[list[Entry]]:
    """All events at least once, in any order, some repeated, in batches of any size."""
    order = [*life.entries, *chance.choices(life.entries, k=chance.randrange(6))]
    chance.shuffle(order)
    batches = []
    while order:
        size = chance.randint(1, len(order))
        batches.append(order[:size])
        order = order[size:]
    return batches


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    mongo = Mongo(tmp_path_factory.mktemp("mongo"))
    try:
        await mongo.start()
        async with connect(StoreConfig(url=mongo.url)) as database:
            await Messages(database).ensure()
            yield database
    finally:
        mongo.process.kill()


async def stored(database: Database, life: Life) -> dict[int, Document]:
    ids = {int(each.event.id) for each in life.entries}
    return {key: each for key, each in (await stored_documents(database)).items() if key in ids}


@settings(max_examples=60, deadline=None)
@given(life=lives(), seed=st.integers(0, 2**32))
async def test_any_order_and_number_of_writes_gives_the_same(
    database: Database, life: Life, seed: int
) -> None:
    await database["messages"].delete_many({})
    messages = Messages(database)
    for batch in scrambled(life, random.Random(seed)):
        assert await messages.write(batch) == []
    found = await stored(database, life)
    assert {key: documents.view(each) for key, each in found.items()} == life.views()
    assert found == life.documents()
    for each in found.values():
        if "deleted_seq" in each:
            assert SECRET not in repr(each)
    chat = await database["chats"].find_one({"_id": life.entries[0].event.chat_id})
    assert chat is not None
    assert chat["users"] == ["alice", "bob"]


@settings(max_examples=40, deadline=None)
@given(life=lives(), seed=st.integers(0, 2**32))
async def test_what_mongodb_has_and_the_rest_of_the_log_give_the_same(
    database: Database, life: Life, seed: int
) -> None:
    """As history does it: some events are in MongoDB already, all are applied in order."""
    await database["messages"].delete_many({})
    chance = random.Random(seed)
    part = [each for each in life.entries if chance.random() < 0.6]
    chance.shuffle(part)
    await Messages(database).write(part)
    found = {key: each for key, each in (await stored(database, life)).items() if "at" in each}
    for entry in life.entries:
        if isinstance(entry.event, events.Message):
            found.setdefault(int(entry.event.id), documents.new(entry))
        else:
            documents.apply(found[int(entry.event.id)], entry.seq, entry.event)
    assert {key: documents.view(each) for key, each in found.items()} == life.views()
    for entry in chance.choices(life.entries, k=5):
        if not isinstance(entry.event, events.Message):
            documents.apply(found[int(entry.event.id)], entry.seq, entry.event)
    assert {key: documents.view(each) for key, each in found.items()} == life.views()


async def test_changes_that_come_first_are_seen_by_no_reader(database: Database) -> None:
    said = message("alice", "bob", SECRET)
    first = next(_places)
    assert await Messages(database).write([Entry(first + 1, edited(said, "later"))]) == []
    (found,) = [e for e in (await stored_documents(database)).values() if e["_id"] == int(said.id)]
    assert "at" not in found
    assert "chat" not in found


async def test_the_same_client_id_twice_is_stored_once(database: Database) -> None:
    """Beyond the log's own window for duplicates it can have a message twice."""
    one = message("alice", "bob", "once", client_id="the same")
    two = message("alice", "bob", "once", client_id="the same")
    first = next(_places)
    messages = Messages(database)
    assert await messages.write([Entry(first, one)]) == []
    assert await messages.write([Entry(first + 1, two)]) == []
    assert await messages.write([Entry(first, one), Entry(first + 1, two)]) == []
    found = await stored_documents(database)
    assert int(one.id) in found
    assert int(two.id) not in found
    chat = await database["chats"].find_one({"_id": one.chat_id})
    assert chat is not None
    assert chat["seq"] == first


async def test_the_same_place_twice_is_refused(database: Database) -> None:
    """As when the log was lost, and a new one counts from 1 again."""
    one, two = message("alice", "bob", "one"), message("alice", "bob", "two")
    first = next(_places)
    messages = Messages(database)
    assert await messages.write([Entry(first, one)]) == []
    (rejected,) = await messages.write([Entry(first, two)])
    assert rejected.seq == first
    assert "duplicate key" in rejected.reason


@pytest.mark.parametrize("id", ["", "abc", "12\n", "007", "1_0", "-1", "٣", str(2**63)])
async def test_what_cannot_be_an_id_is_refused_alone(database: Database, id: str) -> None:
    good, bad = message("alice", "bob", "good"), message("alice", "bob", "bad")
    bad.id = id
    first = next(_places)
    rejected = await Messages(database).write([Entry(first, bad), Entry(first + 1, good)])
    assert [each.seq for each in rejected] == [first]
    assert int(good.id) in await stored_documents(database)
    bad.id, bad.thread = new_id(), id
    rejected = await Messages(database).write([Entry(first + 2, bad)])
    assert [each.seq for each in rejected] == [first + 2]
    change = edited(good, "edited")
    change.id = id
    rejected = await Messages(database).write([Entry(first + 3, change)])
    assert [each.seq for each in rejected] == [first + 3]


async def test_what_bson_cannot_hold_is_refused_alone(database: Database) -> None:
    said = [message("alice", "bob", f"number {n}") for n in range(20)]
    said[7].timestamp = said[13].timestamp = 2**70
    first = next(_places)
    entries = [Entry(first + number, each) for number, each in enumerate(said)]
    late = edited(said[3], "too late")
    late.edited_at = 2**70
    rejected = await Messages(database).write([*entries, Entry(first + 20, late)])
    assert sorted(each.seq - first for each in rejected) == [7, 13, 20]
    found = await stored_documents(database)
    assert [int(each.id) in found for each in said] == [n not in (7, 13) for n in range(20)]


class Refusing:
    """Stands for a collection whose server answers a bulk write with these errors."""

    def __init__(self, **details: list[dict[str, Any]]):
        self._details = details

    async def bulk_write(self, operations: list[Any], *, ordered: bool) -> None:
        assert not ordered
        raise BulkWriteError(self._details)


@pytest.mark.parametrize(
    "details",
    [
        {"writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]},
        {"writeErrors": [{"index": 0, "code": 91, "errmsg": "shutting down"}]},
        {"writeErrors": [{"index": 0, "code": 10107, "errmsg": "not primary"}]},
        {"writeErrors": [{"index": 0, "code": 14031, "errmsg": "disk full"}]},
    ],
    ids=["no-majority", "shutting-down", "not-primary", "disk-full"],
)
async def test_what_may_be_stored_later_is_not_refused(
    database: Database, details: dict[str, list[dict[str, Any]]]
) -> None:
    """What looks like an answer about one document is one about the server."""
    with pytest.raises(StoreUnavailable):
        await bulk.write(database, Refusing(**details), [object()])


async def test_one_that_is_refused_is_named(database: Database) -> None:
    errors = [{"index": 1, "code": 121, "errmsg": "failed validation"}]
    found = await bulk.write(database, Refusing(writeErrors=errors), [object(), object()])
    assert found == [bulk.Refusal(1, (), "failed validation")]


async def test_an_upsert_that_always_loses_is_tried_again_later(database: Database) -> None:
    lost = {"index": 0, "code": 11000, "errmsg": "duplicate", "keyPattern": {"_id": 1}}
    with pytest.raises(StoreUnavailable):
        await bulk.write(database, Refusing(writeErrors=[lost]), [UpdateOne({"_id": 1}, {})])


async def test_a_server_that_is_only_starting_is_unavailable(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="not ready"), database.errors():
        raise ConfigurationError("Sessions are not supported by this MongoDB deployment")


def test_a_message_has_room_for_so_many_reactions() -> None:
    def put(user: str, emoji: str, *, on: bool = True) -> None:
        kept[f"{emoji}_{user}"] = {"emoji": emoji, "user": user, "seq": 1, "on": on}

    kept: dict[str, Any] = {}
    document = {"reactions": kept}
    for number in range(documents.EMOJI - 1):
        put(f"user {number}", f"emoji {number}")
    assert documents.why_not_react(document, "alice", "new") == ""
    put("user", "another")
    assert "different" in documents.why_not_react(document, "alice", "new")
    assert documents.why_not_react(document, "alice", "another") == ""
    for number in range(documents.REACTIONS):
        put(f"{number}", "another")
    assert documents.why_not_react(document, "alice", "another")
    assert documents.why_not_react(document, "7", "another") == ""
    kept.clear()
    for number in range(documents.REACTIONS_KEPT):
        put(f"{number}", "gone", on=False)
    assert documents.why_not_react(document, "alice", "new")
