"""The terminal client's screen, driven by keys, against a scripted server."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from client import MemoryCursorStore, terminal
from client.terminal.app import ChatApp
from edge.frames import (
    Chat,
    Chats,
    DeliveryReceipt,
    GroupAdd,
    GroupChat,
    GroupCreate,
    GroupInfo,
    GroupJoin,
    GroupLeave,
    GroupMembers,
    GroupRemove,
    History,
    MemberAdded,
    PresenceSubscribe,
    ReadReceipt,
    Receipts,
    Result,
    Typing,
)

from .test_client_server import Link, ScriptedServer, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

IGNORED = (Typing, Chats, History, ReadReceipt, DeliveryReceipt, Receipts, PresenceSubscribe)

GROUP = {"group_id": "team", "chat_id": "group.team", "name": "Our team", "version": 1}


class Screen:
    """What a person sees and does."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    def text(self, part: str) -> str:
        return str(self.app.query_one(f"#{part}", Static).content)

    def sidebar(self) -> list[str]:
        chats = self.app.query_one("#chats", OptionList)
        return [" ".join(str(option.prompt).split()) for option in chats.options]

    async def type(self, text: str) -> None:
        entry = self.app.query_one("#input", Input)
        entry.value = text
        await self.pilot.press("enter")

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not check():
                await self.pilot.pause(0.01)

    async def sees(self, text: str, part: str = "lines") -> None:
        try:
            await self.until(lambda: text in self.text(part))
        except TimeoutError:
            pytest.fail(f"no {text!r} in {self.text(part)!r}")


@asynccontextmanager
async def chatting() -> AsyncIterator[tuple[ScriptedServer, Screen, Link]]:
    async with ScriptedServer() as server:
        app = ChatApp(server.url, "t", "alice", store=MemoryCursorStore())
        async with app.run_test(size=(80, 24)) as pilot:
            screen = Screen(app, pilot)
            link = await server.online()
            link.ignored = IGNORED
            await screen.sees("online", "header")
            yield server, screen, link
        await link.closed()


async def test_a_person_finds_out_what_to_do() -> None:
    async with chatting() as (_, screen, _link):
        assert "/dm" in screen.text("lines")
        assert "/quit" in screen.text("help")
        assert screen.sidebar() == ["Start here"]
        await screen.type("hello?")
        await screen.sees("First say to whom")
        await screen.type("are you there?")
        await screen.type("/group leave")
        await screen.sees("Open the group first")
        await screen.type("/help")
        await screen.sees("PgUp PgDn")
        await screen.type("/wat")
        await screen.sees("no command /wat")
        await screen.type('/dm "b ob"')
        entry = screen.app.query_one("#input", Input)
        await screen.until(lambda: entry.value == "hello? are you there?")
        assert screen.sidebar() == ["Start here", "b ob"]


async def test_a_message_goes_out_and_is_ticked() -> None:
    async with chatting() as (_, screen, link):
        await screen.type("/dm bob")
        assert screen.sidebar() == ["Start here", "bob"]
        await screen.type("hello")
        await screen.sees("hello  sending…")
        frame = await link.receive(Chat)
        assert (frame.to, frame.content) == ("bob", "hello")
        await link.ack(frame, seq=41)
        await screen.sees("hello  ✓")
        await link.send(message(41, "hello", from_="alice", to="bob", client_id=frame.client_id))
        await link.send(message(42, "hello yourself"))
        await screen.sees("bob hello yourself")
        assert screen.text("lines").count("alice hello") == 1


async def test_keys_are_fast() -> None:
    """What is typed right after Enter belongs to the next message."""
    async with chatting() as (_, screen, link):
        await screen.type("/dm bob")
        for key in (*"one", "enter", *"two", "enter", *"3", "enter"):
            screen.app.post_message(events.Key(key, key if len(key) == 1 else "\r"))
        for seq, text in enumerate(("one", "two", "3"), 1):
            frame = await link.receive(Chat)
            assert frame.content == text
            await link.ack(frame, seq=seq)
        await screen.sees("3  ✓")


async def test_unknown_conversations_open_with_a_count_and_arrows_choose() -> None:
    async with chatting() as (_, screen, link):
        await link.send(message(1, "psst"), message(2, "are you there?"))
        await screen.until(lambda: screen.sidebar() == ["Start here", "bob 2"])
        assert "psst" not in screen.text("lines")
        await screen.pilot.press("down")
        await screen.sees("are you there?")
        assert screen.sidebar() == ["Start here", "bob"]
        await screen.pilot.press("up")
        await screen.sees("/dm")
        await screen.pilot.click("#chats", offset=(3, 1))
        await screen.sees("psst")
        await screen.pilot.press("pageup", "pagedown")


async def test_typing_is_told_and_shown() -> None:
    async with chatting() as (_, screen, link):
        await screen.type("/dm bob")
        await screen.pilot.press(*"hey")
        assert (await link.receive(Typing)).to == "bob"
        await link.send_raw(
            '{"type":"typing","chat_id":"dm.alice.bob","from":"bob","expires_in":200}'
        )
        await screen.sees("bob is typing…", "typing")
        await screen.until(lambda: screen.text("typing") == "")


async def test_the_connection_is_in_the_header() -> None:
    async with chatting() as (server, screen, link):
        await screen.type("/dm bob")
        await link.close(4129, '{"retry_after_ms":700}')
        await screen.sees("reconnecting in", "header")
        await screen.sees("too many messages", "header")
        await screen.type("in between")
        link = await server.online()
        link.ignored = IGNORED
        await screen.sees("online", "header")
        await link.ack(await link.receive(Chat), seq=1)
        await screen.sees("in between  ✓")


async def test_a_refused_message_says_why_and_can_be_sent_again() -> None:
    async with chatting() as (_, screen, link):
        await screen.type("/dm bob")
        await screen.type("hello")
        frame = await link.receive(Chat)
        await link.refuse(frame, "forbidden")
        await screen.sees("✗ not sent: you are not allowed to do that (/retry)")
        await screen.type("/retry")
        again = await link.receive(Chat)
        assert (again.client_id, again.content) == (frame.client_id, "hello")
        await link.ack(again, seq=3)
        await screen.sees("hello  ✓")


async def test_a_refused_token_is_said_in_plain_words() -> None:
    async with chatting() as (_, screen, link):
        await link.close(4002, "expired")
        await screen.sees("Your token has expired. Get a new one and start again.")
        await screen.sees("disconnected", "header")
        await screen.type("/dm bob")
        await screen.type("hello")
        await screen.sees("not sent: Your token has expired")
    assert "expired" in screen.app.end_note


async def test_a_refused_token_that_was_made_here_names_its_secret() -> None:
    async with ScriptedServer() as server:
        app = ChatApp(server.url, "t", "alice", store=MemoryCursorStore(), signed_with="MY_SECRET")
        async with app.run_test(size=(80, 24)) as pilot:
            link = await server.online()
            await link.close(4001, "no")
            await Screen(app, pilot).sees("made here with MY_SECRET")


@pytest.mark.parametrize("url", ["no-such-host.invalid", "ws://a b", "ftp://x", "ws://[x"])
def test_an_address_that_cannot_be_is_refused_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("client.terminal.app.getproxies", dict)
    with pytest.raises(SystemExit, match=f"--url {re.escape(url)}: "):
        terminal.run(url, "t", "alice")


async def test_groups() -> None:
    async with chatting() as (_, screen, link):
        await screen.type('/group create team "Our team" bob carol')
        create = await link.receive(GroupCreate)
        assert (create.group_id, create.name) == ("team", "Our team")
        assert create.members == ["bob", "carol"]
        await link.send(Result(id=create.id, group=GROUP))
        await screen.until(lambda: screen.sidebar() == ["Start here", "#Our team"])
        await screen.type("hello team")
        frame = await link.receive(GroupChat)
        assert frame.group_id == "team"
        await link.ack(frame, seq=9)
        await screen.sees("hello team  ✓")

        await screen.type("/group add dave eve")
        add = await link.receive(GroupAdd)
        assert (add.group_id, add.users) == ("team", ["dave", "eve"])
        await link.send(Result(id=add.id, group=GROUP))
        await link.send(
            MemberAdded(seq=10, chat_id="group.team", group_id="team", by="alice", users=["dave"])
        )
        await screen.sees("you added dave")

        await screen.type("/group remove dave")
        await link.refuse(await link.receive(GroupRemove), "forbidden")
        await screen.sees("That did not work: you are not allowed to do that.")

        await screen.type("/group members")
        asked = await link.receive(GroupMembers)
        rows = [{"user_id": "alice", "role": "owner"}, {"user_id": "bob", "role": "member"}]
        await link.send(Result(id=asked.id, members=rows, more=True))
        await screen.sees("alice (owner), bob (member), …")

        await screen.type("/group leave")
        left = await link.receive(GroupLeave)
        await link.send(Result(id=left.id, group=GROUP))

        await screen.type("/group join news")
        joined = await link.receive(GroupJoin)
        await link.send(Result(id=joined.id, group={**GROUP, "group_id": "news", "name": "News"}))
        await screen.until(lambda: "#News" in screen.sidebar())
        await screen.pilot.press(*"x")
        assert (await link.receive(Typing)).group_id == "news"


@pytest.mark.parametrize("answered", [True, False])
async def test_the_name_of_a_group_that_one_is_added_to_is_asked(answered: bool) -> None:
    async with chatting() as (_, screen, link):
        await link.send(
            MemberAdded(seq=1, chat_id="group.team", group_id="team", by="bob", users=["alice"])
        )
        asked = await link.receive(GroupInfo)
        if answered:
            await link.send(Result(id=asked.id, group=GROUP))
            await screen.until(lambda: "#Our team" in screen.sidebar())
        else:
            await link.refuse(asked, "not_member")
            await screen.until(lambda: "#team" in screen.sidebar())
        await screen.pilot.press("down")
        await screen.sees("bob added you")


@pytest.mark.parametrize("how", ["/quit", "ctrl+c", "ctrl+q"])
async def test_quitting_saves_where_one_was(how: str) -> None:
    async with ScriptedServer() as server:
        store = MemoryCursorStore()
        app = ChatApp(server.url, "t", "alice", store=store)
        async with app.run_test() as pilot:
            screen = Screen(app, pilot)
            link = await server.online()
            await link.send(message(7, "the last one"))
            await screen.until(lambda: "bob 1" in screen.sidebar())
            if how.startswith("/"):
                await screen.type(how)
            else:
                await pilot.press(how)
        await link.closed()
        assert store.cursor == "e1:7"


async def test_a_store_that_cannot_be_read_is_said_so() -> None:
    app = ChatApp("ws://127.0.0.1:1", "t", "alice", store=MemoryCursorStore("nonsense"))
    async with app.run_test() as pilot:
        await Screen(app, pilot).sees("Delete the file to begin from now.")


async def test_many_messages_are_drawn_together() -> None:
    async with chatting() as (_, screen, link):
        await screen.type("/dm bob")
        await link.send(*[message(seq) for seq in range(1, 1001)])
        await screen.sees("message 1000")
        assert "message 500 " not in screen.text("lines")


def test_without_a_terminal_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="needs a terminal"):
        terminal.run("ws://127.0.0.1:1", "t", "alice")
