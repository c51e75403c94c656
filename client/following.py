"""What a client follows: users' presence, and large channels. The server forgets it with each
connection, so it is asked for again on the next one, and what changed in between comes as events.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from msgspec import Struct

from edge.frames import (
    Activity,
    Close,
    Open,
    PresenceEvent,
    PresenceSet,
    PresenceSubscribe,
    PresenceUnsubscribe,
)

from .errors import ClientClosed, ClientError, ConnectionStopped, RequestFailed
from .requests import Requests, read_answer

log = logging.getLogger("hikyaku.client")

USERS_A_FRAME = 500
AGAIN_AFTER_S = 5.0
LANE = "following"

Status = Literal["online", "away", "dnd", "invisible"]


class Presence(Struct, kw_only=True):
    """What a user is: online, away, dnd or offline; `last_seen` (Unix ms) of one who is offline."""

    status: str
    text: str = ""
    last_seen: int | None = None


@dataclass(slots=True)
class Followed:
    """What the client follows; `welcomed` is set by each new connection."""

    users: dict[str, None] = field(default_factory=dict)
    channels: dict[str, None] = field(default_factory=dict)
    welcomed: asyncio.Event = field(default_factory=asyncio.Event)


class FollowRequests(Requests):
    """The methods of `Client` about presence and large channels."""

    _followed: Followed

    @abstractmethod
    async def _give(self, event: PresenceEvent | Activity) -> None:
        """Give the application an event that is not of the log."""

    async def watch(self, users: Iterable[str]) -> dict[str, Presence]:
        """Watch users' presence: what they are now; changes come as `PresenceEvent`.

        Users who share no chat with this one are left out. Goes on over reconnects.
        """
        found: dict[str, Presence] = {}
        for part in _parts(users):
            found |= await self._watch(part)
            self._followed.users |= dict.fromkeys(part)
        return found

    async def unwatch(self, users: Iterable[str]) -> None:
        """Watch these users no longer."""
        for part in _parts(users):
            for user in part:
                self._followed.users.pop(user, None)
            await self._ask(PresenceUnsubscribe(users=part), lane=LANE)

    async def set_presence(self, status: Status, text: str | None = None) -> None:
        """Say what this user is on all devices; without `text` that stays as it was."""
        await self._ask(PresenceSet(status=status, text=text), lane=LANE)

    async def open(self, chat_id: str) -> None:
        """Follow a large channel live; then read what was before with `history`.

        Goes on over reconnects, after which an `Activity` with `seq` 0 says that there may be a
        gap to be read. For other chats, which are live anyway, it does nothing.
        """
        await self._ask(Open(chat_id=chat_id), lane=LANE)
        self._followed.channels[chat_id] = None

    async def close_chat(self, chat_id: str) -> None:
        """Follow a large channel no longer; `Activity` tells that there is news in it."""
        self._followed.channels.pop(chat_id, None)
        await self._ask(Close(chat_id=chat_id), lane=LANE)

    async def _watch(self, users: list[str]) -> dict[str, Presence]:
        result = await self._ask(PresenceSubscribe(users=users), lane=LANE)
        return read_answer(result.presence or {}, dict[str, Presence])

    async def _keep_following(self) -> None:
        """Ask again on each connection, until cancelled."""
        followed = self._followed
        while True:
            await followed.welcomed.wait()
            followed.welcomed.clear()
            try:
                await self._follow_again()
            except (ClientClosed, ConnectionStopped):
                return
            except ClientError as error:
                log.warning("what is followed may be out of date: %s", error)
                await asyncio.sleep(AGAIN_AFTER_S)
                if error.retryable:
                    followed.welcomed.set()

    async def _follow_again(self) -> None:
        for chat_id in list(self._followed.channels):
            await self._open_again(chat_id)
        for part in _parts(list(self._followed.users)):
            wanted = [user for user in part if user in self._followed.users]
            for user, seen in (await self._watch(wanted) if wanted else {}).items():
                await self._give(
                    PresenceEvent(
                        user_id=user, status=seen.status, text=seen.text, last_seen=seen.last_seen
                    )
                )

    async def _open_again(self, chat_id: str) -> None:
        if chat_id not in self._followed.channels:
            return
        try:
            await self._ask(Open(chat_id=chat_id), lane=LANE)
        except RequestFailed as error:
            if error.retryable:
                raise
            self._followed.channels.pop(chat_id, None)
        await self._give(Activity(chat_id=chat_id, seq=0))


def _parts(users: Iterable[str]) -> Iterator[list[str]]:
    left = iter(users)
    while part := list(islice(left, USERS_A_FRAME)):
        yield part
