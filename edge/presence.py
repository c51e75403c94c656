"""Presence on an edge: its own users made known, others watched, and the frames about it.

Started once NATS answers; what it cannot do just now is tried again and never holds up messages.
See `docs/architecture.md`.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from broker import directory, presence, relay, subjects
from broker.errors import BrokerError, Unavailable
from broker.janitor import Janitor
from broker.key_writer import KeyWriter
from broker.lease import EdgeLease, LivingEdges
from broker.log import sequence_of
from broker.mirror import Value
from broker.presence import PresenceReader, View
from broker.requests import Failure

from . import frames
from .close_codes import CloseCode
from .here import Here
from .watching import Board

if TYPE_CHECKING:
    from .edge import Edge
    from .session import Session

MOST_WATCHED = 2000
TICK_S = 1.0
REPAIR_S = 30.0
SWEEP_S = 60.0
DRAIN_S = 2.0
SURE_S = 2.0

_LIVE = f"{subjects.LIVE}{presence.BUCKET}."

_log = logging.getLogger("hikyaku.presence")


class Presence:
    """All of it. Use as a context manager; a task of its own watches over it."""

    def __init__(self, edge: "Edge"):
        self._edge = edge
        config = edge.config
        self._writer = KeyWriter(edge.asking, presence.BUCKET)
        self._lease = EdgeLease(
            edge.asking,
            config.name,
            lease_s=config.presence_lease_s,
            on_change=self._moved,
            value=edge.described,
        )
        self._living = LivingEdges(edge.live, edge.asking, self._edges_changed)
        self._reader = PresenceReader(edge.asking)
        self.here = Here(
            edge.asking,
            self._lease,
            self._living,
            self._writer,
            config.request_timeout_s,
            on_arrival=self._arrived,
        )
        self.board = Board(self._reader, self._living, edge.later)
        self._janitor = Janitor(edge.asking, self._writer)
        self._repair_wanted = True
        self._watched_at = 0.0
        self._sweep_at = 0.0
        self._stack: AsyncExitStack

    async def __aenter__(self) -> "Presence":
        live = self._edge.live
        async with AsyncExitStack() as stack:
            sid = live.subscribe(f"{_LIVE}>", self._on_live)
            stack.callback(live.unsubscribe, sid)
            stack.callback(live.on_connect(self._want_repair))
            for part in (self._living, self._lease, self._writer):
                await stack.enter_async_context(part)
            self._stack = stack.pop_all()
        for essential in (self.here.run(), self._run()):
            self._edge.spawn(essential, essential=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.here.leave()
        await self._writer.drain(DRAIN_S)
        await self._stack.aclose()

    @property
    def waiting(self) -> int:
        """Keys not yet written."""
        return self._writer.waiting

    @property
    def leases(self) -> int:
        """How many leases were taken."""
        return self._lease.taken

    def forget(self, session: "Session") -> None:
        """A session ended."""
        self.here.left(session)
        self.board.forget(session)

    # --- how many connections a user has ---

    def _arrived(self, session: "Session", connections: int) -> None:
        """Too many on all edges together: count again when those of a dead edge count no more.

        Who has just come over from an edge that died, or is about to say so, is not to be refused.
        """
        if connections > self._edge.config.limits.connections_per_user:
            wait_s = self._edge.config.presence_lease_s + SURE_S
            self._edge.later(wait_s, partial(self._count_again, session))

    def _count_again(self, session: "Session") -> None:
        if not session.closing and not session.lost:
            self._edge.spawn(self._count(session))

    async def _count(self, session: "Session") -> None:
        token = session.user.token
        most = self._edge.config.limits.connections_per_user
        try:
            async for part in self._reader.read([token]):
                values = [(key, value.data) for key, value in part.keys[token].items()]
                own = f"{self._lease.edge}.{session.id}"
                if presence.before(values, self._living, own) >= most:
                    session.close(
                        CloseCode.TOO_MANY_CONNECTIONS, "too many connections of this user"
                    )
        except BrokerError as error:
            _log.info("connections not counted, again later: %s", error)
            self._arrived(session, most + 1)

    # --- what happens ---

    def _on_live(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        assert header is not None
        token, _dot, key = subject[len(_LIVE) :].decode().partition(".")
        if key == "set":
            self.here.on_setting(token, data)
        if token in self.board:
            self.board.apply(token, key, Value(sequence_of(header), data))

    def _edges_changed(self) -> None:
        self.board.edges_changed()
        # Not all edges at once: the first to claim a dead edge's keys removes them.
        self._sweep_at = min(self._sweep_at, self._edge.now() + random.uniform(0.2, TICK_S))

    def _moved(self, before: str, now: str) -> None:
        self.here.moved(before, now)

    def _want_repair(self) -> None:
        self._repair_wanted = True

    async def _run(self) -> None:
        """Repair what may have been missed; clean up after the dead."""
        edge, gaps, repaired_at = self._edge, 0, 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now, seen_gaps = edge.now(), edge.feed.gaps if edge.feed is not None else 0
            try:
                if self._repair_wanted or seen_gaps != gaps or now - repaired_at > REPAIR_S:
                    self._repair_wanted = False
                    gaps, repaired_at = seen_gaps, now
                    await self._living.refresh()
                    await self.board.repair()
                if now - self._watched_at > relay.WATCH_AGAIN_S:
                    self._watched_at = now
                    await self._watch_elsewhere(self.board.user_ids())
                if now > self._sweep_at:
                    self._sweep_at = now + SWEEP_S * random.uniform(0.8, 1.2)
                    await self._janitor.sweep(self._living)
            except BrokerError as error:
                self._repair_wanted = True
                _log.warning("presence may be out of date: %s", error)

    # --- frames ---

    async def answer(self, session: "Session", request: frames.PresenceRequest) -> None:
        """Answer a frame about presence."""
        if not (self._edge.live.connected and self._edge.asking.connected):
            raise Unavailable("NATS does not answer")
        match request:
            case frames.PresenceSet():
                known = await self.here.choose(session, request.status, request.text)
                views = {session.user.user_id: presence.own_view(known)}
            case frames.PresenceUnsubscribe():
                self.board.unwatch(session, [subjects.encode(each) for each in request.users])
                views = {}
            case frames.PresenceSubscribe():
                views = await self._subscribe(session, request)
        session.push(frames.Result(id=request.id, presence=_fields(views)))

    async def _subscribe(
        self, session: "Session", request: frames.PresenceSubscribe
    ) -> dict[str, View]:
        tokens = {subjects.encode(user, "users"): user for user in request.users}
        watched = set(self.board.watched_by(session))
        if len(watched | tokens.keys()) > MOST_WATCHED:
            raise Failure("invalid", f"users: at most {MOST_WATCHED} can be watched at once")
        allowed = [user for token, user in tokens.items() if token in watched]
        asked = [user for token, user in tokens.items() if token not in watched]
        allowed += await self._known_to(session.user.user_id, asked)
        await self._watch_elsewhere(allowed)
        return await self.board.watch(session, allowed)

    async def _watch_elsewhere(self, users: Iterable[str]) -> None:
        """Have the relay know of those who are users of other sites, before they are looked up."""
        sites = self._edge.sites
        if sites is None or not sites.peers:
            return
        elsewhere = [user for user in users if sites.names.site_of(user) is not None]
        if elsewhere:
            self._watched_at = self._edge.now()
            try:
                await self._edge.ask_relay("watch", relay.Watch(users=elsewhere), relay.Watched)
            except (Failure, BrokerError) as error:
                _log.info("presence at other sites is not known: %s", error)

    async def _known_to(self, user: str, others: list[str]) -> list[str]:
        """Those who share a chat with the user, and the user.

        What the log has needs no question, and is known before MongoDB has it.
        """
        dms = {subjects.dm(user, other): other for other in others}
        written = {each.subject for each in await self._edge.log.last(list(dms))}
        left = [other for dm, other in dms.items() if dm not in written and other != user]
        shared: set[str] = set()
        if left:
            question = directory.Shares(user=user, others=left)
            answer = await self._edge.ask_directory("shares", question, directory.Shared)
            shared = set(answer.users)
        return [
            other for dm, other in dms.items() if dm in written or other in shared or other == user
        ]


def _fields(views: dict[str, View]) -> dict[str, dict[str, object]]:
    return {user: view._asdict() for user, view in views.items()}
