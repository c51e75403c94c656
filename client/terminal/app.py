"""The terminal client's screen and keys; what it shows is in `model`, how in `render`."""

import socket
import sys
import time
from collections.abc import Coroutine
from typing import ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies

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
from ..errors import ClientError, CursorStoreError, HandshakeRefused, Unauthorized
from ..state import ConnectionState
from . import render
from .commands import (
    HELP,
    Dm,
    Find,
    GroupCommand,
    Reacted,
    Reply,
    Rewrite,
    SaveFile,
    Say,
    SendFile,
    Simple,
    Wrong,
    parse,
)
from .lines import HOME, Key
from .loading import Loading
from .model import Chats
from .talk import KEPT, Talk
from .words import connection, plain

DRAW_EVERY_S = 0.03
TICK_S = 0.5
WELCOME = "Type /dm and a name to write to somebody, or /help to see what else there is."
HELP_LINE = "/dm NAME  /reply  /edit  /react  /help  /quit   ↑↓ other chat  PgUp PgDn"


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
    #scroll {
        height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
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

    def __init__(
        self,
        url: str,
        token: str,
        user: str,
        *,
        store: CursorStore | None = None,
        signed_with: str = "",
    ):
        """`signed_with` names the secret of a token that was made for this."""
        super().__init__()
        self._signed_with = signed_with
        self._kept = ""
        self.chats = Chats(user)
        self.chats.notice(WELCOME)
        self.end_note = ""
        self._showing = False
        self._draw_waiting = False
        self._listed: list[str] = []
        self._listed_keys: list[Key] = []
        self._state_since = time.monotonic()
        self.client = Client(
            url,
            token,
            user=user,
            cursor_store=store,
            on_state=self._connection_changed,
            delivery_receipts=True,
        )
        self._loading = Loading(self.client, self.chats, spawn=self._spawn, changed=self._changed)
        self._talk = Talk(
            self.client,
            self.chats,
            spawn=self._spawn,
            changed=self._changed,
            show=self._show,
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
        scroll = self.query_one("#scroll", VerticalScroll)
        scroll.anchor()
        self.watch(scroll, "scroll_y", self._scrolled, init=False)
        self.query_one("#input", Input).focus()
        self.set_interval(TICK_S, self._tick)
        self._draw()
        self.run_worker(self._listen(), name="events")

    async def on_unmount(self) -> None:
        """Disconnect and save where we are."""
        self._showing = False
        try:
            await self._loading.flush()
            await self.client.close()
        except OSError as error:
            self.end_note = f"Where you stopped reading could not be saved: {error}"

    def _spawn(self, doing: Coroutine[None, None, None]) -> None:
        if self._showing:
            self.run_worker(doing)
        else:
            doing.close()

    def _changed(self) -> None:
        """Draw soon; many changes at once are drawn together."""
        if not self._draw_waiting:
            self._draw_waiting = True
            self.set_timer(DRAW_EVERY_S, self._draw)

    def _draw(self) -> None:
        self._draw_waiting = False
        if not self._alive():
            return
        self._look()
        self._draw_header()
        self._draw_sidebar()
        self._draw_lines()
        self._draw_foot()

    def _draw_header(self) -> None:
        waited_s = time.monotonic() - self._state_since
        words, colour = connection(self.client.state, waited_s=waited_s)
        name = render.one_line(self.chats.me)
        self.query_one("#header", Static).update(
            Text.assemble((f"Hikyaku  {name}  ", "bold"), (render.one_line(words), colour))
        )

    def _draw_sidebar(self) -> None:
        sidebar = self.query_one("#chats", OptionList)
        listed = self.chats.ordered()
        titles = [render.title(chat) for chat in listed]
        if (looks := [title.markup for title in titles]) != self._listed:
            self._listed = looks
            sidebar.clear_options()
            sidebar.add_options([Option(title) for title in titles])
        self._listed_keys = [chat.key for chat in listed]
        sidebar.highlighted = self._listed_keys.index(self.chats.selected)

    def _draw_lines(self) -> None:
        chat = self.chats.current
        lines = self.query_one("#lines", Static)
        lines.update(render.conversation(chat, self.chats.me, width=lines.size.width or 55))
        self.query_one("#input", Entry).placeholder = (
            "Write here; Enter sends"
            if chat.key == HOME
            else f"Message to {render.one_line(chat.title)}"
        )

    def _draw_foot(self) -> None:
        chat = self.chats.current
        below = chat.unread and not self._at_end()
        new = f"↓ {chat.unread} new below (PgDn)   " if below else ""
        foot = Text.assemble((new, "bold yellow"), render.typing(chat.typing))
        self.query_one("#typing", Static).update(foot)

    def _alive(self) -> bool:
        """Whether the screen is there; a timer may still fire when it is being taken down."""
        return self._showing and bool(self.query("#scroll"))

    def _tick(self) -> None:
        if not self._alive():
            return
        if self.client.state.phase == "waiting":
            self._draw_header()
        if self.chats.expire_typing(time.monotonic()):
            self._draw_foot()
        self._look()

    # --- reading ---

    def _look(self) -> None:
        """Tell what is before the user's eyes: the end of the conversation, if the window is."""
        self._note_reading()
        seen = self.chats.look()
        if seen is not None:
            self._loading.tell(seen)
            self._changed()

    def _note_reading(self) -> None:
        self.chats.reading = self.app_focus and self._at_end()

    def _at_end(self) -> bool:
        scroll = self.query_one("#scroll", VerticalScroll)
        return scroll.scroll_y >= scroll.max_scroll_y or scroll.max_scroll_y == 0

    def _scrolled(self) -> None:
        if not self._alive():
            return
        scroll = self.query_one("#scroll", VerticalScroll)
        if scroll.scroll_y <= 0 and scroll.max_scroll_y > 0:
            self._spawn(self._read_back())
        elif self.chats.current.unread:
            self._changed()

    async def _read_back(self) -> None:
        """Load an older page, and keep what is looked at where it is."""
        scroll = self.query_one("#scroll", VerticalScroll)
        key, height = self.chats.selected, scroll.virtual_size.height
        if await self._loading.older(key) and key == self.chats.selected:
            self._draw()
            self.call_after_refresh(self._keep_place, height)

    def _keep_place(self, height: int) -> None:
        scroll = self.query_one("#scroll", VerticalScroll)
        grown = scroll.virtual_size.height - height
        scroll.scroll_to(y=scroll.scroll_y + grown, animate=False, immediate=True)

    # --- keys ---

    def action_step(self, by: int) -> None:
        """Look at the next conversation."""
        self.chats.step(by)
        self._show()

    def action_page(self, by: int) -> None:
        """Read back or forward."""
        scroll = self.query_one("#scroll", VerticalScroll)
        if by > 0:
            scroll.scroll_page_down(animate=False)
        elif scroll.scroll_y > 0:
            scroll.scroll_page_up(animate=False)
        else:
            self._spawn(self._read_back())

    @on(OptionList.OptionSelected, "#chats")
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.chats.select(self._listed_keys[event.option_index])
        self._show()

    def _show(self) -> None:
        """Show the end of the conversation that is looked at."""
        self._loading.newest(self.chats.selected)
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
            case Say(text) if self.chats.selected == HOME:
                self._kept = f"{self._kept} {text}".strip()
                self.chats.notice(KEPT)
            case Say(text):
                self._talk.say(text)
            case Dm(user):
                self.chats.select(Key("dm", user))
                self._loading.watch()
                self._write_kept()
            case Reply() | Rewrite() | Reacted() as change:
                self._talk.change(change)
            case Find(words):
                self._talk.find(words)
            case SendFile(path):
                self._talk.send_file(path)
            case SaveFile(folder):
                self._talk.save_file(folder)
            case GroupCommand() as command:
                self._talk.group(command)
            case Simple("help"):
                self.chats.notice(HELP)
            case Simple("delete"):
                self._talk.change(None)
            case Simple("retry"):
                self._talk.retry()
            case Simple():
                self.exit()
            case Wrong(text):
                self.chats.notice(text)
        self._show()

    def _write_kept(self) -> None:
        """What was written before it was said to whom: Enter sends it."""
        kept, self._kept = self._kept, ""
        if kept:
            entry = self.query_one("#input", Entry)
            entry.value = kept
            entry.cursor_position = len(kept)

    # --- the client ---

    async def _listen(self) -> None:
        try:
            await self.client.start()
            async for event in self.client:
                if self._alive():
                    self._note_reading()
                for need in self.chats.apply(event, time.monotonic()):
                    self._loading.need(need)
                self._changed()
        except CursorStoreError as error:
            self._fatal(f"{error}. Delete the file to begin from now.")
        except OSError as error:
            self._fatal(f"Where you stopped reading cannot be read: {error}")
        except Unauthorized as error:
            self._fatal(_not_accepted(self._signed_with) if self._signed_with else plain(error))
        except ClientError as error:
            self._fatal(plain(error))

    def _fatal(self, text: str) -> None:
        self.end_note = text
        self.chats.notice(text)
        self._changed()

    def _connection_changed(self, state: ConnectionState) -> None:
        self._state_since = time.monotonic()
        if self._showing:
            if state.phase == "online":
                self._loading.online()
            self._changed()


def _not_accepted(signed_with: str) -> str:
    return (
        f"The server did not accept the token that was made here with {signed_with}. Use the"
        " server's, or give its token with --token."
    )


def _find(address: str) -> None:
    """Raises `HandshakeRefused` for a host that does not exist, unless a proxy knows more."""
    parts = urlsplit(address)
    if getproxies():
        return
    try:
        socket.getaddrinfo(parts.hostname, None)
    except socket.gaierror as error:
        if error.errno != socket.EAI_AGAIN:
            raise HandshakeRefused(f"there is no host {parts.hostname!r}") from None
    except UnicodeError:
        raise HandshakeRefused(f"{parts.hostname!r} is no name of a host") from None


def run(url: str, token: str, user: str, *, signed_with: str = "") -> None:
    """Chat in this terminal as `user` until `/quit`; `signed_with` as for `ChatApp`."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SystemExit("The chat needs a terminal to run in.")
    try:
        _find(endpoint(url))
        store = FileCursorStore(default_path(endpoint(url), user))
        app = ChatApp(url, token, user, store=store, signed_with=signed_with)
    except (HandshakeRefused, ValueError) as error:
        raise SystemExit(f"--url {url}: {error}") from None
    app.run()
    if app.end_note:
        print(app.end_note, file=sys.stderr)
