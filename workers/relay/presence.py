"""Presence across sites, of users whom somebody watches.

Edges say whom they watch elsewhere (`svc.relay.watch`, again and again); the relay asks the sites
of those users, each of which tells how they are now and then what changes. What is told is written
into this site's own bucket, under a lease held for the peer as an edge holds one for its users: so
edges find it as they find their own, and when the link breaks the peer's users go offline with it.
"""

import asyncio
import logging
from contextlib import AsyncExitStack

import msgspec
from msgspec import Struct

from broker import presence, subjects
from broker.bus import Bus
from broker.errors import BrokerError, InvalidName, Unavailable
from broker.federation import Postal, read
from broker.key_writer import KeyWriter
from broker.lease import FOR_SITE, EdgeLease, LivingEdges
from broker.presence import Connection, PresenceReader, Seen, Setting, View
from broker.relay import SERVICE, Watch, Watched
from broker.requests import Responder
from broker.sites import Sites
from broker.snowflake import unix_ms

ASK_S = 2.0
DEADLINE_S = 3.0
WATCH_S = 60.0
"""Who is not asked for again within this is watched no more."""

AGAIN_S = 20.0
FLUSH_S = 0.1
MOST = 100_000
USERS_A_QUESTION = 2000

_LIVE = f"{subjects.LIVE}{presence.BUCKET}."

_log = logging.getLogger("hikyaku.relay")


class _Users(Struct):
    users: list[str]


class _Views(Struct):
    views: dict[str, View]


class Watcher:
    """This site's users watch others. Use as a context manager; `run` is its task."""

    def __init__(self, bus: Bus, postal: Postal, sites: Sites, *, lease_s: int):
        self._bus = bus
        self._postal = postal
        self._sites = sites
        self._lease_s = lease_s
        self._writer = KeyWriter(bus, presence.BUCKET)
        self._leases: dict[str, _Held] = {}
        self._wanted: dict[str, dict[str, float]] = {}
        self._views: dict[str, dict[str, View]] = {}
        self._responder = Responder(
            bus, SERVICE, {"watch": (Watch, self._watch)}, deadline_s=DEADLINE_S
        )

    async def __aenter__(self) -> "Watcher":
        await self._writer.__aenter__()
        await self._responder.__aenter__()
        self._postal.serve("views", self._on_views)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._responder.__aexit__(*exc_info)
        for held in self._leases.values():
            await held.stack.aclose()
        await self._writer.__aexit__(*exc_info)

    async def run(self) -> None:
        """Ask again for all that is watched, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S)
            now = asyncio.get_running_loop().time()
            for site, users in list(self._wanted.items()):
                for user in [user for user, until in users.items() if until < now]:
                    del users[user]
                    self._views.get(site, {}).pop(user, None)
                await self._ask(site, list(users))

    async def _watch(self, question: Watch) -> Watched:
        """Edges watch these; answered when what is known of them is written."""
        until = asyncio.get_running_loop().time() + WATCH_S
        new: dict[str, list[str]] = {}
        for user in question.users:
            site = self._sites.names.site_of(user)
            if site is None or not self._sites.linked(site):
                continue
            users = self._wanted.setdefault(site, {})
            if user not in users:
                if len(users) >= MOST:
                    continue
                new.setdefault(site, []).append(user)
            users[user] = until
        await asyncio.gather(*(self._ask(site, users) for site, users in new.items()))
        return Watched()

    async def _ask(self, site: str, users: list[str]) -> None:
        for start in range(0, len(users), USERS_A_QUESTION):
            part = users[start : start + USERS_A_QUESTION]
            try:
                payload = msgspec.json.encode(_Users(part))
                answer = await self._postal.ask(site, "watch", payload, timeout_s=ASK_S)
                await self._take(site, read(answer, _Views, site))
            except BrokerError as error:
                _log.debug("presence at %s is not known: %s", site, error)
                await self._end(site)
                return

    async def _on_views(self, peer: str, data: bytes) -> bytes:
        if self._sites.linked(peer):
            await self._take(peer, read(data, _Views, peer))
        return b""

    async def _take(self, site: str, told: _Views) -> None:
        """Write what is news."""
        names = self._sites.names
        lease = await self._lease(site)
        known = self._views.setdefault(site, {})
        number = 0
        for name, view in told.views.items():
            try:
                user = names.local(name, site)
            except InvalidName:
                continue
            if user in self._wanted.get(site, {}) and known.get(user) != view:
                known[user] = view
                number = self._write(subjects.encode(user), lease.edge, view)
        if number:
            await self._writer.written(number, timeout_s=ASK_S)

    def _write(self, token: str, edge: str, view: View) -> int:
        setting = Setting("dnd" if view.status == "dnd" else "", view.text)
        value = msgspec.json.encode(setting) if setting != presence.NOTHING else b""
        self._writer.put(subjects.setting_key(token), value)
        if view.last_seen is not None:
            seen = msgspec.json.encode(Seen(view.last_seen))
            self._writer.put(subjects.seen_key(token), seen, ttl_s=presence.SEEN_TTL_S)
        there = b""
        if view.status != "offline":
            known = Connection(since=unix_ms())
            if view.status == "away":
                known.status = "away"
            there = msgspec.json.encode(known)
        return self._writer.put(subjects.connection_key(token, edge, "site"), there)

    # --- a lease for each peer that answers ---

    async def _lease(self, site: str) -> EdgeLease:
        held = self._leases.get(site)
        if held is None:
            held = self._leases[site] = _Held(self, site, self._bus, self._lease_s)
            await held.stack.enter_async_context(held.lease)
        try:
            async with asyncio.timeout(ASK_S):
                await held.ready.wait()
        except TimeoutError:
            raise Unavailable("there is no lease yet") from None
        return held.lease

    def moved(self, site: str, edge: str) -> None:
        """A lease was taken anew: make known under it what is known."""
        for user, view in self._views.get(site, {}).items():
            self._write(subjects.encode(user), edge, view)

    async def _end(self, site: str) -> None:
        """The peer does not answer: its users are not there as far as anybody knows."""
        self._views.pop(site, None)
        if site in self._leases:
            await self._leases.pop(site).stack.aclose()


class _Held:
    """The lease for one peer; `ready` when it was taken."""

    def __init__(self, watcher: Watcher, site: str, bus: Bus, lease_s: int):
        def taken(_: str, edge: str) -> None:
            self.ready.set()
            watcher.moved(site, edge)

        self.ready = asyncio.Event()
        self.stack = AsyncExitStack()
        self.lease = EdgeLease(bus, f"{FOR_SITE}{site}", lease_s=lease_s, on_change=taken)


class Shown:
    """Other sites watch this site's users. Use as a context manager; `run` is its task."""

    def __init__(self, bus: Bus, postal: Postal, sites: Sites):
        self._bus = bus
        self._postal = postal
        self._sites = sites
        self._reader = PresenceReader(bus)
        self._living = LivingEdges(bus, bus, self._all_changed)
        self._watched: dict[str, dict[str, float]] = {}
        self._told: dict[str, View] = {}
        self._dirty: set[str] = set()
        self._work = asyncio.Event()

    async def __aenter__(self) -> "Shown":
        await self._living.__aenter__()
        self._sid = self._bus.subscribe(f"{_LIVE}>", self._on_live)
        self._postal.serve("watch", self._watch)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._bus.unsubscribe(self._sid)
        await self._living.__aexit__(*exc_info)

    def _on_live(self, subject: bytes, _: bytes, _header: bytes | None, _data: bytes) -> None:
        token = subject[len(_LIVE) :].decode().partition(".")[0]
        if token in self._watched:
            self._dirty.add(token)
            self._work.set()

    def _all_changed(self) -> None:
        self._dirty.update(self._watched)
        self._work.set()

    async def _watch(self, peer: str, data: bytes) -> bytes:
        """A peer's users watch these; how they are."""
        if not self._sites.linked(peer):
            return msgspec.json.encode(_Views({}))
        names = self._sites.names
        until = asyncio.get_running_loop().time() + WATCH_S
        asked: dict[str, str] = {}
        for name in read(data, _Users, peer).users[:USERS_A_QUESTION]:
            user = names.local(name, peer)
            token = subjects.encode(user)
            if names.site_of(user) is None and (
                token in self._watched or len(self._watched) < MOST
            ):
                asked[token] = user
                self._watched.setdefault(token, {})[peer] = until
        views = await self._read(list(asked))
        self._told |= views
        return msgspec.json.encode(_Views({asked[token]: view for token, view in views.items()}))

    async def _read(self, tokens: list[str]) -> dict[str, View]:
        found: dict[str, View] = {}
        async for part in self._reader.read(tokens):
            for token in part.users:
                values = ((key, value.data) for key, value in part.keys[token].items())
                found[token] = presence.public_view(presence.state(values, self._living))
        return found

    async def run(self) -> None:
        """Tell what changes, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(FLUSH_S)
            self._work.clear()
            dirty, self._dirty = self._dirty, set()
            try:
                await self._tell(dirty)
            except BrokerError as error:
                self._dirty |= dirty
                _log.info("presence is not told to other sites: %s", error)
                await asyncio.sleep(1.0)
                self._work.set()

    async def _tell(self, dirty: set[str]) -> None:
        now = asyncio.get_running_loop().time()
        news: dict[str, dict[str, View]] = {}
        for token, view in (await self._read(list(dirty))).items():
            peers = self._watched.get(token, {})
            for peer in [peer for peer, until in peers.items() if until < now]:
                del peers[peer]
            if not peers:
                self._watched.pop(token, None)
                self._told.pop(token, None)
            elif self._told.get(token) != view:
                self._told[token] = view
                for peer in peers:
                    news.setdefault(peer, {})[subjects.decode(token)] = view
        for peer, views in news.items():
            if self._sites.linked(peer):
                self._postal.tell(peer, "views", msgspec.json.encode(_Views(views)))
