"""The lease on a machine number for Snowflake ids, in the bucket `machines`.

Two keys for a number: `<n>` is the lease itself, created only if absent, with a TTL; `high.<n>`
has no TTL and records up to which time ids may have been made with that number. Whoever leases it
next starts above, so that ids stay unique even when the clock has stepped back in between. Both are
written by compare-and-set, the lease first, so that a holder that slept through the end of its
lease can neither make more ids nor spoil the record of the next one.
"""

import asyncio
import logging
import random
from uuid import uuid4

from .bucket import Bucket
from .bus import Bus
from .errors import BrokerError, Conflict, Unavailable
from .snowflake import MACHINES, Snowflake, unix_ms

TTL_S = 60
RENEW_S = 10.0
RETRY_S = 1.0
RECORD_AHEAD_MS = 30_000
BUCKET = "machines"

_log = logging.getLogger("hikyaku.machine")


class MachineLease:
    """Holds one machine number and the generator that uses it. Use as a context manager.

    `numbers` are the first and last that it may be; any, if none are given.
    """

    def __init__(self, bus: Bus, numbers: tuple[int, int] | None = None):
        first, last = numbers or (0, MACHINES - 1)
        self._numbers = range(first, last + 1)
        self._bucket = Bucket(bus, BUCKET)
        self._owner = b""
        self._machine = 0
        self._revision = 0
        self._high_revision = 0
        self._task: asyncio.Task[None] | None = None
        self.ids: Snowflake

    async def __aenter__(self) -> "MachineLease":
        await self._acquire()
        self._task = asyncio.create_task(self._keep(), name="machine lease")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.ids.ceiling_ms = 0
        try:
            await self._extend(ttl_s=1, high_ms=self.ids.last_ms)
        except BrokerError as error:
            _log.info("machine lease not returned, it ends by itself in %d s: %s", TTL_S, error)

    @property
    def left_s(self) -> float:
        """For how long ids can still be made if the lease cannot be renewed."""
        return max(0.0, (self.ids.ceiling_ms - unix_ms()) / 1000)

    @property
    def machine(self) -> int:
        """The number."""
        return self._machine

    async def _acquire(self) -> None:
        for machine in random.sample(self._numbers, len(self._numbers)):
            # Another one each time: a lease whose answer was lost is nobody's and ends by itself.
            owner = uuid4().hex.encode()
            try:
                revision = await self._bucket.put(str(machine), owner, revision=0, ttl_s=TTL_S)
            except Conflict:
                continue
            recorded = await self._bucket.last(f"high.{machine}")
            # All at once: had reading failed, number and generator would still be the old ones.
            self._machine, self._owner, self._revision = machine, owner, revision
            self._high_revision = recorded.seq if recorded else 0
            floor_ms = int(recorded.data) if recorded else 0
            self.ids = Snowflake(machine, floor_ms=floor_ms)
            await self._raise_ceiling()
            return
        raise Unavailable(
            f"all {len(self._numbers)} machine numbers are leased; stop an edge or wait"
        )

    async def _keep(self) -> None:
        pause_s = RENEW_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._renew()
                pause_s = RENEW_S
            except BrokerError as error:
                _log.warning("machine lease not renewed: %s", error)
                pause_s = RETRY_S

    async def _renew(self) -> None:
        try:
            await self._raise_ceiling()
        except Conflict:
            _log.warning("machine lease %d was lost; taking another", self._machine)
            self.ids.ceiling_ms = 0
            await self._acquire()

    async def _raise_ceiling(self) -> None:
        """Extend the lease, and then what may be made. Raises `Conflict` if another one has it."""
        ids = self.ids
        ceiling_ms = max(max(unix_ms(), ids.last_ms) + RECORD_AHEAD_MS, ids.ceiling_ms)
        await self._extend(ttl_s=TTL_S, high_ms=ceiling_ms)
        ids.ceiling_ms = ceiling_ms

    async def _extend(self, *, ttl_s: int, high_ms: int) -> None:
        try:
            await self._put(ttl_s, high_ms)
        except Conflict:
            if not await self._still_ours():
                raise
            await self._put(ttl_s, high_ms)

    async def _put(self, ttl_s: int, high_ms: int) -> None:
        self._revision = await self._bucket.put(
            str(self._machine), self._owner, revision=self._revision, ttl_s=ttl_s
        )
        # Whoever had the number in between has written here, and this fails.
        self._high_revision = await self._bucket.put(
            f"high.{self._machine}", b"%d" % high_ms, revision=self._high_revision
        )

    async def _still_ours(self) -> bool:
        """Whether the conflict was with ourselves: a write whose answer was lost."""
        lease = await self._bucket.last(str(self._machine))
        high = await self._bucket.last(f"high.{self._machine}")
        if lease is None or lease.data != self._owner:
            return False
        self._revision, self._high_revision = lease.seq, high.seq if high is not None else 0
        return True
