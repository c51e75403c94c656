"""History over any split of hot and archive equals history over all hot, whatever happened."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import subjects
from store import archive_rows
from store.history import History, Window

from ..archives import FIRST_ID, Split, Talk, seen, split
from ..servers import Mongo

CHATS = ("group.one", "dm.ann.bob", "group.two")
NUMBER = st.integers(0, 40)

OPERATION = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(CHATS), st.sampled_from(["ann", "bob"])),
    st.tuples(st.just("say"), st.sampled_from(CHATS[:1]), st.sampled_from(["ann", "bob"])),
    st.tuples(st.just("reply"), NUMBER, st.sampled_from(["ann", "bob"])),
    st.tuples(st.just("edit"), NUMBER, st.text(max_size=3)),
    st.tuples(st.just("delete"), NUMBER, st.none()),
    st.tuples(st.just("react"), NUMBER, st.sampled_from(["+", "-", "❤"])),
    st.tuples(st.just("archive"), NUMBER, st.none()),
)


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    server = Mongo(tmp_path_factory.mktemp("mongo"))
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.process.end(9)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_rows, "GROUP_ROWS", 3)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=st.lists(OPERATION, min_size=5, max_size=60), limit=st.integers(1, 9))
def test_history_is_the_same_over_any_split(
    mongo: Mongo, tmp_path: Path, operations: list[tuple[str, Any, Any]], limit: int
) -> None:
    asyncio.run(_compare(mongo, tmp_path, operations, limit))


async def _compare(
    mongo: Mongo, folder: Path, operations: list[tuple[str, Any, Any]], limit: int
) -> None:
    async with AsyncExitStack() as stack:
        hot = await stack.enter_async_context(split(mongo, folder / "none", "hot"))
        parts = await stack.enter_async_context(split(mongo, folder / "objects", "parts"))
        talk = Talk()
        for operation in operations:
            await _do(operation, talk, hot, parts)
        assert await parts.problems() == []
        plain = History(hot.database, chat_of=subjects.group)
        for chat in CHATS:
            await _ask(plain, parts.history, chat, talk, limit)
        assert parts.objects.url.endswith("objects")
        for key in [each async for each in parts.objects.list("messages/")]:
            await parts.objects.delete(key)


async def _do(operation: tuple[str, Any, Any], talk: Talk, hot: Split, parts: Split) -> None:
    match operation:
        case ("say", chat, by):
            entry = talk.say(chat, f"by {by}", by=by)
        case ("archive", number, _):
            await parts.run(FIRST_ID + number)
            return
        case _ if not talk.sent:
            return
        case (kind, number, what):
            number %= len(talk.sent)
            chat, message_id, _ = talk.sent[number]
            if kind == "reply":
                entry = talk.say(chat, "a reply", by=what, thread=message_id)
            elif kind == "edit":
                entry = talk.edit(number, what)
            elif kind == "delete":
                entry = talk.delete(number)
            else:
                entry = talk.react(number, what, f"user {number % 3}", removed=number % 4 == 0)
    for each in (hot, parts):
        assert await each.messages.write([entry]) == []


async def _ask(plain: History, archived: History, chat: str, talk: Talk, limit: int) -> None:
    ids = [message_id for of, message_id, _ in talk.sent if of == chat]
    for message_id in ids:
        expected = await plain.message(chat, message_id)
        found = await archived.message(chat, message_id)
        assert _bare(found) == _bare(expected)
    assert await archived.message(chat, 5) is None
    seqs = [None, *range(0, len(talk.sent) + 8, 5)]
    for edge in seqs:
        for window in (
            Window(chat, edge, None, None, limit, False),
            Window(chat, None, edge, None, limit, True),
            Window(chat, edge, 3, None, limit, False),
            Window(chat, edge, None, ids[0] if ids else 1, limit, False),
            Window(chat, None, edge, ids[-1] if ids else 1, limit, True),
        ):
            assert await seen(archived, window) == await seen(plain, window), window


def _bare(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """Empty reactions are none."""
    if document is None:
        return None
    return {name: value for name, value in document.items() if value != {}}
