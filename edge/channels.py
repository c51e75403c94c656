"""Large channels: who has one open gets its events; the other members are told that there is news.

Whether a channel is large comes with the directory's answer, with the event by which a user joins,
and with `group_updated` when it changes; see `broker.fanout` and `docs/architecture.md`.
"""

import asyncio
from typing import TYPE_CHECKING

from . import frames
from .socket import text_frame
from .writes import own_chat

if TYPE_CHECKING:
    from .session import Session

ACTIVITY_S = 2.0


def follow(session: "Session", request: frames.Open | frames.Close) -> None:
    """Answer `open` or `close`. Raises `Failure` for a chat that the user is not in."""
    own_chat(session, request.chat_id)
    session.edge.hub.follow(session, request.chat_id, opened=isinstance(request, frames.Open))
    session.push(frames.Result(id=request.id))


def activity(chat_id: str, seq: int) -> bytes:
    """The frame that tells of news."""
    return text_frame(frames.encode(frames.Activity(chat_id=chat_id, seq=seq)))


class Channel:
    """A large channel: `quiet` are the members' sessions here that do not have it open."""

    __slots__ = ("_due", "_told_at", "chat_id", "last_seq", "quiet")

    def __init__(self, chat_id: str):
        self.chat_id = chat_id
        self.quiet: dict[Session, None] = {}
        self.last_seq = 0
        self._told_at = -ACTIVITY_S
        self._due: asyncio.TimerHandle | None = None

    def news(self, seq: int) -> None:
        """There is a new event: tell now, or when the last telling is two seconds ago."""
        self.last_seq = seq
        if not self.quiet or self._due is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._told_at + ACTIVITY_S - loop.time()
        if wait_s <= 0:
            self._tell()
        else:
            self._due = loop.call_later(wait_s, self._tell)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _tell(self) -> None:
        self._due = None
        self._told_at = asyncio.get_running_loop().time()
        frame = activity(self.chat_id, self.last_seq)
        for session in self.quiet:
            session.whisper(frame)
