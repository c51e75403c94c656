"""What the terminal shows: conversations, their order, what is unread. No I/O, no clock."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from edge.frames import (
    Ack,
    Activity,
    CaughtUp,
    ChatEvent,
    DeliveryReceiptEvent,
    File,
    GroupChatEvent,
    GroupUpdated,
    MemberAdded,
    MemberRemoved,
    MessageDeleted,
    MessageEdited,
    PresenceEvent,
    Reaction,
    ReadReceiptEvent,
    TypingEvent,
)

from ..chat_ids import dm_chat_id, group_chat_id, group_of, other_of
from ..inbox import ClientEvent
from ..messages import ChatSummary, MessagePage, Receipt
from .lines import HOME, LINES_MAX, NEWEST, Change, Conversation, Key, Line, line_of


class Need(NamedTuple):
    """What the server is to be asked: a group's name, all chats, how much is unread, messages, or
    whether the other one is there."""

    what: Literal["name", "chats", "unread", "messages", "presence"]
    key: Key = HOME


class Seen(NamedTuple):
    """The user has seen a chat up to this message, and the server does not know it."""

    key: Key
    chat_id: str
    message_id: str


class Chats:
    """All conversations of one user, and which one is looked at.

    `reading`: whether the end of that one is before the user's eyes, so that what comes there is
    not unread.
    """

    def __init__(self, me: str) -> None:
        self.me = me
        self.all: dict[Key, Conversation] = {HOME: Conversation(HOME, "Start here")}
        self.selected = HOME
        self.reading = True

    @property
    def current(self) -> Conversation:
        """The conversation that is looked at."""
        return self.all[self.selected]

    def ordered(self) -> list[Conversation]:
        """Give the conversations as they are listed: that of the newest message first."""
        home, *others = self.all.values()
        return [home, *sorted(others, key=lambda chat: -chat.newest)]

    def open(self, key: Key) -> Conversation:
        """Give the conversation, a new one if need be."""
        if key not in self.all:
            dm = key.kind == "dm"
            self.all[key] = Conversation(
                key,
                key.name if dm else f"#{key.name}",
                dm_chat_id(self.me, key.name) if dm else group_chat_id(key.name),
            )
        return self.all[key]

    def find(self, chat_id: str) -> Conversation | None:
        """Give the conversation of a chat id, if there is one."""
        key = _key_of(chat_id, self.me)
        return None if key is None else self.all.get(key)

    def select(self, key: Key) -> None:
        """Look at a conversation."""
        if key != self.selected:
            left = self.current
            left.fresh, left.new_from, left.keep = 0, None, LINES_MAX
            left.trim()
        self.selected = key
        chat = self.open(key)
        if chat.unread:
            chat.fresh, chat.unread = chat.unread, 0
            chat.find_marks()

    def step(self, by: int) -> None:
        """Look at the next conversation, or the one before."""
        keys = [chat.key for chat in self.ordered()]
        self.select(keys[(keys.index(self.selected) + by) % len(keys)])

    def look(self) -> Seen | None:
        """The end of the conversation is before the user's eyes; gives what the server is told."""
        chat = self.current
        last = chat.last_received()
        if last is None or not self.reading:
            return None
        chat.unread = 0
        if last.seq <= chat.read_to:
            return None
        chat.read_to = last.seq
        return Seen(chat.key, chat.chat_id, last.id)

    def unseen(self, seen: Seen) -> None:
        """The server could not be told."""
        self.open(seen.key).read_to = 0

    def notice(self, text: str, *, key: Key | None = None, seq: int | None = None) -> None:
        """Add a notice, to the conversation looked at if no other is given."""
        chat = self.current if key is None else self.open(key)
        chat.put(Line(text, "notice", seq=chat.last_seq() if seq is None else seq))

    def name_group(self, group_id: str, name: str, kind: str | None = None) -> None:
        """Show a group under its name."""
        chat = self.open(Key("group", group_id))
        chat.title = f"#{name}"
        chat.channel = chat.channel or kind == "channel"

    # --- own messages ---

    def sending(
        self,
        key: Key,
        client_id: str,
        text: str,
        at_ms: int,
        *,
        answers: Line | None = None,
        files: Iterable[File] = (),
    ) -> Line:
        """Add a message of our own that is on its way."""
        line = Line(text, "sending", author=self.me, at_ms=at_ms, client_id=client_id)
        line.files = list(files)
        if answers is not None:
            line.reply_to, line.thread = answers.id, answers.thread or answers.id
        self.open(key).put(line)
        return line

    def sent(self, key: Key, client_id: str, ack: Ack) -> None:
        """Note that a message is on the server's disk."""
        chat = self.open(key)
        line = chat.own(client_id)
        if line is not None and not line.stored:
            self._answered(chat, line.thread)
        chat.place(client_id, ack.message_id, ack.seq, ack.timestamp)
        self._moved(chat, ack.seq)

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

    # --- what the server answered ---

    def listed(self, chats: Iterable[ChatSummary]) -> None:
        """Take a part of the list of chats; what came after it was made still counts."""
        for each in chats:
            key = _key_of(each.chat_id, self.me)
            if key is None:
                continue
            chat = self.open(key)
            if each.name is not None:
                self.name_group(key.name, each.name, each.kind)
            last = each.last_message.seq if each.last_message is not None else 0
            after = [line.seq for line in chat.lines if line.state == "received"]
            newer = sum(seq > max(last, chat.read_to) for seq in after)
            if each.unread == 0:
                chat.read_to = max(chat.read_to, last)
            chat.counted_to = max([chat.counted_to, last, *after])
            chat.newest = max(last, chat.last_seq())
            self.counted(key, newer + (each.unread if chat.read_to < last else 0))
            self.receipts(key, each.receipts)

    def receipts(self, key: Key, found: Mapping[str, Receipt]) -> None:
        """Take how far the other one of two is."""
        if key.kind == "dm" and (other := found.get(key.name)) is not None:
            self.open(key).peer_is_at(got=other.delivered_seq, read=other.read_seq)

    def greet(self) -> None:
        """Say on the first page what there is."""
        unread = [chat.unread for chat in self.all.values() if chat.unread]
        if len(self.all) > 1:
            many = f"{sum(unread)} unread in {len(unread)} of them" if unread else "all read"
            text = f"Conversations: {len(self.all) - 1}, {many}. ↑ ↓ choose one."
            self.notice(text, key=HOME)

    def loaded(self, key: Key, page: MessagePage | None) -> None:
        """Take a page of history, or None if there was no answer."""
        chat = self.open(key)
        chat.end_load(page, self.me)
        if page is not None and page.messages:
            self._moved(chat, page.messages[0].seq)

    def counted(self, key: Key, unread: int) -> None:
        """Take what is unread in one chat."""
        chat = self.open(key)
        chat.unread = 0 if key == self.selected and self.reading else unread

    # --- events ---

    def apply(self, event: ClientEvent, now: float) -> list[Need]:
        """Take an event; gives what is to be asked because of it."""
        known = set(self.all)
        needs: list[Need] = []
        match event:
            case ChatEvent():
                other = event.to if event.from_ == self.me else event.from_
                self._message(Key("dm", other), event)
                if not self.all[Key("dm", other)].status:
                    needs.append(Need("presence", Key("dm", other)))
            case GroupChatEvent():
                self._message(Key("group", event.group_id), event)
            case MessageEdited() | MessageDeleted() | Reaction():
                self._change(event)
            case ReadReceiptEvent():
                needs += self._read(event)
            case DeliveryReceiptEvent():
                if (chat := self.find(event.chat_id)) is not None and event.user_id != self.me:
                    chat.peer_is_at(got=event.delivered_seq)
            case TypingEvent():
                self._typing(event, now)
            case PresenceEvent():
                self.presence(event.user_id, event.status)
            case Activity():
                needs += self._activity(event)
            case CaughtUp():
                needs += self._caught_up(event)
            case MemberAdded() | MemberRemoved() | GroupUpdated():
                self._group_event(event)
        return needs + [
            Need("name", key) for key in self.all if key not in known and key.kind == "group"
        ]

    def _moved(self, chat: Conversation, seq: int) -> None:
        chat.newest = seq if chat.newest == NEWEST else max(chat.newest, seq)

    def _message(self, key: Key, event: ChatEvent | GroupChatEvent) -> None:
        chat = self.open(key)
        chat.typing.pop(event.from_, None)
        self._moved(chat, event.seq)
        mine = event.from_ == self.me
        line = chat.own(event.client_id) if mine else chat.by_id(event.id)
        if line is None or not line.stored:
            self._answered(chat, event.thread)
        if mine and chat.place(event.client_id, event.id, event.seq, event.timestamp):
            return
        if line is not None:
            return
        chat.put(line_of(event, self.me))
        if not mine and event.seq > max(chat.counted_to, chat.read_to):
            chat.counted_to = event.seq
            if key == self.selected:
                chat.fresh += bool(chat.fresh)
            if key != self.selected or not self.reading:
                chat.unread += 1

    def _answered(self, chat: Conversation, thread: str | None) -> None:
        if (root := chat.by_id(thread)) is not None:
            root.replies += 1

    def _change(self, event: Change) -> None:
        if (chat := self.find(event.chat_id)) is not None:
            chat.change(event)

    def _read(self, event: ReadReceiptEvent) -> list[Need]:
        chat = self.find(event.chat_id)
        if chat is None:
            return []
        if event.reader_id != self.me:
            chat.peer_is_at(read=event.read_seq)
            return []
        line = chat.by_id(event.last_read_msg_id)
        if line is None:
            return [Need("unread", chat.key)] if chat.unread else []
        if line.seq > chat.read_to:
            chat.read_to = line.seq
            after = [each.seq for each in chat.lines if each.state == "received"]
            chat.counted_to = max([chat.counted_to if not chat.unread else 0, *after])
            self.counted(chat.key, sum(seq > line.seq for seq in after))
        return []

    def presence(self, user: str, status: str) -> None:
        """Note what another user is."""
        if (chat := self.all.get(Key("dm", user))) is not None:
            chat.status = status

    def _activity(self, event: Activity) -> list[Need]:
        """A channel that is not followed has news, so what is here of it has a gap."""
        chat = self.find(event.chat_id)
        if chat is None:
            return [Need("chats")]
        if event.seq:
            self._moved(chat, event.seq)
        chat.channel = True
        chat.forget()
        return [Need("messages" if chat.key == self.selected else "unread", chat.key)]

    def _group_event(self, event: MemberAdded | MemberRemoved | GroupUpdated) -> None:
        key = Key("group", event.group_id)
        self._moved(self.open(key), event.seq)
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

    def _caught_up(self, event: CaughtUp) -> list[Need]:
        if not event.recovered:
            for chat in self.all.values():
                chat.forget(another_log=chat.key != HOME)
        for missing in event.missing:
            if (found := self.find(missing.chat_id)) is not None:
                found.forget()
        return [] if event.recovered and not event.missing else [Need("chats")]

    # --- typing ---

    def _typing(self, event: TypingEvent, now: float) -> None:
        chat = self.find(event.chat_id)
        if chat is not None and event.from_ != self.me:
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


def _key_of(chat_id: str, me: str) -> Key | None:
    if (other := other_of(chat_id, me)) is not None:
        return Key("dm", other)
    group_id = group_of(chat_id)
    return None if group_id is None else Key("group", group_id)
