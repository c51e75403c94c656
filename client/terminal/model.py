"""What the terminal shows: conversations and their lines. No I/O, no widgets, no clock."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from edge.frames import (
    Ack,
    CaughtUp,
    ChatEvent,
    GroupChatEvent,
    GroupUpdated,
    MemberAdded,
    MemberRemoved,
    TypingEvent,
)

from ..inbox import ClientEvent

LINES_MAX = 500
"""Older lines of a conversation are forgotten."""

NEWEST = 2**63
LineState = Literal["received", "sending", "sent", "failed", "notice"]


@dataclass(frozen=True, slots=True)
class Key:
    """Names a conversation: with one user, in one group, or the page on which one starts."""

    kind: Literal["home", "dm", "group"]
    name: str = ""


HOME = Key("home")


@dataclass(slots=True)
class Line:
    """One message, or a notice of our own. `seq` is where it stands; what is unsent is last."""

    text: str
    state: LineState
    seq: int = NEWEST
    author: str = ""
    at_ms: int = 0
    client_id: str = ""
    reason: str = ""


@dataclass(slots=True)
class Conversation:
    """The newest lines of a conversation, in the order of the log."""

    key: Key
    title: str
    lines: list[Line] = field(default_factory=list)
    unread: int = 0
    typing: dict[str, float] = field(default_factory=dict)

    def put(self, line: Line) -> None:
        """Insert a line where its `seq` belongs, after those of the same one."""
        at = len(self.lines)
        while at > 0 and self.lines[at - 1].seq > line.seq:
            at -= 1
        self.lines.insert(at, line)
        del self.lines[:-LINES_MAX]

    def last_seq(self) -> int:
        """Give the position of the last line that has one."""
        return next((line.seq for line in reversed(self.lines) if line.seq < NEWEST), 0)

    def own(self, client_id: str) -> Line | None:
        """Find our own message."""
        found = (line for line in reversed(self.lines) if line.client_id == client_id)
        return next(found, None) if client_id else None


class Chats:
    """All conversations of one user, and which one is looked at."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.all: dict[Key, Conversation] = {HOME: Conversation(HOME, "Start here")}
        self.selected = HOME

    @property
    def current(self) -> Conversation:
        """The conversation that is looked at."""
        return self.all[self.selected]

    def open(self, key: Key) -> Conversation:
        """Give the conversation, a new one if need be."""
        if key not in self.all:
            self.all[key] = Conversation(key, key.name if key.kind == "dm" else f"#{key.name}")
        return self.all[key]

    def select(self, key: Key) -> None:
        """Look at a conversation."""
        self.selected = key
        self.open(key).unread = 0

    def step(self, by: int) -> None:
        """Look at the next conversation, or the one before."""
        keys = list(self.all)
        self.select(keys[(keys.index(self.selected) + by) % len(keys)])

    def notice(self, text: str, *, key: Key | None = None, seq: int | None = None) -> None:
        """Add a notice, to the conversation looked at if no other is given."""
        chat = self.current if key is None else self.open(key)
        chat.put(Line(text, "notice", seq=chat.last_seq() if seq is None else seq))

    def name_group(self, group_id: str, name: str) -> None:
        """Show a group under its name."""
        self.open(Key("group", group_id)).title = f"#{name}"

    # --- own messages ---

    def sending(self, key: Key, client_id: str, text: str, at_ms: int) -> None:
        """Add a message of our own that is on its way."""
        self.open(key).put(Line(text, "sending", author=self.me, at_ms=at_ms, client_id=client_id))

    def sent(self, key: Key, client_id: str, ack: Ack) -> None:
        """Note that a message is on the server's disk."""
        self._placed(self.open(key), client_id, ack.seq, ack.timestamp)

    def failed(self, key: Key, client_id: str, reason: str) -> None:
        """Note that a message was given up, unless it turned out to be stored."""
        line = self.open(key).own(client_id)
        if line is not None and line.state == "sending":
            line.state, line.reason = "failed", reason

    def failures(self, key: Key) -> list[Line]:
        """Give the messages that were given up; they count as on their way again."""
        given_up = [line for line in self.open(key).lines if line.state == "failed"]
        for line in given_up:
            line.state, line.reason = "sending", ""
        return given_up

    def _placed(self, chat: Conversation, client_id: str, seq: int, at_ms: int) -> bool:
        line = chat.own(client_id)
        if line is None:
            return False
        if line.state != "sent":
            chat.lines.remove(line)
            chat.put(replace(line, state="sent", seq=seq, at_ms=at_ms, reason=""))
        return True

    # --- events ---

    def apply(self, event: ClientEvent, now: float) -> Key | None:
        """Take an event; gives the conversation if it is a group that was not known before."""
        known = set(self.all)
        match event:
            case ChatEvent():
                other = event.to if event.from_ == self.me else event.from_
                self._message(Key("dm", other), event)
            case GroupChatEvent():
                self._message(Key("group", event.group_id), event)
            case TypingEvent():
                self._typing(event, now)
            case CaughtUp():
                self._caught_up(event)
            case MemberAdded() | MemberRemoved() | GroupUpdated():
                self._group_event(event)
        return next((key for key in self.all if key not in known and key.kind == "group"), None)

    def _message(self, key: Key, event: ChatEvent | GroupChatEvent) -> None:
        chat = self.open(key)
        chat.typing.pop(event.from_, None)
        mine = event.from_ == self.me
        if mine and self._placed(chat, event.client_id, event.seq, event.timestamp):
            return
        chat.put(
            Line(
                event.content,
                "sent" if mine else "received",
                seq=event.seq,
                author=event.from_,
                at_ms=event.timestamp,
                client_id=event.client_id if mine else "",
            )
        )
        if key != self.selected and not mine:
            chat.unread += 1

    def _group_event(self, event: MemberAdded | MemberRemoved | GroupUpdated) -> None:
        key = Key("group", event.group_id)
        by = "you" if event.by == self.me else event.by
        if isinstance(event, GroupUpdated):
            if event.name is not None:
                self.name_group(event.group_id, event.name)
                self.notice(f"{by} named the group {event.name}", key=key, seq=event.seq)
            for user, role in (event.roles or {}).items():
                self.notice(f"{by} made {user} {role}", key=key, seq=event.seq)
            return
        users = ", ".join("you" if user == self.me else user for user in event.users)
        if isinstance(event, MemberAdded):
            text = f"{users} joined" if event.users == [event.by] else f"{by} added {users}"
        else:
            text = f"{users} left" if event.users == [event.by] else f"{by} removed {users}"
        self.notice(text, key=key, seq=event.seq)

    def _caught_up(self, event: CaughtUp) -> None:
        if not event.recovered:
            self.notice("The server's log is another one: messages may be missing here.")
        for missing in event.missing:
            count = missing.to_seq - missing.from_seq + 1
            text = f"Up to {count} older messages are not shown here."
            self.notice(text, key=_key_of(missing.chat_id, self.me), seq=missing.to_seq)

    # --- typing ---

    def _typing(self, event: TypingEvent, now: float) -> None:
        if event.from_ == self.me:
            return
        chat = self.all.get(_key_of(event.chat_id, self.me))
        if chat is not None:
            chat.typing[event.from_] = now + event.expires_in / 1000

    def expire_typing(self, now: float) -> bool:
        """Forget who has stopped typing; whether there was anybody."""
        expired = [
            (chat, user)
            for chat in self.all.values()
            for user, until in chat.typing.items()
            if until <= now
        ]
        for chat, user in expired:
            del chat.typing[user]
        return bool(expired)


def _key_of(chat_id: str, me: str) -> Key:
    kind, *tokens = chat_id.split(".")
    names = [_decoded(token) for token in tokens]
    if kind == "dm":
        return Key("dm", next((name for name in names if name != me), me))
    return Key("group", names[0] if names else chat_id)


def _decoded(token: str) -> str:
    raw = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), token.encode())
    return raw.decode("utf-8", "replace")
