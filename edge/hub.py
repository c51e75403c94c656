"""Who is here: finds the local sessions of an event and hands them its frame, built once.

Nothing here is worth keeping: users and their groups come from the directory when they connect and
follow the events on their own subject. Keys are encoded ids and subjects, as they are on the bus.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from broker import events, subjects
from broker.errors import InvalidName
from broker.fanout import is_large

from .channels import Channel
from .elsewhere import Elsewhere
from .memberships import LARGE
from .places import Places
from .rates import TokenBucket
from .socket import text_frame

if TYPE_CHECKING:
    from .receipts import Pending
    from .session import Session

TYPING_CHATS = 256


class User:
    """A user with at least one session here, on any number of devices.

    `groups` maps the subjects of the user's groups to their kind, or is None until the directory
    has answered; what happens in between is kept in `changes` and applied on top of the answer.
    """

    __slots__ = (
        "changes",
        "groups",
        "messages",
        "receipts",
        "sessions",
        "token",
        "typed_at",
        "user_id",
    )

    def __init__(self, user_id: str, messages: TokenBucket):
        self.user_id = user_id
        self.token = subjects.encode(user_id)
        self.sessions: dict[Session, None] = {}
        self.groups: dict[str, str] | None = None
        self.changes: list[tuple[str, str | None]] = []
        self.messages = messages
        self.typed_at: dict[str, float] = {}
        self.receipts: dict[tuple[str, str], Pending] = {}

    def may_type(self, chat_id: str, now: float, interval_s: float) -> bool:
        """Whether a typing signal may go out now: one for each chat in `interval_s`."""
        if now - self.typed_at.get(chat_id, -interval_s) < interval_s:
            return False
        if len(self.typed_at) >= TYPING_CHATS:
            self.typed_at = {
                chat: at for chat, at in self.typed_at.items() if now - at < interval_s
            }
            if len(self.typed_at) >= TYPING_CHATS:
                return False
        self.typed_at[chat_id] = now
        return True


class Hub:
    """The sessions of this edge, by user and by group."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._groups: dict[str, dict[Session, None]] = {}
        self._large: dict[str, Channel] = {}
        self._shrunk: set[str] = set()
        self.elsewhere = Elsewhere()
        self.places = Places()
        self.sessions = 0
        self.delivered = 0
        self.events = 0

    # --- who is here ---

    def present(self, user_id: str) -> User | None:
        """The user, if there is a session of it here."""
        return self._users.get(subjects.encode(user_id))

    def attach(self, session: "Session", user_id: str, messages: TokenBucket) -> User:
        """Begin handing events to a session; `messages` is the limit of a user new here."""
        token = subjects.encode(user_id)
        user = self._users.get(token)
        if user is None:
            user = self._users[token] = User(user_id, messages)
        user.sessions[session] = None
        self.sessions += 1
        for group in user.groups or ():
            self._enter(group, session)
        return user

    def detach(self, session: "Session", user: User) -> None:
        """End it; idempotent."""
        if session not in user.sessions:
            return
        del user.sessions[session]
        self.sessions -= 1
        for group in user.groups or ():
            self._drop(group, session)
        if not user.sessions:
            self._users.pop(user.token, None)

    def all_sessions(self) -> list["Session"]:
        """Every session, for draining."""
        return [session for user in self._users.values() for session in user.sessions]

    def set_groups(self, user: User, groups: dict[str, str]) -> None:
        """The directory's answer, with the changes that were seen since it was asked."""
        if user.groups is not None:
            return
        user.groups = {}
        for group, kind in groups.items():
            self._set_group(user, group, kind)
        changes, user.changes = user.changes, []
        for group, changed in changes:
            self._set_group(user, group, changed)

    def _set_group(self, user: User, group: str, kind: str | None) -> None:
        if user.groups is None:
            user.changes.append((group, kind))
        elif kind is None:
            user.groups.pop(group, None)
            for session in user.sessions:
                self._drop(group, session)
                session.opened = session.opened - {group}
        else:
            user.groups[group] = kind
            if kind == LARGE and group not in self._shrunk:
                self._grow(group)
            for session in user.sessions:
                self._enter(group, session)

    def _enter(self, group: str, session: "Session") -> None:
        channel = self._large.get(group)
        if channel is None or session.vip or group in session.opened:
            self._groups.setdefault(group, {})[session] = None
        else:
            channel.quiet[session] = None

    def _drop(self, group: str, session: "Session") -> None:
        members = self._groups.get(group)
        if members is not None:
            members.pop(session, None)
            if not members:
                del self._groups[group]
        channel = self._large.get(group)
        if channel is not None:
            channel.quiet.pop(session, None)

    # --- large channels ---

    def follow(self, session: "Session", group: str, *, opened: bool) -> None:
        """The session opens or closes a chat that its user is in."""
        session.opened = session.opened | {group} if opened else session.opened - {group}
        if group in self._large:
            self._drop(group, session)
            self._enter(group, session)

    def quiet(self, session: "Session") -> dict[str, Channel]:
        """The large channels of a session's user that the session does not have open."""
        return {
            group: channel
            for group in session.user.groups or ()
            if (channel := self._large.get(group)) is not None and session in channel.quiet
        }

    def forget_sizes(self) -> None:
        """The log is another one; what it said about sizes is void. Nobody is here."""
        for channel in self._large.values():
            channel.stop()
        self._large.clear()
        self._shrunk.clear()

    def _grow(self, group: str) -> None:
        self._shrunk.discard(group)
        if group not in self._large:
            self._large[group] = Channel(group)
            for session in self._groups.pop(group, {}):
                self._enter(group, session)

    def _shrink(self, group: str) -> None:
        self._shrunk.add(group)
        channel = self._large.pop(group, None)
        if channel is not None:
            channel.stop()
            for session in channel.quiet:
                self._enter(group, session)

    def _on_update(self, seq: int, group: str, stored: bytes) -> None:
        large = events.decode_update(stored).large
        if large is False:
            self._shrink(group)
        self._hand_group(seq, group, stored)
        if large:
            self._grow(group)

    # --- what happens ---

    def on_event(self, seq: int, subject: str, stored: bytes) -> None:
        """Deliver an event of the log to the sessions it concerns."""
        self.events += 1
        if subject.startswith("group."):
            if stored.startswith(events.UPDATE):
                self._on_update(seq, subject, stored)
            else:
                self._hand_group(seq, subject, stored)
        elif subject.startswith("dm."):
            _, first, second = subject.split(".")
            user = self._users.get(first)
            peer = self._users.get(second) if first != second else None
            if user is not None or peer is not None:
                self.places.note(seq, subject, stored)
                frame = text_frame(events.with_seq(seq, stored))
                for each in (user, peer):
                    if each is not None:
                        self._hand_frame(each.sessions, seq, frame)
        else:
            user = self._users.get(subject[5:])
            if user is not None:
                self._on_own_event(user, seq, stored)
        if subject in self.elsewhere.waits:
            self.elsewhere.ordered(subject, seq, stored)

    def _on_own_event(self, user: User, seq: int, stored: bytes) -> None:
        event = events.decode_own(stored)
        if isinstance(event, events.MemberAdded):
            kind = LARGE if is_large(event.size, event.kind) else event.kind
            self._set_group(user, event.chat_id, kind)
        elif isinstance(event, events.MemberRemoved):
            self._set_group(user, event.chat_id, None)
        elif isinstance(event, events.WriteRefused):
            self.elsewhere.refused(user.user_id, event)
        self._hand(user.sessions, seq, stored)

    def _hand_group(self, seq: int, group: str, stored: bytes) -> None:
        members = self._groups.get(group)
        if members:
            self.places.note(seq, group, stored)
            self._hand(members, seq, stored)
        channel = self._large.get(group)
        if channel is not None:
            channel.news(seq)

    def _hand(self, sessions: Iterable["Session"], seq: int, stored: bytes) -> None:
        self._hand_frame(sessions, seq, text_frame(events.with_seq(seq, stored)))

    def _hand_frame(self, sessions: Iterable["Session"], seq: int, frame: bytes) -> None:
        for session in sessions:
            session.deliver(seq, frame)
            self.delivered += 1

    def on_ephemeral(self, chat_id: str, sender: str, frame: bytes) -> None:
        """Hand over what is not stored to everyone in the chat but the sender's sessions."""
        if chat_id.startswith("group."):
            for session in self._groups.get(chat_id, ()):
                if session.user.token != sender:
                    session.whisper(frame)
            return
        try:
            tokens = subjects.parse(chat_id).tokens
        except InvalidName:
            return
        for token in tokens:
            user = self._users.get(token)
            if user is not None and token != sender:
                for session in user.sessions:
                    session.whisper(frame)
