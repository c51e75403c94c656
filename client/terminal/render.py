"""Lines and titles as styled text. Nothing that others wrote reaches the terminal unfiltered."""

import re
from collections.abc import Iterable
from datetime import date, datetime

from rich.filesize import decimal
from rich.text import Text

from edge.frames import File

from ..messages import parts_of
from .lines import HOME, OLDER_MAX, Conversation, Line

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")
_DOTS = {"online": ("●", "green"), "away": ("◐", "yellow"), "dnd": ("●", "red")}
INDENT = " " * 6
QUOTE_MAX = 24
NAMED_MAX = 3
UNREAD_MAX = 999


def clean(text: str) -> str:
    """Take out what would steer the terminal or turn the order of its letters around."""
    return _CONTROLS.sub("�", text.replace("\r\n", "\n")).expandtabs(4)


def one_line(text: str) -> str:
    """Clean a name or title that has one line to stand in."""
    return clean(text).replace("\n", " ")


def conversation(chat: Conversation, me: str, *, width: int = 55) -> Text:
    """Render all lines of a conversation; `width` is that of its lines."""
    shown = Text()
    if chat.key != HOME:
        shown.append(_top(chat) + "\n", "dim")
    day: date | None = None
    marked = False
    for line in chat.lines:
        if line.at_ms:
            written = datetime.fromtimestamp(line.at_ms / 1000)
            if written.date() != day and (day is not None or written.date() != date.today()):
                shown.append(_rule(f"{written:%A %d %B}", width), "dim")
            day = written.date()
        if not marked and chat.new_from is not None and line.seq >= chat.new_from:
            shown.append(_rule("new", width), "bold yellow")
            marked = True
        _line(shown, line, chat, me)
    shown.rstrip()
    return shown


def _top(chat: Conversation) -> str:
    if chat.loading:
        return "loading…"
    if chat.older is False:
        return "This is where it begins."
    if chat.older and len(chat.lines) >= OLDER_MAX:
        return "Older messages do not fit here."
    return "↑ PgUp for older messages" if chat.older else ""


def _rule(text: str, width: int) -> str:
    left = max(width - len(text) - 4, 2)
    return f"── {text} {'─' * left}"[:width] + "\n"


def _line(shown: Text, line: Line, chat: Conversation, me: str) -> None:
    if line.state == "notice":
        for part in parts_of(line.text):
            shown.append(clean(part.text), "bold" if part.found else "italic dim")
        shown.append("\n")
        return
    name = one_line(line.author)
    written = datetime.fromtimestamp(line.at_ms / 1000)
    shown.append(f"{written:%H:%M} ", "dim")
    if line.thread or line.reply_to:
        shown.append(f"↳ {_quote(line, chat)}\n{INDENT}", "dim")
    shown.append(name, "bold" if line.author == me else f"bold {_colour(name)}")
    if line.deleted:
        shown.append(" message deleted", "italic dim")
    else:
        if line.text:
            shown.append(" " + clean(line.text))
        for file in line.files:
            shown.append(f" 📎 {_file(file)}", "cyan")
        if line.edited_at:
            shown.append(" (edited)", "dim")
        _state(shown, line, chat)
    shown.append("\n")
    _under(shown, line)


def _quote(line: Line, chat: Conversation) -> str:
    """Say what a message answers; of a thread whose beginning is not here, only that it is one."""
    answered = chat.by_id(line.reply_to) or chat.by_id(line.thread)
    if answered is None:
        return "in a thread"
    text = "message deleted" if answered.deleted else one_line(answered.text)
    if not text:
        text = ", ".join(one_line(file.name) for file in answered.files)
    if len(text) > QUOTE_MAX:
        text = text[: QUOTE_MAX - 1].rstrip() + "…"
    return f"{one_line(answered.author)}: {text}"


def _file(file: File) -> str:
    return f"{one_line(file.name)} ({decimal(file.size)})"


def _state(shown: Text, line: Line, chat: Conversation) -> None:
    match line.state:
        case "sending":
            shown.append("  sending…", "yellow")
        case "failed":
            shown.append(f"  ✗ not sent: {clean(line.reason)} (/retry)", "red")
        case "sent" if chat.key.kind == "dm" and line.seq <= chat.peer_read_to:
            shown.append("  ✓✓", "green")
        case "sent" if chat.key.kind == "dm" and line.seq <= chat.peer_got_to:
            shown.append("  ✓✓", "dim")
        case "sent":
            shown.append("  ✓", "dim green")


def _under(shown: Text, line: Line) -> None:
    parts = [f"{one_line(emoji)} {_users(users)}" for emoji, users in line.reactions.items()]
    if line.replies:
        parts.append(f"{line.replies} {'reply' if line.replies == 1 else 'replies'}")
    if parts:
        shown.append(INDENT + "   ".join(parts) + "\n", "dim")


def _users(users: list[str]) -> str:
    if len(users) > NAMED_MAX:
        return str(len(users))
    return ", ".join(one_line(user) for user in users)


def _colour(name: str) -> str:
    return _COLOURS[sum(name.encode("utf-8", "replace")) % len(_COLOURS)]


def title(chat: Conversation, *, width: int = 19) -> Text:
    """Render a conversation for the sidebar: presence, name, and at the right what is unread."""
    count = str(chat.unread) if chat.unread <= UNREAD_MAX else f"{UNREAD_MAX}+"
    count = count if chat.unread else ""
    dot, colour = _DOTS.get(chat.status, (" ", ""))
    name = Text(one_line(chat.title), "bold" if chat.unread else "")
    name.truncate(width - 2 - (len(count) + 1 if count else 0), overflow="ellipsis", pad=True)
    text = Text.assemble((f"{dot} ", colour), name, no_wrap=True, overflow="ellipsis")
    return text.append(f" {count}", "bold yellow") if count else text


def typing(users: Iterable[str]) -> str:
    """Say who is typing; empty if nobody is."""
    names = [one_line(user) for user in users]
    if not names:
        return ""
    if len(names) > 3:
        return f"{len(names)} people are typing…"
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} typing…"
