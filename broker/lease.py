"""Which edges live: a lease for each start of an edge, in the bucket `edges`.

`<edge>` is the lease, with a TTL; when it ends, JetStream itself tells all on `live.edges.>`.
`known.<edge>` has no TTL: it says that the edge may have left something to clean up, and about when
it was last heard of. An edge that lost its lease, because it or NATS was away for too long, takes a
new id and never comes back under the old one; so whoever cleans up cannot meet it.
"""

import asyncio
import logging
from collections.abc import Callable
from uuid import uuid4

from . import subjects
from .bucket import Bucket
from .bus import Bus
from .config import BrokerConfig
from .errors import BrokerError, Conflict, Refused
from .log import Log, sequence_of
from .mirror import Mirror, Value
from .snowflake import unix_ms
from .streams import Stream, followed_bucket

BUCKET = "edges"
KNOWN = "known."
FOR_SITE = "site-"
"""How the ids begin of leases that the relay holds for other sites' users."""

RENEWALS_A_LEASE = 3
RETRY_S = 0.5
RECORD_MS = 30_000

_LIVE = f"{subjects.LIVE}{BUCKET}."

_log = logging.getLogger("hikyaku.lease")


def stream(config: BrokerConfig) -> Stream:
    """The bucket."""
    return followed_bucket(BUCKET, config, expiries=True)


class EdgeLease:
    """Holds the lease of this edge; `edge` is its id, empty while there is none.

    `on_change` is called with the id before (or empty) and the id now, whenever it was taken. Use
    as a context manager; it does not wait for the lease.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        *,
        lease_s: int,
        on_change: Callable[[str, str], None],
        value: Callable[[], bytes] = lambda: b"1",
    ):
        """`value` is what the lease says, not empty; asked for whenever it is renewed."""
        self._bus = bus
        self._bucket = Bucket(bus, BUCKET)
        self._name = name
        self._lease_s = lease_s
        self._on_change = on_change
        self._value = value
        self._revision = 0
        self._recorded_ms = 0
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.edge = ""
        self.taken = 0

    async def __aenter__(self) -> "EdgeLease":
        self._unlisten = self._bus.on_connect(self._hurry.set)
        self._hurry.set()
        self._task = asyncio.create_task(self._keep(), name="edge lease")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unlisten()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self.edge:
            return
        try:
            await self._bucket.purge(self.edge, revision=self._revision)
        except BrokerError as error:
            _log.info("lease not returned, it ends by itself in %d s: %s", self._lease_s, error)

    async def _keep(self) -> None:
        pause_s = self._lease_s / RENEWALS_A_LEASE
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            try:
                await (self._renew() if self.edge else self._take())
                pause_s = self._lease_s / RENEWALS_A_LEASE
            except BrokerError as error:
                _log.warning("lease %s not renewed: %s", self.edge or "(none)", error)
                pause_s = RETRY_S

    async def _take(self) -> None:
        edge = subjects.edge_id(self._name, uuid4().hex[:12])
        self._revision = await self._bucket.put(
            edge, self._value(), revision=0, ttl_s=self._lease_s
        )
        self.taken += 1
        before, self.edge = self.edge, edge
        self._recorded_ms = 0
        self._on_change(before, edge)
        await self._record()

    async def _renew(self) -> None:
        try:
            self._revision = await self._bucket.put(
                self.edge, self._value(), revision=self._revision, ttl_s=self._lease_s
            )
        except Conflict:
            # The acknowledgement of an earlier renewal may have been lost: then the value is ours.
            present = await self._bucket.last(self.edge)
            if present is None or not present.data:
                _log.warning("lease %s was lost; taking a new id", self.edge)
                lost = self.edge
                await self._take()
                # What was written under the old id, not knowing, may have come after the janitor.
                await self._bucket.put(KNOWN + lost, b"%d" % self._recorded_ms)
                return
            self._revision = present.seq
            self._hurry.set()
            return
        if unix_ms() - self._recorded_ms > RECORD_MS:
            await self._record()

    async def _record(self) -> None:
        now = unix_ms()
        await self._bucket.put(KNOWN + self.edge, b"%d" % now)
        self._recorded_ms = now


class LivingEdges:
    """The edges that hold a lease, followed live; `edge in living`.

    `on_change` is called when one came or went. `refresh` reads them all; before the first one
    nothing is known. Use as a context manager.
    """

    def __init__(self, live: Bus, asking: Bus, on_change: Callable[[], None]):
        self._live = live
        self._log = Log(asking, stream=f"KV_{BUCKET}")
        self._on_change = on_change
        self._mirror = Mirror()

    async def __aenter__(self) -> "LivingEdges":
        self._sid = self._live.subscribe(f"{_LIVE}*", self._on_live)
        await self.refresh()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._live.unsubscribe(self._sid)

    def __contains__(self, edge: object) -> bool:
        return edge in self._mirror.values

    def _on_live(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        assert header is not None
        before = len(self._mirror.values)
        self._mirror.apply(subject[len(_LIVE) :].decode(), Value(sequence_of(header), data))
        if len(self._mirror.values) != before:
            self._on_change()

    async def refresh(self) -> None:
        """Read all leases. Raises `Unavailable`."""
        before = set(self._mirror.values)
        seen = self._mirror.seen
        page = await self._log.snapshot([f"$KV.{BUCKET}.*"])
        if page is None:
            raise Refused(0, "over 1,024 edges hold a lease")
        start = len(f"$KV.{BUCKET}.")
        found = {each.subject[start:]: Value(each.seq, each.data) for each in page.events}
        self._mirror.replace(found, page.up_to or seen)
        if set(self._mirror.values) != before:
            self._on_change()
