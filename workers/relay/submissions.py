"""What users here have written in chats that live elsewhere, and what came of it.

A submission stays in the outbox until its chat's home has put it in order or refused it. As a home
does that in the order in which they were sent, those left of a chat come back from the first on;
and what comes back and is not there was never sent from here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from broker import events, outbox
from broker.bus import Bus
from broker.errors import Refused
from broker.lag import Lag
from broker.log import Log, Stored
from broker.streams import delete, purge

AT_ONCE = 20
PLACES = 1000
"""Of so many chats it is remembered how far they are."""


class _Place(Struct):
    """Where it is in the submissions of a chat; `page` are those behind `seq`, as far as read.

    `refused` is the last one that the home did not take: it says that of others as well, in order.
    """

    seq: int = 0
    page: list[Stored] = field(default_factory=list)
    found: bool = False
    refused: int = 0


class Submissions:
    """Finds and settles them. Raises `Unavailable`."""

    def __init__(self, bus: Bus):
        self._bus = bus
        self._log = Log(bus, stream=outbox.SUBMITTED)
        self._places: dict[str, _Place] = {}
        self._refused: list[int] = []

    def begin(self) -> None:
        """Forget what was found and not settled."""
        unsettled = self._refused or any(place.found for place in self._places.values())
        if unsettled or len(self._places) > PLACES:
            self._places.clear()
        self._refused.clear()

    async def find(self, site: str, event: events.Message | events.Change) -> bool:
        """Whether this was sent from here to `site` and has not come back yet."""
        subject = outbox.submission(site, event.chat_id)
        place = self._places.setdefault(subject, _Place())
        if self._found(place, event):
            return True
        # Others may have been sent since it was read, and before it may be some that never come
        # back by themselves: the home had them already, with the same `client_id`.
        seq = place.seq + 1
        while page := await self._page(subject, seq):
            seq = page[-1].seq + 1
            place.page = page
            if self._found(place, event):
                return True
        place.page = []
        return False

    def _found(self, place: _Place, event: events.Message | events.Change) -> bool:
        for number, stored in enumerate(place.page):
            if _submitted(stored) == event:
                place.seq, place.found = stored.seq, True
                del place.page[: number + 1]
                return True
        return False

    async def refused(self, site: str, refusal: outbox.Refusal) -> bool:
        """Whether what the home refuses was sent and has not come back; then it has now.

        What others sent before it is still on its way: a refusal overtakes the chat's events.
        """
        subject = outbox.submission(site, refusal.chat_id)
        place = self._places.setdefault(subject, _Place())
        before = place.refused
        seq = await self._sent(subject, refusal, before + 1)
        if not seq and before:
            seq = await self._sent(subject, refusal, 1, before)
        if not seq:
            return False
        place.refused = seq
        place.page = [each for each in place.page if each.seq != seq]
        self._refused.append(seq)
        return True

    async def _sent(self, subject: str, refusal: outbox.Refusal, seq: int, last: int = 0) -> int:
        """The place of the submission that is refused, from `seq` up to `last`, or 0."""
        while page := await self._page(subject, seq):
            for stored in page:
                if last and stored.seq >= last:
                    return 0
                event = _submitted(stored)
                if not isinstance(event, events.Message | events.Change):
                    continue
                refused = (event.from_, event.client_id) == (refusal.by, refusal.client_id)
                if refused and stored.seq not in self._refused:
                    return stored.seq
            seq = page[-1].seq + 1
        return 0

    async def _page(self, subject: str, seq: int) -> list[Stored]:
        """Some from `seq` on; none if there are no more, and not if only a replica lags."""
        lag = Lag(f"{subject} from {seq} on")
        while True:
            page = (await self._log.read(subject, seq)).events
            if page or await self._log.newest(subject) < seq:
                return page
            await lag.pause()

    async def settle(self) -> None:
        """Remove what was refused; and what was found, with what was before it in its chat."""
        await _some_at_once(self._delete, [(seq,) for seq in self._refused])
        self._refused.clear()
        found = [(subject, place) for subject, place in self._places.items() if place.found]
        await _some_at_once(self._remove, found)

    async def _delete(self, seq: int) -> None:
        try:
            await delete(self._bus, outbox.SUBMITTED, seq)
        except Refused:
            # It may be gone already: a replica that lags had it still.
            if not await self._log.deleted(seq):
                raise

    async def _remove(self, subject: str, place: _Place) -> None:
        await purge(self._bus, outbox.SUBMITTED, subject, before=place.seq + 1)
        place.found = False


async def _some_at_once(
    do: Callable[..., Awaitable[None]], each: Sequence[tuple[Any, ...]]
) -> None:
    for start in range(0, len(each), AT_ONCE):
        doing = [do(*args) for args in each[start : start + AT_ONCE]]
        ends = await asyncio.gather(*doing, return_exceptions=True)
        if errors := [end for end in ends if end is not None]:
            raise errors[0]


def _submitted(stored: Stored) -> events.Event | None:
    try:
        return events.decode(outbox.decode_submitted(stored.data).data)
    except msgspec.DecodeError:
        return None  # An edge of a later version wrote it.
