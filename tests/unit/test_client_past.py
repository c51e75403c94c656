"""Changes, history, chats, unread and read pointers against a scripted server."""

import asyncio
from typing import Any

import msgspec
import pytest

from client import Client, MemoryCursorStore, Message, Missing, ReadReceiptEvent, errors
from edge.frames import (
    Chat,
    Chats,
    Delete,
    Edit,
    GroupChat,
    History,
    Limits,
    MessageDeleted,
    MessageEdited,
    React,
    Reaction,
    ReadReceipt,
    Result,
    Search,
    Unread,
)

from .test_client_sends import nothing_comes, online, send
from .test_client_server import Link, ScriptedServer, eventually, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

DM = "dm.alice.bob"


def stored(seq: int, content: str = "", **fields: Any) -> dict[str, Any]:
    """A message as `history` has it."""
    found: dict[str, Any] = msgspec.to_builtins(message(seq, content))
    return {**found, "type": "chat", **fields}


def page(seqs: range) -> list[dict[str, Any]]:
    return [stored(seq) for seq in reversed(seqs)]


CHANGES: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Any], dict[str, Any]]] = [
    ("edit", ("new text",), {}, Edit, {"content": "new text"}),
    ("delete", (), {}, Delete, {}),
    ("react", ("👍",), {}, React, {"emoji": "👍", "remove": False}),
    ("react", ("👍",), {"remove": True}, React, {"emoji": "👍", "remove": True}),
]


@pytest.mark.parametrize(("method", "args", "options", "kind", "fields"), CHANGES)
async def test_a_change_is_sent_again_under_its_name(
    method: str, args: Any, options: Any, kind: type[Any], fields: dict[str, Any]
) -> None:
    async with online() as (server, client, link):
        doing = asyncio.create_task(getattr(client, method)(DM, "1007", *args, **options))
        first = await link.receive(kind)
        assert (first.chat_id, first.message_id) == (DM, "1007")
        assert {name: getattr(first, name) for name in fields} == fields
        link.cut()
        link = await server.online()
        again = await link.receive(kind)
        assert again.client_id == first.client_id
        await link.ack(again, seq=8, duplicate=True)
        assert (await doing).seq == 8


@pytest.mark.parametrize("user", [None, "alice"])
async def test_messages_and_changes_of_a_chat_keep_their_order(user: str | None) -> None:
    async with online(user=user) as (_, client, link):
        tasks: list[asyncio.Task[Any]] = [
            send(client, "one"),
            asyncio.create_task(client.edit(DM, "1001", "two", client_id="mine")),
            send(client, "three"),
            asyncio.create_task(client.send_group("té.m", "one")),
            asyncio.create_task(client.react("group.t=C3=A9=2Em", "5", "👍")),
            asyncio.create_task(client.delete("dm.carol.dave", "5")),
        ]
        await asyncio.sleep(0)
        kinds: list[type[Any]] = [Chat, GroupChat, Delete]
        frames = [await link.receive(kind) for kind in kinds]
        await nothing_comes(link)
        for seq, frame in enumerate(frames, 1):
            await link.ack(frame, seq=seq)
        edit = await link.receive(Edit)
        assert edit.client_id == "mine"
        await link.ack(await link.receive(React), seq=4)
        await nothing_comes(link)
        await link.refuse(edit, "not_found")
        with pytest.raises(errors.NotFound):
            await tasks[1]
        await link.ack(await link.receive(Chat), seq=5)
        assert [(await task).seq for task in tasks if task is not tasks[1]] == [1, 5, 2, 4, 3]


async def test_history() -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(client.history(DM, before="9", after="3", thread="2", limit=7))
        frame = await link.receive(History)
        assert (frame.chat_id, frame.before, frame.after) == (DM, "9", "3")
        assert (frame.thread, frame.limit) == ("2", 7)
        changed = stored(
            8, "new", edited_at=5, reactions={"👍": ["bob"]}, replies=2, thread="2", future=1
        )
        gone = stored(7, deleted=True)
        await link.send(Result(id=frame.id, messages=[changed, gone], more=True))
        found = await asking
        assert found.more
        first, second = found.messages
        assert (first.content, first.edited_at, first.reactions) == ("new", 5, {"👍": ["bob"]})
        assert (first.from_, first.to, first.replies, first.deleted) == ("bob", "alice", 2, False)
        assert second.deleted
        asking = asyncio.create_task(client.history(DM))
        await link.send(Result(id=(await link.receive(History)).id, chats=[]))
        with pytest.raises(errors.ServerError):
            await asking


async def filled(client: Client, missing: Missing, before: str | None = None) -> list[Message]:
    return [found async for found in client.fill(missing, before=before)]


async def answer_history(link: Link, seqs: range, *, more: bool) -> History:
    frame = await link.receive(History)
    await link.send(Result(id=frame.id, messages=page(seqs), more=more))
    return frame


@pytest.mark.parametrize("beginning", [False, True])
async def test_a_range_that_was_left_out_is_read(beginning: bool) -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.accept()
        await link.welcome(limits=Limits(history_page=10))
        await eventually(lambda: client.session)
        missing = Missing(chat_id=DM, from_seq=15, to_seq=24)
        reading = asyncio.create_task(filled(client, missing))
        frame = await answer_history(link, range(21, 31), more=True)
        assert (frame.limit, frame.before) == (10, None)
        rest = range(16, 21) if beginning else range(11, 21)
        frame = await answer_history(link, rest, more=not beginning)
        assert frame.before == "1021"
        found = [each.seq for each in await reading]
        assert found == list(range(24, 15 if beginning else 14, -1))
        reading = asyncio.create_task(filled(client, missing, before="1025"))
        assert (await answer_history(link, range(0), more=False)).before == "1025"
        assert await reading == []
        await client.close()


async def test_chats_and_unread() -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(client.chats(limit=2, after="group.g"))
        frame = await link.receive(Chats)
        assert (frame.limit, frame.after) == (2, "group.g")
        rows: list[dict[str, Any]] = [
            {"chat_id": DM, "kind": "dm", "name": None, "unread": 3, "members": 2}
            | {"last_message": stored(9, "hi"), "last_read_msg_id": "1004"},
            {"chat_id": "group.x", "kind": "channel", "name": "X", "unread": 0, "members": 9}
            | {"last_message": None, "last_read_msg_id": None},
        ]
        await link.send(Result(id=frame.id, chats=rows, more=True))
        found = await asking
        assert found.more
        dm, channel = found.chats
        assert (dm.unread, dm.last_read_msg_id, dm.members) == (3, "1004", 2)
        assert dm.last_message is not None
        assert dm.last_message.content == "hi"
        assert (channel.kind, channel.name, channel.last_message) == ("channel", "X", None)

        counting = asyncio.create_task(client.unread([DM, "group.x"]))
        unread = await link.receive(Unread)
        assert unread.chat_ids == [DM, "group.x"]
        await link.send(Result(id=unread.id, counts={DM: 1000, "group.x": 0}, more=[DM]))
        assert await counting == {DM: 1000, "group.x": 0}


async def test_reading_is_told_also_after_a_cut() -> None:
    async with online() as (server, client, link):
        reading = asyncio.create_task(client.read(DM, "1004"))
        await link.receive(ReadReceipt)
        link.cut()
        link = await server.online()
        frame = await link.receive(ReadReceipt)
        assert (frame.chat_id, frame.last_read_msg_id) == (DM, "1004")
        await link.send(Result(id=frame.id, chat_id=DM, last_read_msg_id="1005"))
        assert await reading == "1005"


def receipt(reader: str, seq: int | None = None) -> ReadReceiptEvent:
    return ReadReceiptEvent(chat_id=DM, reader_id=reader, last_read_msg_id="1001", seq=seq)


async def test_a_search_has_hits_with_what_fits_marked() -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(client.search("lunch", from_="bob", since=5, limit=2))
        frame = await link.receive(Search)
        assert (frame.query, frame.chat_id, frame.from_, frame.since, frame.until) == (
            "lunch",
            None,
            "bob",
            5,
            None,
        )
        assert (frame.limit, frame.offset) == (2, 0)
        marked = stored(8, "at lunch", highlight="at \ue000lunch\ue001")
        hits = [marked, stored(7, "edited lunch")]
        await link.send(Result(id=frame.id, hits=hits, total=31))
        page = await asking
        assert (page.total, [hit.seq for hit in page.hits]) == (31, [8, 7])
        assert page.hits[0].parts == [("at ", False), ("lunch", True)]
        assert (page.hits[1].highlight, page.hits[1].parts) == (None, [("edited lunch", False)])


async def test_a_search_without_hits_and_one_that_is_nonsense() -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(client.search("nothing"))
        await link.send(Result(id=(await link.receive(Search)).id, hits=[], total=0))
        page = await asking
        assert (page.hits, page.total) == ([], 0)
        asking = asyncio.create_task(client.search("nonsense"))
        await link.send(Result(id=(await link.receive(Search)).id, hits=[{"id": 5}], total=1))
        with pytest.raises(errors.ServerError):
            await asking


async def test_own_receipts_move_the_cursor_and_others_do_not() -> None:
    store = MemoryCursorStore()
    async with online(cursor_store=store) as (_, client, link):
        await link.send(message(1), receipt("alice", 2), receipt("bob"), receipt("alice", 2))
        edited = MessageEdited(seq=3, chat_id=DM, id="1001", from_="bob", content="x", edited_at=1)
        deleted = MessageDeleted(seq=4, chat_id=DM, id="1001", from_="bob", deleted_at=1)
        reaction = Reaction(seq=5, chat_id=DM, id="1001", from_="bob", emoji="x", removed=False)
        await link.send(edited, deleted, reaction, receipt("bob"))
        wanted = [receipt("alice", 2), receipt("bob"), edited, deleted, reaction, receipt("bob")]
        async with asyncio.timeout(10):
            assert isinstance(await anext(client), type(message(1)))
            assert [await anext(client) for _ in wanted] == wanted
    assert store.cursor == "e1:5"
