"""Reads the log and puts into the outbox what other sites are to be told.

It goes through the log in order, from where it was, and every parcel carries its place in the log.
Parcels are put in batches of which all is stored or nothing, one after the other: what is put twice
after a crash comes later than the first, and a receiver takes it once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Raw, Struct, field

from broker import events, outbox, subjects
from broker.batch import BATCH, Part, publish_all
from broker.bus import Bus
from broker.errors import BrokerError
from broker.links import Links, Reached
from broker.log import Log, LogState, Stored
from broker.sites import Sites
from store.errors import StoreError
from store.mirrored import Mirrored

PAGE_MEMBERS = 2000
POLL_S = 1.0
RETRY_S = 0.5
RECORD_EVENTS = 5000
GROUPS = 100_000
BATCH_BYTES = 1024 * 1024
PUT_S = 5.0

_log = logging.getLogger("hikyaku.relay")


class _Told(Struct):
    """Which sites are told of a group, and what the log said of it that is not put down yet.

    Of `changed`, users of other sites, it has the site and whether they are in the group.
    """

    sites: set[str]
    seq: int
    changed: dict[str, tuple[str, bool]] = field(default_factory=dict)


class Teller:
    """`run` until cancelled. Before something is put, `check` says that it may be."""

    def __init__(
        self,
        bus: Bus,
        links: Links,
        sites: Sites,
        mirrored: Mirrored,
        check: Callable[[], None],
    ):
        self._bus = bus
        self._check = check
        self._log = Log(bus)
        self._links = links
        self._sites = sites
        self._mirrored = mirrored
        self._told: dict[str, _Told] = {}
        self._unrecorded: set[str] = set()
        self._news = asyncio.Event()
        self._position = 0
        self._recorded = 0
        self.parcels = 0
        self.behind = 0
        self.missed = 0
        self.unreadable = 0

    async def run(self) -> None:
        """Look through the log, as it grows."""
        ends = [
            self._bus.subscribe(subjects.LIVE + each, lambda *_: self._news.set())
            for each in subjects.CHAT_SUBJECTS
        ]
        try:
            while True:
                try:
                    await self._follow()
                except (BrokerError, StoreError) as error:
                    _log.warning("other sites are not told, next try in %g s: %s", RETRY_S, error)
                    await asyncio.sleep(RETRY_S)
        finally:
            for sid in ends:
                self._bus.unsubscribe(sid)

    async def _follow(self) -> None:
        state = await self._log.state()
        reached = await self._links.reached()
        place = await self._mirrored.guests.place(reached.epoch)
        if place is not None and place < reached.seq:
            # MongoDB was restored and is behind: who was a member is learned again.
            reached = Reached(epoch=reached.epoch, seq=place)
        if reached.epoch != state.epoch:
            if reached.epoch and reached.epoch not in state.ancestors:
                self.missed += self.behind
            reached = Reached(epoch=state.epoch, seq=_begin(reached, state))
            await self._links.reach(reached)
        self._told.clear()
        self._unrecorded.clear()
        self._position = self._recorded = reached.seq
        while True:
            self._news.clear()
            if not self._sites.peers:
                # Whoever comes is told what happens from then on.
                self._position = (await self._log.state()).last_seq
                await self._until_news()
                continue
            page = await self._log.read(">", self._position + 1)
            self.behind = page.pending
            if page.events and page.events[0].seq > self._position + 1:
                await self._look_for_aged(page.events[0].seq)
            if not page.events:
                await self._record(state.epoch)
                await self._until_news()
                if (await self._log.state()).epoch != state.epoch:
                    return
                continue
            sent = await self._tell(page.events)
            self._position = page.events[-1].seq
            if sent or self._position - self._recorded > RECORD_EVENTS:
                await self._record(state.epoch)

    async def _look_for_aged(self, seq: int) -> None:
        """Events may be gone; those that aged before they were told are missed at other sites."""
        state = await self._log.state()
        first = state.first_seq
        # What follows the end of a log that was restored, never was.
        ends = [end + 1 for end in state.ancestors.values() if end >= self._position]
        missed = min(first, seq, *ends) - self._position - 1
        if first > self._position + 1 and missed > 0:
            self.missed += missed
            _log.error(
                "%d events left the log before other sites could be told: the outbox was full, or "
                "no relay ran, for longer than the log keeps them",
                missed,
            )

    async def _until_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._news.wait()

    async def _record(self, epoch: str) -> None:
        if self._position > self._recorded:
            await self._mirrored.guests.reach(epoch, self._position)
            await self._links.reach(Reached(epoch=epoch, seq=self._position))
            self._recorded = self._position

    async def _tell(self, found: list[Stored]) -> int:
        """Put what concerns others into the outbox, in order; how many parcels."""
        parts: list[Part] = []
        for each in found:
            for site, parcels in (await self._parcels(each)).items():
                parts += [Part(outbox.told(site), outbox.encode(parcel)) for parcel in parcels]
        start = size = 0
        for end, part in enumerate(parts):
            if end - start == BATCH or (end > start and size + len(part.payload) > BATCH_BYTES):
                await self._put(parts[start:end])
                start, size = end, 0
            size += len(part.payload)
        if parts:
            await self._put(parts[start:])
        # Only now: what is put down is of a place up to which all is in the outbox.
        for group in list(self._unrecorded):
            await self._settle(group, found[-1].seq)
        self.parcels += len(parts)
        return len(parts)

    async def _put(self, parts: list[Part]) -> None:
        self._check()
        await publish_all(self._bus, parts, timeout_s=PUT_S)

    async def _settle(self, group: str, seq: int) -> None:
        told = self._told[group]
        if await self._mirrored.guests.settle(group, seq, told.sites, told.changed):
            told.seq = seq
            told.changed = {}
        else:
            # Another process has the links by now, or the group is not known.
            del self._told[group]
        self._unrecorded.discard(group)

    # --- who is told what ---

    async def _parcels(self, stored: Stored) -> dict[str, list[outbox.Telling]]:
        kind, _, token = stored.subject.partition(".")
        if kind == "dm":
            return self._of_dm(stored)
        if kind == "group":
            return await self._of_group(stored)
        return await self._of_user(stored, subjects.decode(token))

    def _of_dm(self, stored: Stored) -> dict[str, list[outbox.Telling]]:
        names = self._sites.names
        if "=40" not in stored.subject or names.home_of(stored.subject) is not None:
            return {}
        event = outbox.Event(seq=stored.seq, chat_id=stored.subject, data=Raw(stored.data))
        return {site: [event] for site in names.sites_in(stored.subject) if self._linked(site)}

    async def _of_group(self, stored: Stored) -> dict[str, list[outbox.Telling]]:
        if self._sites.names.sites_in(stored.subject):
            return {}
        group = subjects.decode(stored.subject[6:])
        told = await self._told_of(group)
        if stored.seq <= told.seq:
            return {}  # It was put into the outbox, before a crash.
        event = outbox.Event(seq=stored.seq, chat_id=stored.subject, data=Raw(stored.data))
        return {site: [event] for site in told.sites if self._linked(site)}

    async def _of_user(self, stored: Stored, user: str) -> dict[str, list[outbox.Telling]]:
        """A user of another site comes into a group here, or leaves it."""
        site = self._sites.names.site_of(user)
        if site is None:
            return {}
        try:
            event = events.decode_own(stored.data)
        except msgspec.DecodeError as error:
            # A later version wrote it, or nobody should have: the rest is told all the same.
            self.unreadable += 1
            _log.error("event %d of the log is not told to other sites: %s", stored.seq, error)
            return {}
        if not isinstance(event, events.MemberAdded | events.MemberRemoved):
            return {}
        if self._sites.names.site_of(event.group_id) is not None:
            return {}
        group = event.group_id
        told = await self._told_of(group)
        if stored.seq <= told.seq:
            return {}
        self._unrecorded.add(group)
        found: list[outbox.Telling] = []
        if isinstance(event, events.MemberAdded):
            if site not in told.sites:
                found += await self._pages(group, stored.seq)
            told.sites.add(site)
            told.changed[user] = site, True
        else:
            told.changed[user] = site, False
            if not await self._any_of(group, told, site):
                told.sites.discard(site)
        found.append(outbox.Own(seq=stored.seq, part=len(found), data=Raw(stored.data)))
        return {site: found} if self._linked(site) else {}

    async def _pages(self, group_id: str, seq: int) -> list[outbox.Telling]:
        described = await self._mirrored.described(group_id)
        if described is None:
            return []
        found: list[outbox.Telling] = []
        after: str | None = None
        while True:
            members = await self._mirrored.page(group_id, after, PAGE_MEMBERS)
            page = outbox.GroupPage(
                seq=seq,
                part=len(found),
                group_id=group_id,
                name=described["name"],
                kind=described["kind"],
                created_by=described["created_by"],
                size=described["size"],
                members=dict(members),
            )
            found.append(page)
            if len(members) < PAGE_MEMBERS:
                return found
            after = members[-1][0]

    async def _any_of(self, group: str, told: _Told, site: str) -> bool:
        """Whether anybody of the site is in the group at this place of the log."""
        if any(each == (site, True) for each in told.changed.values()):
            return True
        return await self._mirrored.guests.any_but(group, site, told.changed)

    async def _told_of(self, group: str) -> _Told:
        told = self._told.get(group)
        if told is None:
            if len(self._told) >= GROUPS:
                kept = {group: self._told[group] for group in self._unrecorded}
                self._told.clear()
                self._told |= kept
            told = self._told[group] = _Told(*await self._mirrored.guests.told(group))
        return told

    def _linked(self, site: str) -> bool:
        return self._sites.linked(site)


def _begin(reached: Reached, state: LogState) -> int:
    """From where on others are told of this log, when it was another one until now."""
    if not reached.epoch:
        # The first time: what it has was never for anybody else.
        return state.last_seq
    if reached.epoch in state.ancestors:
        # It was restored. What is told twice is taken once, for it has its place.
        return min(reached.seq, state.ancestors[reached.epoch])
    _log.error(
        "this is another log than the one of which other sites were told up to %d; what came after"
        " that in the other one they are not told",
        reached.seq,
    )
    return max(0, state.first_seq - 1)
