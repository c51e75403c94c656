"""What a person types: a message, or a command that begins with a slash."""

import shlex
from dataclasses import dataclass

HELP = """\
/dm NAME               write to somebody
/reply TEXT            answer the last message
/react EMOJI           put it on the last message (+1,
                       heart, laugh … have names);
                       the same again takes it off
/file PATH, /save      send a file; keep the last one
/edit TEXT, /delete    change, delete your last message
/group create ID NAME  make a group, then members;
                       names with spaces in "quotes"
/group add NAME        take somebody into this group
/group remove NAME     take somebody out of it
/group members, leave  see who is in it; leave it
/group join ID         join a channel
/search WORDS          find messages
/retry, /quit          send again what failed; end
↑ ↓ other conversation, PgUp PgDn read back
//text sends a text that begins with a slash
✓ sent  grey ✓✓ delivered  ✓✓ read  ● online  ◐ away"""

EMOJI = {
    "+1": "👍",
    "-1": "👎",
    "heart": "❤",
    "laugh": "😂",
    "smile": "🙂",
    "sad": "😢",
    "tada": "🎉",
    "eyes": "👀",
    "ok": "👌",
    "fire": "🔥",
}
"""Names for those who cannot type an emoji."""


@dataclass(frozen=True)
class Say:
    """Send a message."""

    text: str


@dataclass(frozen=True)
class Dm:
    """Open a conversation with a user."""

    user: str


@dataclass(frozen=True)
class Reply:
    """Answer the last message."""

    text: str


@dataclass(frozen=True)
class Rewrite:
    """Change the last own message."""

    text: str


@dataclass(frozen=True)
class Reacted:
    """Put an emoji on the last message, or take it back."""

    emoji: str


@dataclass(frozen=True)
class Find:
    """Look for messages."""

    words: str


@dataclass(frozen=True)
class SendFile:
    """Send a file."""

    path: str


@dataclass(frozen=True)
class SaveFile:
    """Keep the last file of the conversation in a folder."""

    folder: str


@dataclass(frozen=True)
class GroupCommand:
    """Do something with groups. For `create` and `join` the first word is the group's id."""

    verb: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Simple:
    """`help`, `retry`, `delete` or `quit`."""

    name: str


@dataclass(frozen=True)
class Wrong:
    """Not understood; `text` says why."""

    text: str


Command = (Say | Dm | Reply | Rewrite | Reacted | Find) | (
    SendFile | SaveFile | GroupCommand | Simple | Wrong
)

_GROUP_USAGE = {
    "create": (2, 500, "/group create ID NAME [MEMBER…]"),
    "add": (1, 500, "/group add NAME…"),
    "remove": (1, 500, "/group remove NAME…"),
    "join": (1, 1, "/group join ID"),
    "leave": (0, 0, "/group leave"),
    "members": (0, 0, "/group members"),
}


def parse(line: str) -> Command | None:
    """Read one line; None if there is nothing in it."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Say(text[1:])
    if not text.startswith("/"):
        return Say(text)
    name, _, rest = text[1:].partition(" ")
    rest = rest.strip()
    match name.lower():
        case "help" | "retry" | "delete" | "quit" as simple:
            return Simple(simple)
        case "exit":
            return Simple("quit")
        case "dm":
            rest = _unquoted(rest)
            return Dm(rest) if rest else Wrong("Say with whom: /dm NAME")
        case "reply":
            return Reply(rest) if rest else Wrong("Say what to answer: /reply TEXT")
        case "edit":
            return Rewrite(rest) if rest else Wrong("Say what it shall be: /edit TEXT")
        case "search":
            return Find(rest) if rest else Wrong("Say what to look for: /search WORDS")
        case "file":
            return SendFile(rest) if rest else Wrong("Say which one: /file PATH")
        case "save":
            return SaveFile(rest or ".")
        case "react":
            return _react(rest)
        case "group":
            return _group(rest)
    return Wrong(f"There is no command /{name}. Type /help to see those there are.")


def _unquoted(name: str) -> str:
    """Without the quotes around all of it: groups need them for names with spaces."""
    if len(name) >= 2 and name[0] == name[-1] == '"':
        return name[1:-1].strip()
    return name


def _react(word: str) -> Reacted | Wrong:
    emoji = EMOJI.get(word.strip(":").lower(), word)
    if not emoji or emoji.isascii() or " " in emoji:
        return Wrong(f"Say with which emoji: /react 👍, or one of {', '.join(EMOJI)}")
    return Reacted(emoji)


def _group(rest: str) -> GroupCommand | Wrong:
    try:
        words = shlex.split(rest)
    except ValueError:
        return Wrong("There is an opening quote without its closing one.")
    if not words or words[0] not in _GROUP_USAGE:
        return Wrong("Say what to do: /group create, add, remove, join, leave or members")
    verb, *others = words
    least, most, usage = _GROUP_USAGE[verb]
    if not least <= len(others) <= most:
        return Wrong(f"Write it like this: {usage}")
    return GroupCommand(verb, tuple(others))
