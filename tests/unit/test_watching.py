"""Watching users: what is told, when, and how often; with a reader and sessions of the test's."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from typing import Any

import msgspec
import pytest

from broker.errors import Unavailable
from broker.mirror import Value
from broker.presence import Connection, Part, Seen, Setting
from edge.hub import User
from edge.rates import TokenBucket
from edge.watching import WINDOW_S, Board

pytestmark = pytest.mark.anyio

ONLINE = msgspec.json.encode(Connection(since=1))
AWAY = msgspec.json.encode(Connection(since=1, status="away"))
HIDDEN = msgspec.json.encode(Setting("invisible"))


class Session:
    """Keeps the frames that it is told."""

    def __init__(self, name: str):
        self.user = User(name, TokenBucket(1, 1, 0))
        self.lost = False
        self.told: list[tuple[str, str]] = []

    def tell(self, frame: bytes) -> None:
        fields = json.loads(frame[frame.index(b"{") :])
        self.told.append((fields["user_id"], fields["status"]))


class Bucket:
    """What the reader finds, and what of it is told live."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Value]] = {}
        self.seq = 0
        self.reads: list[set[str]] = []
        self.away = False
        self.meanwhile: Any = None

    def put(self, token: str, key: str, data: bytes) -> Value:
        self.seq += 1
        value = self.keys.setdefault(token, {})[key] = Value(self.seq, data)
        return value

    async def read(self, users: Collection[str]) -> AsyncIterator[Part]:
        self.reads.append(set(users))
        if self.away:
            raise Unavailable("away")
        part = Part(list(users), {user: dict(self.keys.get(user, {})) for user in users}, self.seq)
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            self.meanwhile()
        yield part


class Watch:
    """A board with its bucket; edges `e1` and `e2` live."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        self.living = {"e1", "e2"}
        reader: Any = self.bucket
        self.board = Board(reader, self.living, asyncio.get_running_loop().call_later)

    def live(self, token: str, key: str, data: bytes) -> None:
        self.board.apply(token, key, self.bucket.put(token, key, data))

    async def statuses(self, session: Any, *users: str) -> dict[str, str]:
        views = await self.board.watch(session, list(users))
        return {user: view.status for user, view in views.items()}


async def settled() -> None:
    await asyncio.sleep(WINDOW_S * 3)


async def test_changes_are_told_once_and_only_if_they_show() -> None:
    watch, session = Watch(), Session("w")
    watch.bucket.put("a", "e1.1", ONLINE)
    assert await watch.statuses(session, "a", "b") == {"a": "online", "b": "offline"}
    watch.live("a", "e2.2", ONLINE)
    watch.live("b", "seen", msgspec.json.encode(Seen(1)))
    watch.live("b", "e1.3", ONLINE)
    watch.live("c", "e1.4", ONLINE)
    await settled()
    assert session.told == [("b", "online")]
    watch.live("a", "e2.2", b"")
    watch.live("b", "e1.3", b"")
    watch.live("b", "e1.5", ONLINE)  # back at once
    await settled()
    assert session.told == [("b", "online")]
    watch.live("a", "e1.1", b"")
    await settled()
    assert session.told == [("b", "online"), ("a", "offline")]


async def test_an_edge_that_ends_takes_its_users_with_it() -> None:
    watch, session = Watch(), Session("w")
    for token, keys in (("a", ["e1.1"]), ("b", ["e1.2", "e2.3"])):
        for key in keys:
            watch.bucket.put(token, key, ONLINE)
    await watch.statuses(session, "a", "b")
    watch.living.remove("e1")
    watch.board.edges_changed()
    await settled()
    assert session.told == [("a", "offline")]


async def test_own_devices_see_more() -> None:
    watch, own, other = Watch(), Session("a"), Session("w")
    watch.bucket.put("a", "e1.1", ONLINE)
    for session in (own, other):
        assert await watch.statuses(session, "a") == {"a": "online"}
    watch.live("a", "set", HIDDEN)
    await settled()
    assert (own.told, other.told) == ([("a", "invisible")], [("a", "offline")])
    watch.live("a", "e1.1", AWAY)
    await settled()
    assert len(own.told + other.told) == 2
    watch.live("a", "set", b"")
    await settled()
    assert (own.told[-1], other.told[-1]) == (("a", "away"), ("a", "away"))


async def test_what_happens_while_it_is_read_is_not_lost() -> None:
    watch, session = Watch(), Session("w")
    watch.bucket.put("a", "e1.1", ONLINE)
    watch.bucket.put("b", "e1.2", ONLINE)

    def meanwhile() -> None:
        watch.live("a", "e1.1", b"")
        watch.live("c", "e1.3", ONLINE)

    watch.bucket.meanwhile = meanwhile
    found = await watch.statuses(session, "a", "b", "c")
    assert found == {"a": "offline", "b": "online", "c": "online"}
    await settled()
    assert session.told == []


async def test_a_second_watcher_gets_no_frame_for_what_it_was_answered() -> None:
    watch, first, second = Watch(), Session("w"), Session("v")
    await watch.statuses(first, "a")
    watch.live("a", "e1.1", ONLINE)
    assert await watch.statuses(second, "a") == {"a": "online"}
    await settled()
    assert (first.told, second.told) == ([("a", "online")], [])
    assert watch.bucket.reads == [{"a"}, set()]


async def test_repair_finds_what_was_missed() -> None:
    watch, session = Watch(), Session("w")
    watch.bucket.put("a", "e1.1", ONLINE)
    await watch.statuses(session, "a", "b", "c")
    del watch.bucket.keys["a"]["e1.1"]
    watch.bucket.put("b", "e1.2", AWAY)
    await watch.board.repair()
    await settled()
    assert sorted(session.told) == [("a", "offline"), ("b", "away")]
    assert watch.bucket.reads[-1] == {"a", "b", "c"}


async def test_nothing_is_kept_that_nobody_watches() -> None:
    watch, one, two = Watch(), Session("w"), Session("v")
    for session in (one, two):
        await watch.statuses(session, "a", "b")
    watch.board.unwatch(one, ["a", "x"])  # type: ignore[arg-type]
    assert list(watch.board.watched_by(one)) == ["b"]  # type: ignore[arg-type]
    watch.live("a", "e1.1", ONLINE)
    watch.live("b", "e1.1", ONLINE)
    await settled()
    assert (one.told, len(two.told)) == ([("b", "online")], 2)
    for session in (one, two):
        watch.board.forget(session)  # type: ignore[arg-type]
    assert watch.board.users == 0
    watch.live("a", "e1.1", b"")
    await settled()
    assert len(two.told) == 2


async def test_a_session_that_ends_while_it_asks_leaves_nothing() -> None:
    watch, session = Watch(), Session("w")

    def gone() -> None:
        session.lost = True

    watch.bucket.meanwhile = gone
    assert await watch.statuses(session, "a") == {}
    assert watch.board.users == 0


async def test_unreadable_users_are_not_watched() -> None:
    watch, session = Watch(), Session("w")
    watch.bucket.away = True
    with pytest.raises(Unavailable):
        await watch.statuses(session, "a")
    assert (watch.board.users, list(watch.board.watched_by(session))) == (0, [])  # type: ignore[arg-type]
    watch.bucket.away = False
    assert await watch.statuses(session, "a") == {"a": "offline"}
