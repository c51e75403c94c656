"""The client against a real site: history, changes, what is unread, receipts, presence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from client import (
    ChatEvent,
    Client,
    ClientEvent,
    DeliveryReceiptEvent,
    FileCursorStore,
    MemoryCursorStore,
    MessageDeleted,
    MessageEdited,
    Missing,
    PresenceEvent,
    Reaction,
    ReadReceiptEvent,
    dm_chat_id,
    errors,
)
from client.terminal.app import ChatApp
from tests.servers import Hikyaku, Site, token

pytestmark = pytest.mark.anyio

T = TypeVar("T", bound=ClientEvent)
WITHIN_S = 30.0


async def until(client: Client, kind: type[T], check: Callable[[T], bool] = lambda _: True) -> T:
    """The next event of a kind that passes `check`; others are passed over."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            event = await anext(client)
            if isinstance(event, kind) and check(event):
                return event


async def test_changes_reach_both_sides_and_are_in_history(site: Site) -> None:
    one, two = site.edges
    async with (
        Client(one.url, token("past-a"), user="past-a") as alice,
        Client(two.url, token("past-b"), user="past-b") as bob,
    ):
        chat_id = dm_chat_id("past-a", "past-b")
        first = await alice.send("past-b", "helo")
        second = await alice.send("past-b", "oops")
        answer = await bob.send("past-a", "hi", thread=first.message_id)
        edit = await alice.edit(chat_id, first.message_id, "hello", client_id="edit")
        again = await alice.edit(chat_id, first.message_id, "hello", client_id="edit")
        assert (again.seq, again.duplicate) == (edit.seq, True)
        await bob.react(chat_id, first.message_id, "👍")
        await bob.react(chat_id, first.message_id, "🎉")
        await bob.react(chat_id, first.message_id, "🎉", remove=True)
        await alice.delete(chat_id, second.message_id)
        for client in (alice, bob):
            edited = await until(client, MessageEdited)
            assert (edited.id, edited.content, edited.seq) == (first.message_id, "hello", edit.seq)
            assert (await until(client, Reaction)).emoji == "👍"
            assert (await until(client, Reaction, lambda event: event.removed)).emoji == "🎉"
            assert (await until(client, MessageDeleted)).id == second.message_id
        with pytest.raises(errors.NotAllowed):
            await bob.edit(chat_id, first.message_id, "mine now")
        with pytest.raises(errors.NotFound):
            await alice.edit(chat_id, second.message_id, "too late")

        page = await bob.history(chat_id)
        assert [each.id for each in page.messages] == [
            answer.message_id,
            second.message_id,
            first.message_id,
        ]
        _, gone, root = page.messages
        assert (gone.deleted, gone.content) == (True, "")
        assert (root.content, root.reactions, root.replies) == ("hello", {"👍": ["past-b"]}, 1)
        assert root.edited_at is not None
        thread = await bob.history(chat_id, thread=first.message_id)
        assert [each.content for each in thread.messages] == ["hi"]


async def test_pages_and_ranges(site: Site) -> None:
    async with Client(site.edges[0].url, token("past-c"), user="past-c") as client:
        acks = [await client.send("past-d", f"message {n}") for n in range(25)]
        chat_id = acks[0].chat_id
        page = await client.history(chat_id, limit=10)
        assert page.more
        assert [each.content for each in page.messages] == [
            f"message {n}" for n in range(24, 14, -1)
        ]
        page = await client.history(chat_id, before=page.messages[-1].id, limit=20)
        assert not page.more
        assert len(page.messages) == 15
        page = await client.history(chat_id, after=acks[2].message_id, limit=2)
        assert [each.content for each in page.messages] == ["message 4", "message 3"]
        missing = Missing(chat_id=chat_id, from_seq=acks[5].seq, to_seq=acks[20].seq)
        found = [each.seq async for each in client.fill(missing)]
        assert found == [ack.seq for ack in reversed(acks[5:21])]
        with pytest.raises(errors.NotMember):
            await client.history("group.elsewhere")


async def test_unread_and_receipts_on_all_devices(site: Site) -> None:
    one, two = site.edges
    store = MemoryCursorStore()
    async with (
        Client(one.url, token("past-e"), user="past-e") as sender,
        Client(two.url, token("past-f"), user="past-f") as phone,
        Client(one.url, token("past-f"), user="past-f", cursor_store=store) as laptop,
    ):
        acks = [await sender.send("past-f", f"message {n}") for n in range(3)]
        chat_id = acks[0].chat_id
        assert await phone.unread([chat_id]) == {chat_id: 3}
        assert await phone.read(chat_id, acks[1].message_id) == acks[1].message_id
        assert await phone.unread([chat_id]) == {chat_id: 1}
        (chat,) = (await laptop.chats()).chats
        assert (chat.chat_id, chat.kind, chat.unread) == (chat_id, "dm", 1)
        assert chat.last_read_msg_id == acks[1].message_id
        assert chat.last_message is not None
        assert chat.last_message.content == "message 2"
        for device in (phone, laptop):
            own = await until(device, ReadReceiptEvent)
            assert (own.reader_id, own.last_read_msg_id) == ("past-f", acks[1].message_id)
            assert own.seq is not None
            assert own.seq > acks[2].seq
        other = await until(sender, ReadReceiptEvent)
        assert (other.reader_id, other.seq) == ("past-f", None)
        await phone.read(chat_id, acks[2].message_id)
        end = (await until(laptop, ReadReceiptEvent)).seq
    assert str(store.cursor).endswith(f":{end}"), "an own receipt is a place in the log"
    async with Client(two.url, token("past-f"), cursor_store=store) as again:
        await sender_says(site, "past-f")
        event = await until(again, ReadReceiptEvent | ChatEvent)  # type: ignore[arg-type]
        assert isinstance(event, ChatEvent), "it does not come twice"


async def test_ticks(site: Site) -> None:
    one, two = site.edges
    async with (
        Client(one.url, token("past-g"), user="past-g") as sender,
        Client(two.url, token("past-h"), user="past-h", delivery_receipts=True) as receiver,
    ):
        acks = [await sender.send("past-h", f"message {n}") for n in range(3)]
        chat_id = acks[0].chat_id
        received = asyncio.create_task(until(receiver, ChatEvent, lambda each: each.seq == 0))
        told = await until(
            sender, DeliveryReceiptEvent, lambda event: event.delivered_seq == acks[2].seq
        )
        assert (told.user_id, told.last_delivered_msg_id) == ("past-h", acks[2].message_id)
        received.cancel()
        await asyncio.wait([received])
        await receiver.read(chat_id, acks[1].message_id)
        known = (await sender.receipts(chat_id))["past-h"]
        assert (known.read_seq, known.delivered_seq) == (acks[1].seq, acks[2].seq)
        (chat,) = (await sender.chats()).chats
        assert chat.receipts == {"past-h": known}


async def sender_says(site: Site, to: str) -> None:
    async with Client(site.edges[0].url, token("past-e")) as sender:
        await sender.send(to, "one more")


async def test_presence_is_watched_over_reconnects(fresh_site: Site) -> None:
    site = fresh_site
    await site.start()
    async with Client(site.edges[0].url, token("a"), user="a") as watcher:
        async with Client(site.edges[1].url, token("b"), user="b") as other:
            await other.send("a", "hello")
            if (await watcher.watch(["b", "stranger"]))["b"].status != "online":
                # It is told a moment after one is connected.
                await until(watcher, PresenceEvent, lambda event: event.status == "online")
            await other.set_presence("away", "lunch")
            away = await until(watcher, PresenceEvent)
            assert (away.user_id, away.status, away.text) == ("b", "away", "lunch")
            site.edges[0].process.kill()
        await site.edges[0].start()
        gone = await until(watcher, PresenceEvent, lambda event: event.status == "offline")
        assert gone.user_id == "b"


# --- the terminal ---


class Screen:
    """What a person sees."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> str:
        return str(self.app.query_one("#lines", Static).content)

    @property
    def chats(self) -> list[str]:
        options = self.app.query_one("#chats", OptionList).options
        return [" ".join(str(option.prompt).split()) for option in options]

    async def until(self, check: Callable[[], bool], what: str = "") -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not check():
                    await self.pilot.pause(0.02)
        except TimeoutError:
            pytest.fail(f"{what} not in {self.chats} {self.lines!r}")

    async def sees(self, *texts: str) -> None:
        for text in texts:
            await self.until(lambda text=text: text in self.lines, text)  # type: ignore[misc]

    async def type(self, text: str) -> None:
        self.app.query_one("#input").value = text  # type: ignore[attr-defined]
        await self.pilot.press("enter")


@asynccontextmanager
async def screen(edge: Hikyaku, user: str, path: str) -> AsyncIterator[Screen]:
    app = ChatApp(edge.url, token(user), user, store=FileCursorStore(path))
    async with app.run_test(size=(80, 24)) as pilot:
        found = Screen(app, pilot)
        await found.until(lambda: app.client.state.phase == "online", "online")
        yield found


async def test_two_terminals(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Changes and receipts live on both sides; after a restart the history and what is unread."""
    folder = tmp_path_factory.mktemp("cursors")
    one, two = site.edges
    ann, ben = str(folder / "ann"), str(folder / "ben")
    async with screen(one, "ann", ann) as a, screen(two, "ben", ben) as b:
        await a.type("/dm ben")
        await a.type("lunch at noon?")
        await a.sees("lunch at noon?  ✓")
        await b.until(lambda: b.chats[-1].endswith("ann 1"), "unread")
        assert "✓✓" not in a.lines
        await b.pilot.press("down")
        await b.sees("── new", "ann lunch at noon?")
        await a.sees("lunch at noon?  ✓✓")
        await a.until(lambda: a.chats[-1] == "● ben", "presence")

        await a.type("/edit lunch at one?")
        await b.type("/react +1")
        await b.type("/reply sure")
        for each in (a, b):
            await each.sees("ann lunch at one? (edited)", "👍 ben   1 reply")
            await each.sees("↳ ann: lunch at one?", "ben sure")
        await b.sees("ben sure  ✓✓")
        await a.type("oops")
        await b.sees("ann oops")
        await a.type("/delete")
        for each in (a, b):
            await each.sees("ann message deleted")
            assert "oops" not in each.lines

    async with Client(one.url, token("ann"), user="ann") as client:
        for n in range(60):
            await client.send("ben", f"while you were away {n}")
    async with screen(one, "ben", ben) as b:
        await b.until(lambda: b.chats[-1].endswith("ann 60"), "unread")
    async with screen(one, "ben", str(folder / "another device")) as b:
        await b.until(lambda: b.chats[-1].endswith("ann 60"), "unread survives a restart")
        await b.pilot.press("down")
        await b.sees("while you were away 10", "while you were away 59")
        assert "lunch" not in b.lines
        while "This is where it begins." not in b.lines:
            await b.pilot.press("pageup")
        await b.sees("ann lunch at one? (edited)", "👍 ben   1 reply", "── new", "deleted")
        await b.until(lambda: b.chats[-1].endswith("ann"), "nothing unread")
    async with Client(one.url, token("ben")) as client:
        chat_id = dm_chat_id("ann", "ben")
        assert await client.unread([chat_id]) == {chat_id: 0}
