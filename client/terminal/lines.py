"""One conversation as the terminal shows it: its lines, and how far each side has read. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from edge.frames import ChatEvent, File, GroupChatEvent, MessageDeleted, MessageEdited, Reaction

from ..messages import Message, MessagePage

LINES_MAX = 500
"""So many lines of a conversation are kept; with older pages read back, up to `OLDER_MAX`."""

OLDER_MAX = 2000
NEWEST = 2**63
LineState = Literal["received", "sending", "sent", "failed", "notice"]
Change = MessageEdited | MessageDeleted | Reaction


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
    id: str = ""
    thread: str | None = None
    reply_to: str | None = None
    replies: int = 0
    edited_at: int = 0
    deleted: bool = False
    reactions: dict[str, list[str]] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)

    @property
    def stored(self) -> bool:
        """Whether it is a message that the server has."""
        return self.state in ("received", "sent")

    def apply(self, change: Change) -> None:
        """Take an edit, a deletion or a reaction; the same again changes nothing."""
        match change:
            case MessageEdited() if not self.deleted:
                self.text, self.edited_at = change.content, change.edited_at
            case MessageDeleted():
                self.text, self.deleted, self.reactions, self.files = "", True, {}, []
            case Reaction() if not self.deleted:
                users = self.reactions.setdefault(change.emoji, [])
                if change.removed and change.from_ in users:
                    users.remove(change.from_)
                elif not change.removed and change.from_ not in users:
                    users.append(change.from_)
                if not users:
                    del self.reactions[change.emoji]


@dataclass(slots=True)
class Conversation:
    """Lines without a gap up to the newest, in the order of the log.

    `older`: whether the server has more before them; None while it was not asked. `changes` are
    those that came while a page is on its way, which may not know of them yet. `counted_to` is the
    newest message that `unread` knows of. `newest` orders the conversations. The other one of two
    has the messages up to `peer_got_to`, and has read those up to `peer_read_to`.
    """

    key: Key
    title: str
    chat_id: str = ""
    lines: list[Line] = field(default_factory=list)
    unread: int = 0
    counted_to: int = 0
    newest: int = NEWEST
    read_to: int = 0
    peer_got_to: int = 0
    peer_read_to: int = 0
    fresh: int = 0
    new_from: int | None = None
    older: bool | None = None
    loading: bool = False
    loads: int = 0
    changes: list[Change] = field(default_factory=list)
    keep: int = LINES_MAX
    channel: bool = False
    status: str = ""
    typing: dict[str, float] = field(default_factory=dict)

    # --- finding ---

    def last_seq(self) -> int:
        """Give the position of the last line that has one."""
        return next((line.seq for line in reversed(self.lines) if line.seq < NEWEST), 0)

    def own(self, client_id: str) -> Line | None:
        """Find our own message."""
        found = (line for line in reversed(self.lines) if line.client_id == client_id)
        return next(found, None) if client_id else None

    def by_id(self, message_id: str | None) -> Line | None:
        """Find a message that the server has."""
        found = (line for line in reversed(self.lines) if line.id == message_id)
        return next(found, None) if message_id else None

    def last(self, author: str | None = None) -> Line | None:
        """Give the last message that is not deleted, of `author` or of anybody."""
        for line in reversed(self.lines):
            if line.state != "notice" and not line.deleted and author in (None, line.author):
                return line
        return None

    def last_received(self) -> Line | None:
        """Give the last message of somebody else."""
        return next((line for line in reversed(self.lines) if line.state == "received"), None)

    def oldest(self) -> Line | None:
        """Give the first message that the server has; what is older is read before it."""
        return next((line for line in self.lines if line.stored), None)

    # --- putting ---

    def put(self, line: Line) -> None:
        """Insert a line where its `seq` belongs, after those of the same one."""
        at = len(self.lines)
        while at > 0 and self.lines[at - 1].seq > line.seq:
            at -= 1
        self.lines.insert(at, line)
        self.trim()

    def trim(self) -> None:
        """Forget the oldest lines if there are too many; not while others are on their way."""
        if len(self.lines) > self.keep and not self.loading:
            del self.lines[: -self.keep]
            self.older = None if self.older is None else True

    def place(self, client_id: str, message_id: str, seq: int, at_ms: int) -> bool:
        """Note that our own message is stored, and where; False if it is not known here."""
        line = self.own(client_id)
        if line is None:
            return False
        if not line.stored:
            self.lines.remove(line)
            line.state, line.reason = "sent", ""
            line.id, line.seq, line.at_ms = message_id, seq, at_ms
            self.put(line)
        return True

    def change(self, change: Change) -> None:
        """Change a message, if it is here."""
        if self.loading:
            self.changes.append(change)
        if (line := self.by_id(change.id)) is None:
            return
        before = line.deleted
        line.apply(change)
        if line.deleted and not before and (root := self.by_id(line.thread)) is not None:
            root.replies = max(root.replies - 1, 0)

    def peer_is_at(self, *, got: int = 0, read: int = 0) -> None:
        """Note how far the other one is; who has read has got it."""
        self.peer_read_to = max(self.peer_read_to, read)
        self.peer_got_to = max(self.peer_got_to, got, read)

    # --- pages of history ---

    def begin_load(self) -> int:
        """Note that a page is asked for; gives its number."""
        self.loading = True
        self.changes = []
        self.loads += 1
        return self.loads

    def end_load(self, page: MessagePage | None, me: str) -> None:
        """Take a page, or None if none came."""
        self.loading = False
        if page is not None:
            self._merge(page.messages, me)
            self.older = page.more
            self.keep = min(max(self.keep, len(self.lines)), OLDER_MAX)
            for change in self.changes:
                self.change(change)
        self.changes = []

    def _merge(self, messages: Iterable[Message], me: str) -> None:
        known = {line.id: line for line in self.lines if line.id}
        for message in messages:
            line = known.get(message.id)
            if line is None and message.from_ == me:
                self.place(message.client_id, message.id, message.seq, message.timestamp)
                line = self.by_id(message.id)
            if line is None:
                line = line_of(message, me)
                self.lines.append(line)
            line.text, line.deleted = message.content, message.deleted
            line.files = list(message.files)
            line.edited_at = message.edited_at or 0
            line.reactions = {emoji: list(users) for emoji, users in message.reactions.items()}
            line.replies = message.replies
        self.lines.sort(key=lambda line: line.seq)
        self._count_replies()
        self.find_marks()

    def _count_replies(self) -> None:
        """A page may be older than a reply that is here already."""
        here: dict[str, int] = {}
        for line in self.lines:
            if line.thread and line.stored and not line.deleted:
                here[line.thread] = here.get(line.thread, 0) + 1
        for line in self.lines:
            line.replies = max(line.replies, here.get(line.id, 0))

    def find_marks(self) -> None:
        """Find what was not known by its place before: what is new."""
        if self.fresh:
            received = [line for line in self.lines if line.state == "received"]
            if len(received) >= self.fresh:
                self.new_from, self.fresh = received[-self.fresh].seq, 0

    def forget(self, *, another_log: bool = False) -> None:
        """Forget what the server has, for there may be a gap in it; it is read again."""
        self.lines = [line for line in self.lines if not line.stored]
        self.older, self.loading, self.keep = None, False, LINES_MAX
        self.loads += 1
        self.fresh, self.new_from = 0, None
        if another_log:
            self.lines = [line for line in self.lines if line.state != "notice"]
            self.counted_to = self.read_to = self.newest = 0
            self.peer_got_to = self.peer_read_to = 0


def line_of(message: Message | ChatEvent | GroupChatEvent, me: str) -> Line:
    """Make the line of a message."""
    mine = message.from_ == me
    return Line(
        message.content,
        "sent" if mine else "received",
        seq=message.seq,
        author=message.from_,
        at_ms=message.timestamp,
        client_id=message.client_id if mine else "",
        id=message.id,
        thread=message.thread,
        reply_to=message.reply_to,
        files=list(message.files),
    )
