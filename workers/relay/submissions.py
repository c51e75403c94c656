"""What users here have written in chats that live elsewhere, and what came of it.

A submission stays in the outbox until its chat's home has put it in order or refused it. As a home
does that in the order in which they were sent, those left of a chat come back from the first on;
and what comes back and is not there was never sent from here.
"""

import asyncio

from msgspec import Struct, field

from broker import events, outbox
from broker.bus import Bus
from broker.log import Log, Stored
from broker.streams import purge

LOOK = 200
"""So many are read at once. Before the one looked for may be some that never come back by
themselves: the home had them already, with the same `client_id`."""


AT_ONCE = 20
PLACES = 1000
"""Of so many chats it is remembered how far they are."""


class _Place(Struct):
    """Where it is in the submissions of a chat; `page` are those behind `seq`, as far as read."""

    seq: int = 0
    page: list[Stored] = field(default_factory=list)
    found: bool = False


class Submissions:
    """Finds and settles them. Raises `Unavailable`."""

    def __init__(self, bus: Bus):
        self._bus = bus
        self._log = Log(bus, stream=outbox.STREAM)
        self._places: dict[str, _Place] = {}

    def begin(self) -> None:
        """Forget what was found and not settled."""
        unsettled = any(place.found for place in self._places.values())
        if unsettled or len(self._places) > PLACES:
            self._places.clear()

    async def find(self, site: str, event: events.Message | events.Change) -> bool:
        """Whether this was sent from here to `site` and has not come back yet."""
        subject = outbox.submission(site, event.chat_id)
        place = self._places.setdefault(subject, _Place())
        if self._found(place, event):
            return True
        # Others may have been sent since it was read.
        place.page = (await self._log.read(subject, place.seq + 1, LOOK)).events
        return self._found(place, event)

    def _found(self, place: _Place, event: events.Message | events.Change) -> bool:
        for number, stored in enumerate(place.page):
            if _submitted(stored) == event:
                place.seq, place.found = stored.seq, True
                del place.page[: number + 1]
                return True
        return False

    async def refused(self, site: str, chat_id: str, client_id: str) -> bool:
        """Whether a submission with this `client_id` has not come back; then it has now."""
        place = self._places.setdefault(outbox.submission(site, chat_id), _Place())
        page = (await self._log.read(outbox.submission(site, chat_id), place.seq + 1, LOOK)).events
        for stored in page:
            event = _submitted(stored)
            if isinstance(event, events.Message | events.Change) and event.client_id == client_id:
                place.seq, place.page, place.found = stored.seq, [], True
                return True
        return False

    async def settle(self) -> None:
        """Remove what was found, and what was before it in its chat."""
        found = [(subject, place) for subject, place in self._places.items() if place.found]
        for start in range(0, len(found), AT_ONCE):
            removing = [self._remove(*each) for each in found[start : start + AT_ONCE]]
            ends = await asyncio.gather(*removing, return_exceptions=True)
            if errors := [end for end in ends if end is not None]:
                raise errors[0]

    async def _remove(self, subject: str, place: _Place) -> None:
        await purge(self._bus, outbox.STREAM, subject, before=place.seq + 1)
        place.found = False


def _submitted(stored: Stored) -> events.Event | None:
    parcel = outbox.decode(stored.data)
    return events.decode(parcel.data) if isinstance(parcel, outbox.Submitted) else None
