"""The terminal client's screen: chats and history on start, reading back, changes, receipts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.containers import VerticalScroll

from client import MemoryCursorStore
from client.terminal.app import ChatApp
from client.terminal.lines import Key
from edge.close_codes import CloseCode
from edge.frames import (
    Activity,
    Chat,
    Chats,
    Close,
    Delete,
    DeliveryReceipt,
    Edit,
    GroupJoin,
    History,
    MessageEdited,
    Missing,
    Open,
    PresenceEvent,
    PresenceSubscribe,
    React,
    ReadReceipt,
    ReadReceiptEvent,
    Receipts,
    Result,
    Search,
    Typing,
    Unread,
    decode_request,
)

from .test_client_past import DM, stored
from .test_client_server import Link, ScriptedServer, message
from .test_client_server import short_waits as short_waits
from .test_client_terminal import Screen

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

Rows = list[dict[str, Any]]


def row(chat_id: str, *, unread: int = 0, last: dict[str, Any] | None = None, **more: Any) -> Any:
    kind = "dm" if chat_id.startswith("dm") else "group"
    return {"chat_id": chat_id, "kind": kind, "unread": unread, "last_message": last, **more}


class Server:
    """Answers questions about chats and history by itself; other frames wait in `frames`."""

    def __init__(self) -> None:
        self.link: Link
        self.rows: Rows = []
        self.past: dict[str, Rows] = {}
        self.asked: list[Any] = []
        self.refused: set[type] = set()
        self.receipts: dict[str, Any] = {}
        self.frames: asyncio.Queue[Any] = asyncio.Queue(maxsize=100)

    async def serve(self, link: Link) -> None:
        self.link = link
        async for data in link.socket:
            frame: Any = decode_request(data.encode() if isinstance(data, str) else data)
            if type(frame) in self.refused:
                await link.refuse(frame, "not_member")
            elif (fields := self._answer(frame)) is not None:
                self.asked.append(frame)
                await link.send(Result(id=frame.id, **fields))
            elif not isinstance(frame, Typing | DeliveryReceipt):
                self.frames.put_nowait(frame)

    def _answer(self, frame: Any) -> dict[str, Any] | None:
        match frame:
            case Chats():
                start = (
                    [each["chat_id"] for each in self.rows].index(frame.after)
                    if frame.after
                    else -1
                )
                rows = self.rows[start + 1 :]
                return {"chats": rows[:3], "more": len(rows) > 3}
            case History():
                rows = self.past.get(frame.chat_id, [])
                if frame.before is not None:
                    rows = [each for each in rows if int(each["id"]) < int(frame.before)]
                return {"messages": rows[::-1][: frame.limit], "more": len(rows) > frame.limit}
            case PresenceSubscribe():
                return {"presence": {"bob": {"status": "online", "text": "", "last_seen": None}}}
            case ReadReceipt():
                return {"chat_id": frame.chat_id, "last_read_msg_id": frame.last_read_msg_id}
            case Receipts():
                return {"receipts": self.receipts}
            case Search():
                marked = f"at \ue000{frame.query}\ue001"
                return {"hits": [stored(9, f"at {frame.query}", highlight=marked)], "total": 1}
            case Open() | Close():
                return {}
        return None

    async def get(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(10):
            frame = await self.frames.get()
        assert isinstance(frame, kind), frame
        return frame

    def reads(self) -> list[str]:
        return [each.last_read_msg_id for each in self.asked if isinstance(each, ReadReceipt)]


@asynccontextmanager
async def chatting(
    rows: Rows, past: dict[str, Rows] | None = None
) -> AsyncIterator[tuple[Screen, Server, ScriptedServer]]:
    async with ScriptedServer() as scripted:
        server = Server()
        server.rows, server.past = rows, past or {}
        app = ChatApp(scripted.url, "t", "alice", store=MemoryCursorStore())
        async with app.run_test(size=(80, 24)) as pilot:
            screen = Screen(app, pilot)
            serving = asyncio.create_task(server.serve(await scripted.online()))
            await screen.until(lambda: any(isinstance(each, Chats) for each in server.asked))
            yield screen, server, scripted
        serving.cancel()
        await asyncio.wait([serving])


def scroll_of(screen: Screen) -> VerticalScroll:
    return screen.app.query_one("#scroll", VerticalScroll)


async def test_a_search_is_answered_where_it_was_asked() -> None:
    async with chatting([row(DM, last=stored(9))]) as (screen, server, _):
        await screen.type("/search lunch")
        await screen.sees("One message with lunch:")
        await screen.sees("at lunch")
        server.refused.add(Search)
        await screen.type("/search dinner")
        await screen.sees("That did not work")


async def test_the_list_is_loaded_and_the_newest_page_of_what_is_opened() -> None:
    rows = [
        row("group.team", unread=2, last=stored(90), name="Our team"),
        row(DM, unread=1, last=stored(80)),
        row("dm.alice.carol", last=stored(70)),
        row("group.old", name="Old"),
    ]
    async with chatting(rows, {DM: [stored(79), stored(80, "hello")]}) as (screen, server, _):
        wanted = ["Start here", "#Our team 2", "● bob 1", "carol", "#Old"]
        await screen.until(lambda: screen.sidebar() == wanted)
        await screen.sees("Conversations: 4, 3 unread in 2 of them.")
        await screen.pilot.press("down", "down")
        await screen.sees("This is where it begins.")
        await screen.sees("── new ─")
        await screen.sees("bob hello")
        await screen.until(lambda: server.reads() == ["1080"])
        assert screen.sidebar()[2] == "● bob"
        await server.link.send(PresenceEvent(user_id="bob", status="away", text="", last_seen=None))
        await screen.until(lambda: screen.sidebar()[2] == "◐ bob")


async def test_reading_back_keeps_its_place() -> None:
    past = [stored(seq, f"line {seq} " + "word " * (seq % 12)) for seq in range(1, 121)]
    async with chatting([row(DM, last=past[-1])], {DM: past}) as (screen, server, _):
        await screen.type("/dm bob")
        await screen.sees("line 120")
        scroll = scroll_of(screen)
        await screen.until(lambda: scroll.max_scroll_y > 0 and scroll.scroll_y > 0)
        for oldest in (71, 21, 1):
            await screen.sees(f"line {oldest} ")
            before = screen.text("lines").splitlines()[1]
            height = scroll.virtual_size.height
            while scroll.scroll_y > 0 and scroll.virtual_size.height == height:
                await screen.pilot.press("pageup")
            if oldest == 1:
                break
            await screen.until(lambda height=height: scroll.virtual_size.height > height)  # type: ignore[misc]
            await screen.until(lambda: scroll.scroll_y > 0)
            grown = screen.text("lines").splitlines()
            assert before in grown
        await screen.sees("This is where it begins.")
        await screen.pilot.press("pageup")
        asked = [each.before for each in server.asked if isinstance(each, History)]
        assert asked == [None, "1071", "1021"]


async def test_what_comes_while_reading_back_is_unread_until_one_goes_down() -> None:
    past = [stored(seq) for seq in range(1, 41)]
    async with chatting([row(DM, last=past[-1])], {DM: past}) as (screen, server, _):
        await screen.type("/dm bob")
        await screen.sees("message 40")
        await screen.until(lambda: scroll_of(screen).scroll_y > 0)
        await screen.pilot.press("pageup")
        await screen.until(lambda: scroll_of(screen).scroll_y < scroll_of(screen).max_scroll_y)
        await server.link.send(message(41, "psst"))
        await screen.sees("↓ 1 new below", "typing")
        assert "● bob 1" in screen.sidebar()
        assert "1041" not in server.reads()
        while scroll_of(screen).scroll_y < scroll_of(screen).max_scroll_y:
            await screen.pilot.press("pagedown")
        await screen.until(lambda: "1041" in server.reads())
        await screen.until(lambda: "● bob" in screen.sidebar())
        await screen.until(lambda: screen.text("typing") == "")


async def test_receipts_are_few_and_ticks_come_with_those_of_the_other_one() -> None:
    async with chatting([]) as (screen, server, _):
        await screen.type("/dm bob")
        await server.link.send(*[message(seq) for seq in range(1, 21)])
        await screen.until(lambda: server.reads()[-1:] == ["1020"])
        assert len(server.reads()) <= 3
        await screen.type("mine")
        frame = await server.get(Chat)
        await server.link.ack(frame, seq=21)
        await screen.sees("mine  ✓")
        assert "✓✓" not in screen.text("lines")
        read = ReadReceiptEvent(chat_id=DM, reader_id="bob", last_read_msg_id="1021", read_seq=21)
        await server.link.send(read)
        await screen.sees("mine  ✓✓")


async def test_ticks_are_asked_for_on_each_connection() -> None:
    mine = stored(1, "mine", **{"from": "alice", "to": "bob", "client_id": "x"})
    async with chatting([row(DM)], {DM: [mine]}) as (screen, server, scripted):
        server.receipts = {"bob": {"delivered_seq": 1}}
        await screen.type("/dm bob")
        await screen.sees("mine  ✓✓")
        server.receipts = {"bob": {"read_seq": 1, "delivered_seq": 1}}
        await server.link.close(CloseCode.DRAINING)
        serving = asyncio.create_task(server.serve(await scripted.online()))
        conversation = screen.app.chats.all[Key("dm", "bob")]
        await screen.until(lambda: conversation.peer_read_to == 1)
        serving.cancel()
        await asyncio.wait([serving])


async def test_an_unwatched_window_reads_nothing() -> None:
    async with chatting([]) as (screen, server, _):
        await screen.type("/dm bob")
        screen.app.app_focus = False
        await server.link.send(message(1))
        await screen.until(lambda: "● bob 1" in screen.sidebar())
        await screen.pilot.pause(0.7)
        assert server.reads() == []
        screen.app.app_focus = True
        await screen.until(lambda: server.reads() == ["1001"])


async def test_editing_deleting_reacting_and_answering() -> None:
    async with chatting([]) as (screen, server, _):
        for command in ("/edit x", "/react +1", "/reply x"):
            await screen.type(command)
            await screen.sees("First say to whom")
        await screen.type("/dm bob")
        await screen.type("/edit x")
        await screen.sees("You have not written anything here.")
        await screen.type("/react +1")
        await screen.sees("There is no message here yet.")

        await screen.type("helo")
        frame = await server.get(Chat)
        await screen.type("/delete")
        await screen.sees("The last message is not sent yet.")
        await server.link.ack(frame, seq=1)
        await screen.sees("helo  ✓")
        await server.link.send(message(2, "what?"))
        await screen.sees("what?")

        await screen.type("/edit hello")
        edit = await server.get(Edit)
        assert (edit.chat_id, edit.message_id, edit.content) == (DM, "1001", "hello")
        await server.link.ack(edit, seq=3)
        await server.link.send(
            MessageEdited(seq=3, chat_id=DM, id="1001", from_="alice", content="hello", edited_at=1)
        )
        await screen.sees("hello (edited)  ✓")

        await screen.type("/react +1")
        react = await server.get(React)
        assert (react.message_id, react.emoji, react.remove) == ("1002", "👍", False)
        await server.link.ack(react, seq=4)
        for user in ("alice", "bob"):
            await server.link.send_raw(
                f'{{"type":"reaction","seq":{4 + (user == "bob")},"chat_id":"{DM}","id":"1002",'
                f'"from":"{user}","emoji":"👍","removed":false}}'
            )
        await screen.sees("👍 alice, bob")
        await screen.type("/react 👍")
        react = await server.get(React)
        assert react.remove
        await server.link.ack(react, seq=6)

        await screen.type("/reply hello!")
        answer = await server.get(Chat)
        assert (answer.reply_to, answer.thread, answer.content) == ("1002", "1002", "hello!")
        await screen.sees("↳ bob: what?")
        await server.link.refuse(answer, "forbidden")
        await screen.sees("not sent")
        await screen.type("/retry")
        answer = await server.get(Chat)
        assert answer.thread == "1002"
        await server.link.ack(answer, seq=7)
        await screen.sees("1 reply")

        await screen.type("/delete")
        gone = await server.get(Delete)
        assert gone.message_id == "1007"
        await server.link.refuse(gone, "not_found")
        await screen.sees("That did not work: there is no such group, user or message.")


async def test_after_a_gap_all_is_loaded_again() -> None:
    past = {DM: [stored(1, "old")]}
    async with chatting([row(DM, last=stored(1))], past) as (screen, server, scripted):
        await screen.type("/dm bob")
        await screen.sees("bob old")
        past[DM].append(stored(2, "missed"))
        server.link.cut()
        link = await scripted.accept()
        serving = asyncio.create_task(server.serve(link))
        await link.welcome("e1:5")
        await link.send(message(3, "newest"))
        past[DM].append(stored(3, "newest"))
        missing = [Missing(chat_id=DM, from_seq=2, to_seq=2)]
        await link.caught_up("e1:5", missing=missing)
        await screen.sees("bob missed")
        assert screen.text("lines").count("newest") == 1
        serving.cancel()


async def test_what_cannot_be_loaded_is_said() -> None:
    async with chatting([]) as (screen, server, _):
        server.refused = {History, PresenceSubscribe, ReadReceipt}
        await screen.type("/dm bob")
        await screen.sees("Earlier messages could not be loaded: you are not in this group.")
        await server.link.send(message(1))
        await screen.sees("message 1")
        server.refused = {Unread}
        read = ReadReceiptEvent(chat_id=DM, reader_id="alice", last_read_msg_id="7", seq=2)
        await screen.pilot.press("up")
        await server.link.send(message(3), read)
        await screen.until(lambda: "bob 1" in screen.sidebar())


async def test_what_was_read_elsewhere_is_counted_by_the_server() -> None:
    async with chatting([row(DM, unread=5, last=stored(9))]) as (screen, server, _):
        await screen.until(lambda: "● bob 5" in screen.sidebar())
        read = ReadReceiptEvent(chat_id=DM, reader_id="alice", last_read_msg_id="7", seq=10)
        await server.link.send(read)
        unread = await server.get(Unread)
        await server.link.send(Result(id=unread.id, counts={DM: 2}))
        await screen.until(lambda: "● bob 2" in screen.sidebar())


async def test_a_channel_is_followed_while_it_is_looked_at() -> None:
    chat_id = "group.news"
    news: Rows = [{**stored(1, "first"), "chat_id": chat_id, "group_id": "news"}]
    async with chatting([row(DM, last=stored(1))], {chat_id: news}) as (screen, server, _):
        await screen.type("/group join news")
        joined = await server.get(GroupJoin)
        group = {"group_id": "news", "chat_id": chat_id, "name": "News", "kind": "channel"}
        await server.link.send(Result(id=joined.id, group=group))
        await screen.sees("bob first")
        kinds = [type(each) for each in server.asked if isinstance(each, Open | History)]
        assert kinds == [Open, History], "what is live first, so that there is no gap"
        news.append({**stored(2, "second"), "chat_id": chat_id, "group_id": "news"})
        await server.link.send(Activity(chat_id=chat_id, seq=0))
        await screen.sees("bob second")
        await screen.type("/dm bob")
        await screen.until(lambda: any(isinstance(each, Close) for each in server.asked))


async def test_a_list_that_cannot_be_had_is_said() -> None:
    async with ScriptedServer() as scripted:
        app = ChatApp(scripted.url, "t", "alice", store=MemoryCursorStore())
        async with app.run_test(size=(80, 24)) as pilot:
            link = await scripted.online()
            await link.refuse(await link.receive(Chats), "internal")
            await Screen(app, pilot).sees("Your conversations could not be listed: the server")
