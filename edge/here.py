"""What this edge says of its users: a key for each connection, and when someone was last here.

A connection that comes waits a moment in `_arriving`: one read for all that wait tells what each
user is on other devices. Everything that is written is also kept here, so that an edge that lost
its lease writes it all again under its new id (`broker.lease`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from broker import presence, subjects
from broker.bucket import Bucket
from broker.bus import Bus
from broker.errors import BrokerError, Conflict, Unavailable
from broker.key_writer import KeyWriter
from broker.lease import EdgeLease, LivingEdges
from broker.mirror import Value
from broker.presence import NOTHING, Connection, Lost, PresenceReader, Seen, Setting, State
from broker.snowflake import unix_ms

if TYPE_CHECKING:
    from .session import Session

ARRIVALS_A_READ = 200
GATHER_S = 0.01
"""Those who come within this time cost one read and one write together."""

GRACE_S = 0.1
"""A connection counts for this long after its end, so that a device that changes its connection
neither vanishes nor loses what its user chose."""

RETRY_S = 0.5

_encode = msgspec.json.Encoder().encode

_log = logging.getLogger("hikyaku.here")


class _Local:
    """A user with connections here that were made known."""

    __slots__ = ("connections", "setting")

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.setting = NOTHING


class Here:
    """The users of this edge as others shall see them. `run` is its task."""

    def __init__(
        self,
        bus: Bus,
        lease: EdgeLease,
        living: LivingEdges,
        writer: KeyWriter,
        timeout_s: float,
        *,
        on_arrival: Callable[["Session", int], None],
    ):
        """`on_arrival` is called with each session and how many connections its user has then."""
        self._bus = bus
        self._bucket = Bucket(bus, presence.BUCKET)
        self._reader = PresenceReader(bus)
        self._lease = lease
        self._living = living
        self._writer = writer
        self._timeout_s = timeout_s
        self._on_arrival = on_arrival
        self._users: dict[str, _Local] = {}
        self._arriving: dict[Session, asyncio.Future[None]] = {}
        self._recent: dict[str, Setting | None] = {}
        self._work = asyncio.Event()

    # --- coming and going ---

    def joined(self, session: "Session") -> None:
        """A session begins."""
        self._arriving[session] = asyncio.get_running_loop().create_future()
        self._work.set()

    def left(self, session: "Session") -> None:
        """A session ended; one that never began is passed over."""
        arriving = self._arriving.pop(session, None)
        if arriving is not None:
            arriving.cancel()
            return
        asyncio.get_running_loop().call_later(
            GRACE_S, self._gone, session.user.token, session.id, session.unsure_since
        )

    def _gone(self, token: str, connection: str, unsure_since: float | None) -> None:
        local = self._users.get(token)
        if local is None or local.connections.pop(connection, None) is None:
            return
        if not local.connections:
            del self._users[token]
            self._put_parting(token, local.setting)
        if unsure_since is not None:
            lost = Lost(asyncio.get_running_loop().time() - unsure_since)
            key = subjects.lost_key(token, connection)
            self._writer.put(key, _encode(lost), ttl_s=presence.LOST_TTL_S)
        self._writer.put(subjects.connection_key(token, self._lease.edge, connection), b"")

    def leave(self) -> None:
        """The edge stops: nobody is here any more."""
        for token, local in self._users.items():
            self._put_parting(token, local.setting)
            for connection in local.connections:
                key = subjects.connection_key(token, self._lease.edge, connection)
                self._writer.put(key, b"")
        self._users.clear()

    def on_setting(self, token: str, data: bytes) -> None:
        """What a user has chosen, as it was written by any edge."""
        setting = presence.setting(data)
        if token in self._recent:
            self._recent[token] = setting
        local = self._users.get(token)
        if local is not None:
            local.setting = setting

    def moved(self, before: str, now: str) -> None:
        """The edge has a new id: make all connections known under it."""
        middle = f".{before}."
        self._writer.drop(lambda key: middle in key)
        for token, local in self._users.items():
            for connection, value in local.connections.items():
                self._writer.put(subjects.connection_key(token, now, connection), _encode(value))
        self._work.set()

    async def run(self) -> None:
        """Make known who arrives, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER_S)
            batch = list(self._arriving)[:ARRIVALS_A_READ]
            if not batch or not self._lease.edge:
                self._work.clear()
                continue
            try:
                await self._arrive(batch)
            except BrokerError as error:
                _log.warning("%d arrivals wait: %s", len(self._arriving), error)
                await asyncio.sleep(RETRY_S)

    async def _arrive(self, batch: list["Session"]) -> None:
        known: dict[str, State] = {}
        choices: dict[str, int] = {}
        lately: set[str] = set()
        self._recent = dict.fromkeys(each.user.token for each in batch)
        async for part in self._reader.read(self._recent.keys()):
            for token, keys in part.keys.items():
                known[token] = self._elsewhere(keys)
                if "set" in keys and keys["set"].data:
                    choices[token] = keys["set"].seq
                if presence.left_lately((key, value.data) for key, value in keys.items()):
                    lately.add(token)
        for session in batch:
            token = session.user.token
            others = self._others(token, known[token])
            kept = bool(others) or token in lately
            if not kept and token in choices:
                await self._lapse(token, choices.pop(token))
            arrived = self._arriving.pop(session, None)
            if arrived is None:
                continue  # it left while we waited
            local = self._users.get(token)
            if local is None:
                local = self._users[token] = _Local()
                recent = self._recent[token]  # chosen on another edge since we read
                before = known[token].setting if kept else NOTHING
                local.setting = before if recent is None else recent
            status = presence.status_on_arrival(others)
            self._say(token, local, session.id, Connection(since=unix_ms(), status=status))
            arrived.set_result(None)
            self._on_arrival(session, len(known[token].connections) + len(local.connections))

    def _elsewhere(self, keys: Mapping[str, Value]) -> State:
        """What a user's keys say without those of this edge, which knows better what it has."""
        own = f"{self._lease.edge}."
        values = ((key, value.data) for key, value in keys.items() if not key.startswith(own))
        return presence.state(values, self._living)

    def _others(self, token: str, elsewhere: State) -> list[Connection]:
        local = self._users.get(token)
        return [*elsewhere.connections, *(local.connections.values() if local else ())]

    async def _lapse(self, token: str, revision: int) -> None:
        """What a user chose ends when the user comes back after a longer time."""
        try:
            await self._bucket.purge(subjects.setting_key(token), revision=revision)
        except Conflict:
            _log.debug("a newer choice stands")

    # --- choosing ---

    def unless_hidden(self, session: "Session", action: Callable[[], None]) -> None:
        """Do what shows others that the user is there, once it is known that it may be shown."""

        def known(_: object = None) -> None:
            local = self._users.get(session.user.token)
            if local is not None and not local.setting.hidden:
                action()

        arriving = self._arriving.get(session)
        if arriving is None:
            known()
        else:
            arriving.add_done_callback(known)

    async def choose(
        self,
        session: "Session",
        status: presence.Choice,
        text: str | None,
    ) -> State:
        """Set what a user is; returns what it is now, with its other devices."""
        if not self._bus.connected:
            raise Unavailable("NATS does not answer")
        arriving = self._arriving.get(session)
        if arriving is not None:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wait([arriving])
        token = session.user.token
        local = self._users.get(token)
        if local is None or session.id not in local.connections:
            raise Unavailable("the session has ended")
        device, setting = presence.chosen(status, text, local.setting)
        if setting.hidden and not local.setting.hidden:
            self._put_seen(token)
        local.setting = setting
        value = _encode(setting) if setting != NOTHING else b""
        number = self._writer.put(subjects.setting_key(token), value)
        before = local.connections[session.id]
        if before.status != device:
            number = self._say(token, local, session.id, Connection(before.since, device))
        await self._writer.written(number, timeout_s=self._timeout_s)
        async for part in self._reader.read([token]):
            elsewhere = self._elsewhere(part.keys[token])
            return State(self._others(token, elsewhere), setting, elsewhere.seen)
        raise AssertionError("a read gives a part for each user")

    def _say(self, token: str, local: _Local, connection: str, value: Connection) -> int:
        local.connections[connection] = value
        key = subjects.connection_key(token, self._lease.edge, connection)
        return self._writer.put(key, _encode(value))

    def _put_parting(self, token: str, setting: Setting) -> None:
        if setting != NOTHING:
            self._writer.put(subjects.left_key(token), b"1", ttl_s=presence.KEPT_S)
        if not setting.hidden:
            self._put_seen(token)

    def _put_seen(self, token: str) -> None:
        # Before what makes the user vanish, so that whoever watches sees one change.
        data = _encode(Seen(unix_ms()))
        self._writer.put(subjects.seen_key(token), data, ttl_s=presence.SEEN_TTL_S)
