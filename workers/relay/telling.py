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
from msgspec import Raw

from broker import events, outbox, subjects
from broker.batch import BATCH, Part, publish_all
from broker.bus import Bus
from broker.errors import BrokerError
from broker.links import Links, Reached
from broker.log import Log, Stored
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
        self._told: dict[str, set[str]] = {}
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
        if reached.epoch != state.epoch:
            # The first time, or another log: what it has was never for anybody else.
            reached = Reached(epoch=state.epoch, seq=state.last_seq)
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
        first = (await self._log.state()).first_seq
        missed = min(first, seq) - self._position - 1
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
        # Only now: a successor that begins before this puts the group's description again.
        for group in self._unrecorded:
            await self._mirrored.tell(group, self._told[group])
        self._unrecorded.clear()
        self.parcels += len(parts)
        return len(parts)

    async def _put(self, parts: list[Part]) -> None:
        self._check()
        await publish_all(self._bus, parts, timeout_s=PUT_S)

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
        event = outbox.Event(seq=stored.seq, chat_id=stored.subject, data=Raw(stored.data))
        return {site: [event] for site in await self._sites_of(group) if self._linked(site)}

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
        told = await self._sites_of(event.group_id)
        found: list[outbox.Telling] = []
        if isinstance(event, events.MemberAdded) and site not in told:
            found += await self._pages(event.group_id, stored.seq)
            self._set_told(event.group_id, told | {site})
        part = len(found)
        found.append(outbox.Own(seq=stored.seq, part=part, data=Raw(stored.data)))
        if isinstance(event, events.MemberRemoved) and not await self._mirrored.any_of_site(
            event.group_id, site
        ):
            self._set_told(event.group_id, told - {site})
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

    async def _sites_of(self, group_id: str) -> set[str]:
        told = self._told.get(group_id)
        if told is None:
            if len(self._told) >= GROUPS:
                kept = {group: self._told[group] for group in self._unrecorded}
                self._told.clear()
                self._told |= kept
            told = self._told[group_id] = await self._mirrored.told(group_id)
        return told

    def _set_told(self, group_id: str, sites: set[str]) -> None:
        self._told[group_id] = sites
        self._unrecorded.add(group_id)

    def _linked(self, site: str) -> bool:
        return self._sites.linked(site)
