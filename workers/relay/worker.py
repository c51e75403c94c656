"""The worker `relay`: the links to all peers, in one process of a site at a time."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from uuid import uuid4

from prometheus_client.core import Metric

from broker import outbox
from broker.bus import Bus
from broker.errors import BrokerError
from broker.federation import Postal
from broker.links import Links as Records
from broker.links import Taken, way
from broker.metrics import counter, gauge
from broker.relay import SERVICE, Link, Links, LinksFound, Renew, Renewed
from broker.requests import Failure, Responder
from broker.sites import Sites
from store.directory import Directory
from store.mirrored import Mirrored

from .asking import Asking
from .files import FilePieces
from .homing import Homing
from .limits import Limits
from .presence import Shown, Watcher
from .sending import Sender, Senders
from .taking import Taker
from .telling import Teller
from .whispers import Whispers

DEADLINE_S = 4.0
MEASURE_S = 5.0

_log = logging.getLogger("hikyaku.relay")


class Relay:
    """A `RelayWorker` for each time at which this process has the links."""

    def __init__(self, make: Callable[[], "RelayWorker"]):
        self._make = make
        self._worker: RelayWorker | None = None

    async def run(self) -> None:
        """Until cancelled; returns when it could not begin."""
        async with AsyncExitStack() as stack:
            worker = self._make()
            try:
                await stack.enter_async_context(worker)
            except BrokerError as error:
                _log.warning("waiting for NATS: %s", error)
                return
            self._worker = worker
            _log.info("relay is ready")
            try:
                await worker.run()
            finally:
                self._worker = None

    def metrics(self) -> Iterable[Metric]:
        """For `/metrics`; of a process without the links, none."""
        return self._worker.metrics() if self._worker is not None else ()


class RelayWorker:
    """Use as a context manager, then `run` until cancelled."""

    def __init__(
        self,
        own: str,
        bus: Bus,
        federation: Bus,
        directory: Directory,
        mirrored: Mirrored,
        *,
        presence_lease_s: int,
        machines: tuple[int, int],
        parcels_per_s: float,
        check: Callable[[], None],
    ):
        """`check` raises when another process may have the links by now."""
        self._machines = machines
        self._bus = bus
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()
        self.sites = Sites(own, bus, bus, self._changed.set)
        self._limits = Limits(parcels_per_s, self.sites.linked)
        self._postal = Postal(federation, own, self._limits)
        links = Records(bus)
        self._links = links
        self._taker = Taker(
            bus,
            links=links,
            linked=self.sites,
            mirrored=mirrored,
            homing=Homing(bus, directory),
            machines=machines,
            limits=self._limits,
            check=check,
        )
        self._teller = Teller(bus, links, self.sites, mirrored, check)
        self._asking = Asking(bus, self._postal, self.sites)
        self._pieces = FilePieces(bus, self._postal, self.sites, mirrored)
        self._responder = Responder(
            bus,
            SERVICE,
            {"links": (Links, self._links_now), "renew": (Renew, self._renew)},
            deadline_s=DEADLINE_S,
        )
        self._whispers = Whispers(bus, self._postal, self.sites, mirrored)
        self._watcher = Watcher(bus, self._postal, self.sites, lease_s=presence_lease_s)
        self._shown = Shown(bus, self._postal, self.sites)
        self._senders: dict[str, Senders] = {}
        self._waiting: dict[str, Link] = {}

    async def __aenter__(self) -> "RelayWorker":
        try:
            for each in (self.sites, self._postal, self._asking, self._pieces):
                await self._stack.enter_async_context(each)
            for part in (self._whispers, self._watcher, self._shown, self._responder):
                await self._stack.enter_async_context(part)
        except BaseException:
            await self._stack.aclose()
            raise
        self._taker.serve(self._postal)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Keep a way to each linked peer, and tell them what happens."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._teller.run())
            group.create_task(self._measure())
            for part in (self._whispers, self._watcher, self._shown):
                group.create_task(part.run())
            while True:
                self._changed.clear()
                for site in list(self._senders):
                    if not self.sites.linked(site):
                        self._senders.pop(site).cancel()
                for site in self.sites.peers:
                    if self.sites.linked(site) and site not in self._senders:
                        senders = [
                            Sender(site, box, self._bus, self._postal, self._links, self._machines)
                            for box in outbox.BOXES
                        ]
                        self._senders[site] = Senders(senders, group)
                await self._changed.wait()

    async def _measure(self) -> None:
        """Look again and again how much waits."""
        while True:
            for site, senders in list(self._senders.items()):
                with suppress(BrokerError):
                    self._waiting[site] = await senders.link()
            await asyncio.sleep(MEASURE_S)

    async def _renew(self, question: Renew) -> Renewed:
        """The peer's outbox is a new one, and so is this site's for the peer."""
        site = question.site
        if not self.sites.linked(site):
            raise Failure("not_found", f"there is no link to the site {site!r}")
        if site in self._senders:
            await self._senders.pop(site).end()
        try:
            await self._taker.renew(site)
            renewed = Taken(renewed=uuid4().hex[:8])
            for box in outbox.BOXES:
                await self._links.taken(site, way("out", box))
                await self._links.take(site, way("out", box), renewed)
        except BrokerError as error:
            raise Failure("unavailable", str(error), retryable=True) from error
        finally:
            self._changed.set()
        _log.warning("the link to %s begins anew", site)
        return Renewed()

    async def _links_now(self, _: Links) -> LinksFound:
        found = [await senders.link() for senders in self._senders.values()]
        found += [
            Link(site=site, connected=False, state="removed", waiting=0)
            for site in self.sites.peers
            if not self.sites.linked(site)
        ]
        return LinksFound(links=sorted(found, key=lambda each: each.site))

    def metrics(self) -> Iterable[Metric]:
        """For `/metrics`."""
        senders = dict(self._senders)
        yield gauge(
            "hikyaku_link_connected",
            "Whether the linked site takes what it is sent.",
            {site: float(each.connected) for site, each in senders.items()},
            "site",
        )
        waiting = {site: found for site, found in self._waiting.items() if site in senders}
        yield gauge(
            "hikyaku_link_waiting_parcels",
            "What waits for the linked site.",
            {site: found.waiting for site, found in waiting.items()},
            "site",
        )
        yield gauge(
            "hikyaku_link_oldest_seconds",
            "Age of what waits longest for the linked site, or 0.",
            {site: found.oldest_s or 0.0 for site, found in waiting.items()},
            "site",
        )
        yield counter(
            "hikyaku_link_sent_total",
            "Parcels that the linked site took.",
            {site: each.sent for site, each in senders.items()},
            "site",
        )
        yield counter(
            "hikyaku_link_refused_total",
            "Parcels of the linked site that are not its to say.",
            self._by_site(self._taker.refused),
            "site",
        )
        yield counter(
            "hikyaku_link_slowed_total",
            "Batches of a site that waited, for it was over its limit.",
            self._by_site(self._limits.slowed),
            "site",
        )
        yield counter(
            "hikyaku_link_unanswered_total",
            "Questions of a site that were not answered, for it was over its limit.",
            self._by_site(self._limits.unanswered),
            "site",
        )
        yield counter(
            "hikyaku_link_file_bytes_total",
            "Bytes of files that the site was given.",
            self._by_site(self._pieces.given),
            "site",
        )
        yield counter(
            "hikyaku_link_files_refused_total",
            "Questions of a site for files of chats in which none of its users is.",
            self._by_site(self._pieces.refused),
            "site",
        )
        yield counter(
            "hikyaku_relay_missed_total",
            "Events that left the log before other sites could be told.",
            self._teller.missed,
        )
        yield counter(
            "hikyaku_relay_unreadable_total",
            "Events and whispers that other sites were not told, for they could not be read.",
            self._teller.unreadable + self._whispers.unreadable,
        )
        yield counter(
            "hikyaku_relay_taken_total", "Parcels taken from other sites.", self._taker.taken
        )
        yield counter(
            "hikyaku_relay_told_total", "Parcels put into the outbox.", self._teller.parcels
        )
        yield gauge(
            "hikyaku_relay_behind",
            "Events of the log not yet looked through for other sites.",
            self._teller.behind,
        )

    def _by_site(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each linked site from the beginning: an increase is seen from one number to the next."""
        return {**dict.fromkeys(self._senders, 0), **counts}
