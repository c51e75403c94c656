"""The terminal client's screen and keys; what it shows is in `model`, how in `render`."""

import sys
import time
from collections.abc import Coroutine
from typing import ClassVar
from uuid import uuid4

from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..address import endpoint
from ..client import Client
from ..cursor_file import FileCursorStore, default_path
from ..cursor_store import CursorStore
from ..errors import ClientError, CursorStoreError, HandshakeRefused
from ..state import ConnectionState
from . import render
from .commands import HELP, Dm, GroupCommand, Say, Simple, Wrong, parse
from .model import HOME, Chats, Key
from .words import connection, plain

DRAW_EVERY_S = 0.03
TICK_S = 0.5
SEND_WITHIN_S = 120.0
WELCOME = "Type /dm and a name to write to somebody, or /help to see what else there is."
HELP_LINE = "/dm NAME  /group create ID NAME  /help  /quit   ↑↓ other chat  PgUp/PgDn"


class Entry(Input):
    """The line one writes in.

    Enter is handled here and not by a binding: bindings run in the application's own queue, and
    what is pasted or typed quickly after it would still go to the old line.
    """

    class Entered(Message):
        """A line was finished."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    def on_key(self, event: events.Key) -> None:
        """Hand the line over at Enter."""
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Entered(self.value))
            self.clear()


class ChatApp(App[None]):
    """One user's conversations."""

    TITLE = "Hikyaku"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #header { height: 1; background: $primary-darken-3; color: $text; padding: 0 1; }
    #chats {
        width: 22; height: 1fr; border: none; border-right: solid $primary-darken-2;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    #chats > .option-list--option-highlighted {
        background: $primary; color: $text; text-style: bold;
    }
    #scroll { height: 1fr; padding: 0 1; }
    #lines { height: auto; }
    #typing { height: 1; padding: 0 1; color: $text-muted; }
    #input { height: 3; }
    #help { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "quit", "quit", priority=True),
        Binding("up", "step(-1)", "previous", priority=True),
        Binding("down", "step(1)", "next", priority=True),
        Binding("pageup", "page(-1)", "back", priority=True),
        Binding("pagedown", "page(1)", "forward", priority=True),
    ]

    def __init__(self, url: str, token: str, user: str, *, store: CursorStore | None = None):
        super().__init__()
        self.chats = Chats(user)
        self.chats.notice(WELCOME)
        self.end_note = ""
        self._showing = False
        self._draw_waiting = False
        self._listed: list[str] = []
        self._state_since = time.monotonic()
        self.client = Client(
            url, token, user=user, cursor_store=store, on_state=self._connection_changed
        )

    # --- the screen ---

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="header", markup=False)
        with Horizontal():
            chats = OptionList(id="chats", markup=False)
            chats.can_focus = False
            yield chats
            with VerticalScroll(id="scroll", can_focus=False):
                yield Static(id="lines", markup=False)
        yield Static(id="typing", markup=False)
        yield Entry(id="input", placeholder="Write here; Enter sends")
        yield Static(HELP_LINE, id="help", markup=False)

    def on_mount(self) -> None:
        """Begin to connect."""
        self._showing = True
        self.query_one("#scroll", VerticalScroll).anchor()
        self.query_one("#input", Input).focus()
        self.set_interval(TICK_S, self._tick)
        self._draw()
        self.run_worker(self._listen(), name="events")

    async def on_unmount(self) -> None:
        """Disconnect and save where we are."""
        self._showing = False
        try:
            await self.client.close()
        except OSError as error:
            self.end_note = f"Where you stopped reading could not be saved: {error}"

    def _changed(self) -> None:
        """Draw soon; many changes at once are drawn together."""
        if not self._draw_waiting:
            self._draw_waiting = True
            self.set_timer(DRAW_EVERY_S, self._draw)

    def _draw(self) -> None:
        self._draw_waiting = False
        self._draw_header()
        self._draw_sidebar()
        chat = self.chats.current
        self.query_one("#lines", Static).update(render.conversation(chat, self.chats.me))
        self.query_one("#input", Entry).placeholder = (
            "Write here; Enter sends"
            if chat.key == HOME
            else f"Message to {render.one_line(chat.title)}"
        )
        self._draw_typing()

    def _draw_header(self) -> None:
        waited_s = time.monotonic() - self._state_since
        words, colour = connection(self.client.state, waited_s=waited_s)
        name = render.one_line(self.chats.me)
        self.query_one("#header", Static).update(
            Text.assemble((f"Hikyaku  {name}  ", "bold"), (render.one_line(words), colour))
        )

    def _draw_sidebar(self) -> None:
        sidebar = self.query_one("#chats", OptionList)
        titles = [render.title(chat) for chat in self.chats.all.values()]
        plain_titles = [title.plain for title in titles]
        if plain_titles != self._listed:
            self._listed = plain_titles
            sidebar.clear_options()
            sidebar.add_options([Option(title) for title in titles])
        sidebar.highlighted = list(self.chats.all).index(self.chats.selected)

    def _draw_typing(self) -> None:
        self.query_one("#typing", Static).update(render.typing(self.chats.current.typing))

    def _tick(self) -> None:
        if self.client.state.phase == "waiting":
            self._draw_header()
        if self.chats.expire_typing(time.monotonic()):
            self._draw_typing()

    # --- keys ---

    def action_step(self, by: int) -> None:
        """Look at the next conversation."""
        self.chats.step(by)
        self._show()

    def action_page(self, by: int) -> None:
        """Read back or forward."""
        scroll = self.query_one("#scroll", VerticalScroll)
        if by < 0:
            scroll.scroll_page_up(animate=False)
        else:
            scroll.scroll_page_down(animate=False)

    @on(OptionList.OptionSelected, "#chats")
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.chats.select(list(self.chats.all)[event.option_index])
        self._show()

    def _show(self) -> None:
        self._draw()
        scroll = self.query_one("#scroll", VerticalScroll)
        scroll.anchor()
        scroll.scroll_end(animate=False)

    @on(Input.Changed, "#input")
    async def _typed(self, event: Input.Changed) -> None:
        key = self.chats.selected
        if not event.value.strip() or event.value.startswith("/") or key == HOME:
            return
        if key.kind == "dm":
            await self.client.typing(to=key.name)
        else:
            await self.client.typing(group_id=key.name)

    @on(Entry.Entered)
    def _entered(self, event: Entry.Entered) -> None:
        match parse(event.text):
            case Say(text):
                self._say(text)
            case Dm(user):
                self.chats.select(Key("dm", user))
            case GroupCommand(verb, words):
                self._group(verb, words)
            case Simple("help"):
                self.chats.notice(HELP)
            case Simple("retry"):
                for line in self.chats.failures(self.chats.selected):
                    self._deliver(self.chats.selected, line.client_id, line.text)
            case Simple():
                self.exit()
            case Wrong(text):
                self.chats.notice(text)
        self._show()

    # --- messages ---

    def _say(self, text: str) -> None:
        key = self.chats.selected
        if key == HOME:
            self.chats.notice("First say to whom: /dm NAME")
            return
        client_id = str(uuid4())
        self.chats.sending(key, client_id, text, int(time.time() * 1000))
        self._deliver(key, client_id, text)

    def _deliver(self, key: Key, client_id: str, text: str) -> None:
        self.run_worker(self._send(key, client_id, text), name="send")

    async def _send(self, key: Key, client_id: str, text: str) -> None:
        send = self.client.send if key.kind == "dm" else self.client.send_group
        try:
            ack = await send(key.name, text, client_id=client_id, deadline_s=SEND_WITHIN_S)
        except ClientError as error:
            self.chats.failed(key, client_id, plain(error))
        else:
            self.chats.sent(key, client_id, ack)
        self._changed()

    # --- groups ---

    def _group(self, verb: str, words: tuple[str, ...]) -> None:
        key = self.chats.selected
        if verb in ("create", "join"):
            key = Key("group", words[0])
        elif key.kind != "group":
            self.chats.notice("Open the group first: choose it on the left with ↑ or ↓.")
            return
        self.run_worker(self._told(self._group_request(verb, key, words)), name="group")

    async def _group_request(self, verb: str, key: Key, words: tuple[str, ...]) -> None:
        client, group_id = self.client, key.name
        match verb:
            case "create":
                group = await client.create_group(words[1], words[2:], group_id=group_id)
                self.chats.name_group(group_id, group.name)
                self.chats.select(key)
            case "join":
                group = await client.join(group_id)
                self.chats.name_group(group_id, group.name)
                self.chats.select(key)
            case "add":
                await client.add_members(group_id, words)
            case "remove":
                await client.remove_members(group_id, words)
            case "leave":
                await client.leave(group_id)
            case "members":
                page = await client.members(group_id)
                names = ", ".join(f"{m.user_id} ({m.role})" for m in page.members)
                self.chats.notice(names + (", …" if page.more else ""), key=key)
        self._show()

    async def _told(self, doing: Coroutine[None, None, None]) -> None:
        """Do something, and say it in plain words if it fails."""
        try:
            await doing
        except ClientError as error:
            self.chats.notice(f"That did not work: {plain(error)}.")
        self._changed()

    async def _learn_name(self, key: Key) -> None:
        try:
            group = await self.client.group_info(key.name)
        except ClientError as error:
            self.log(f"the name of {key.name} stays unknown: {error}")
        else:
            self.chats.name_group(key.name, group.name)
            self._changed()

    # --- the client ---

    async def _listen(self) -> None:
        try:
            await self.client.start()
            async for event in self.client:
                new_group = self.chats.apply(event, time.monotonic())
                if new_group is not None:
                    self.run_worker(self._learn_name(new_group), name="name")
                self._changed()
        except CursorStoreError as error:
            self._fatal(f"{error}. Delete the file to begin from now.")
        except OSError as error:
            self._fatal(f"Where you stopped reading cannot be read: {error}")
        except ClientError as error:
            self._fatal(plain(error))

    def _fatal(self, text: str) -> None:
        self.end_note = text
        self.chats.notice(text)
        self._changed()

    def _connection_changed(self, state: ConnectionState) -> None:
        self._state_since = time.monotonic()
        if self._showing:
            self._changed()


def run(url: str, token: str, user: str) -> None:
    """Chat in this terminal as `user` until `/quit`."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SystemExit("The chat needs a terminal to run in.")
    try:
        store = FileCursorStore(default_path(endpoint(url), user))
        app = ChatApp(url, token, user, store=store)
    except HandshakeRefused as error:
        raise SystemExit(f"{error}") from None
    app.run()
    if app.end_note:
        print(app.end_note, file=sys.stderr)
