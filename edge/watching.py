"""Who watches whom here: the watched users' keys, mirrored, and a frame when a view changes.

Only what somebody asked for is kept. A change is told after `WINDOW_S`, once, and only if the view
is another one than was told last: a device that comes back at once causes no frame.
"""

from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING

from broker import presence, subjects
from broker.mirror import Mirror, Value
from broker.presence import PresenceReader, View

from . import frames
from .socket import text_frame

if TYPE_CHECKING:
    from .session import Session

WINDOW_S = 0.03


class _Watched:
    """A user that somebody watches; `holds` are those who are about to."""

    __slots__ = ("holds", "loaded", "mirror", "own", "public", "user_id", "watchers")

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.mirror = Mirror()
        self.watchers: dict[Session, None] = {}
        self.holds = 0
        self.loaded = False
        self.public: View | None = None
        self.own: View | None = None


class Board:
    """The watched users, by token. `later` runs something after a time."""

    def __init__(
        self,
        reader: PresenceReader,
        living: Container[str],
        later: Callable[[float, Callable[[], None]], object],
    ):
        self._reader = reader
        self._living = living
        self._later = later
        self._watched: dict[str, _Watched] = {}
        self._watching: dict[Session, dict[str, None]] = {}
        self._changed: dict[str, _Watched] = {}
        self._due = False
        self.told = 0

    @property
    def users(self) -> int:
        """How many users are watched."""
        return len(self._watched)

    def user_ids(self) -> list[str]:
        """The watched users."""
        return [each.user_id for each in self._watched.values()]

    def __contains__(self, token: object) -> bool:
        return token in self._watched

    def watched_by(self, session: "Session") -> Iterable[str]:
        """The users (tokens) that a session watches."""
        return self._watching.get(session, {}).keys()

    # --- watching ---

    async def watch(self, session: "Session", users: list[str]) -> dict[str, View]:
        """Begin; the views as they are now, after which changes are told.

        Raises `Unavailable` when they cannot be read. No frame is sent for what is returned, if
        the caller does not wait before it passes it on.
        """
        wanted = {subjects.encode(user): user for user in users}
        held = [self._watched.setdefault(token, _Watched(user)) for token, user in wanted.items()]
        for each in held:
            each.holds += 1
        try:
            await self._load([token for token in wanted if not self._watched[token].loaded])
            if session.lost:
                return {}
            for token in wanted:
                self._tell(self._watched[token])
                self._watched[token].watchers[session] = None
            self._watching.setdefault(session, {}).update(dict.fromkeys(wanted))
            return {
                each.user_id: view
                for token, each in zip(wanted, held, strict=True)
                if (view := each.own if token == session.user.token else each.public) is not None
            }
        finally:
            for token, each in zip(wanted, held, strict=True):
                each.holds -= 1
                self._let_go(token)

    def unwatch(self, session: "Session", users: Iterable[str]) -> None:
        """End it for these users (tokens); others are passed over."""
        watching = self._watching.get(session, {})
        for token in list(users):
            if token in watching:
                del watching[token]
                self._watched[token].watchers.pop(session, None)
                self._let_go(token)
        if not watching:
            self._watching.pop(session, None)

    def forget(self, session: "Session") -> None:
        """A session ended."""
        self.unwatch(session, self.watched_by(session))

    def _let_go(self, token: str) -> None:
        watched = self._watched.get(token)
        if watched is not None and not watched.watchers and not watched.holds:
            del self._watched[token]
            self._changed.pop(token, None)

    # --- what happens ---

    def apply(self, token: str, key: str, value: Value) -> None:
        """Take a change of a user's key."""
        watched = self._watched.get(token)
        if watched is not None and watched.mirror.apply(key, value) and watched.loaded:
            self._mark(token, watched)

    def edges_changed(self) -> None:
        """An edge came or went: everybody's connections may count, or not."""
        for token, watched in self._watched.items():
            self._mark(token, watched)

    async def repair(self) -> None:
        """Read all watched users again. Raises `Unavailable`."""
        await self._load(list(self._watched))

    async def _load(self, tokens: list[str]) -> None:
        floors = {token: self._watched[token].mirror.seen for token in tokens}
        async for part in self._reader.read(tokens):
            for token in part.users:
                watched = self._watched.get(token)
                if watched is not None:
                    watched.mirror.replace(part.keys[token], part.up_to or floors[token])
                    watched.loaded = True
                    self._mark(token, watched)

    # --- telling ---

    def _mark(self, token: str, watched: _Watched) -> None:
        self._changed[token] = watched
        if not self._due:
            self._due = True
            self._later(WINDOW_S, self._flush)

    def _flush(self) -> None:
        self._due = False
        changed, self._changed = self._changed, {}
        for watched in changed.values():
            self._tell(watched)

    def _tell(self, watched: _Watched) -> None:
        """Look again, and tell who watches if it is not what they were told."""
        values = ((key, value.data) for key, value in watched.mirror.values.items())
        known = presence.state(values, self._living)
        public, own = presence.public_view(known), presence.own_view(known)
        if public == watched.public and own == watched.own:
            return
        frame = _frame(watched.user_id, public) if public != watched.public else None
        own_frame = _frame(watched.user_id, own) if own != watched.own else None
        watched.public, watched.own = public, own
        for session in watched.watchers:
            wanted = own_frame if session.user.user_id == watched.user_id else frame
            if wanted is not None:
                session.tell(wanted)
                self.told += 1


def _frame(user_id: str, view: View) -> bytes:
    return text_frame(frames.encode(frames.PresenceEvent(user_id=user_id, **view._asdict())))
