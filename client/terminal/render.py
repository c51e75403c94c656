"""Lines and titles as styled text. Nothing that others wrote reaches the terminal unfiltered."""

import re
from collections.abc import Iterable
from datetime import datetime

from rich.text import Text

from .model import Conversation, Line

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")


def clean(text: str) -> str:
    """Take out what would steer the terminal or turn the order of its letters around."""
    return _CONTROLS.sub("�", text.replace("\r\n", "\n")).expandtabs(4)


def one_line(text: str) -> str:
    """Clean a name or title that has one line to stand in."""
    return clean(text).replace("\n", " ")


def conversation(chat: Conversation, me: str) -> Text:
    """Render all lines of a conversation."""
    shown = Text()
    day = None
    for line in chat.lines:
        if line.at_ms:
            written = datetime.fromtimestamp(line.at_ms / 1000)
            if day is not None and written.date() != day:
                shown.append(f"── {written:%A %d %B} ──\n", "dim")
            day = written.date()
        _line(shown, line, me)
    shown.rstrip()
    return shown


def _line(shown: Text, line: Line, me: str) -> None:
    if line.state == "notice":
        shown.append(clean(line.text) + "\n", "italic dim")
        return
    name = one_line(line.author)
    written = datetime.fromtimestamp(line.at_ms / 1000)
    shown.append(f"{written:%H:%M} ", "dim")
    shown.append(name, "bold" if line.author == me else f"bold {_colour(name)}")
    shown.append(" " + clean(line.text))
    match line.state:
        case "sending":
            shown.append("  sending…", "yellow")
        case "sent":
            shown.append(f"  ✓ {line.seq}", "dim green")
        case "failed":
            shown.append(f"  ✗ not sent: {clean(line.reason)} (/retry)", "red")
    shown.append("\n")


def _colour(name: str) -> str:
    return _COLOURS[sum(name.encode("utf-8", "replace")) % len(_COLOURS)]


def title(chat: Conversation) -> Text:
    """Render a conversation for the sidebar."""
    text = Text(one_line(chat.title), no_wrap=True, overflow="ellipsis")
    if chat.unread:
        text = Text.assemble((f"{chat.unread} ", "bold yellow"), text, no_wrap=True)
    return text


def typing(users: Iterable[str]) -> str:
    """Say who is typing; empty if nobody is."""
    names = [one_line(user) for user in users]
    if not names:
        return ""
    if len(names) > 3:
        return f"{len(names)} people are typing…"
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} typing…"
