"""The lease on a machine number for Snowflake ids, in the bucket `machines`.

Two keys for a number: `<n>` is the lease itself, created only if absent, with a TTL; `high.<n>`
has no TTL and records up to which time ids may have been made with that number. Whoever leases it
next starts above, so that ids stay unique even when the clock has stepped back in between.
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
    """Holds one machine number and the generator that uses it. Use as a context manager."""

    def __init__(self, bus: Bus):
        self._bucket = Bucket(bus, BUCKET)
        self._owner = uuid4().hex.encode()
        self._machine = 0
        self._revision = 0
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
        try:
            await self._bucket.put(f"high.{self._machine}", b"%d" % self.ids.last_ms)
            await self._put_lease(ttl_s=1, revision=self._revision)
        except BrokerError as error:
            _log.info("machine lease not returned, it ends by itself in %d s: %s", TTL_S, error)
        self.ids.ceiling_ms = 0

    async def _acquire(self) -> None:
        for machine in random.sample(range(MACHINES), MACHINES):
            self._machine = machine
            try:
                await self._put_lease(ttl_s=TTL_S, revision=0)
            except Conflict:
                continue
            recorded = await self._bucket.last(f"high.{machine}")
            floor_ms = int(recorded.data) if recorded else 0
            self.ids = Snowflake(machine, floor_ms=floor_ms)
            await self._record()
            return
        raise Unavailable(f"all {MACHINES} machine numbers are leased; stop an edge or wait")

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
            await self._put_lease(ttl_s=TTL_S, revision=self._revision)
        except Conflict:
            present = await self._bucket.last(str(self._machine))
            if present is not None and present.data == self._owner:
                self._revision = present.seq
                await self._put_lease(ttl_s=TTL_S, revision=self._revision)
            else:
                _log.warning("machine lease %d was lost; taking another", self._machine)
                self.ids.ceiling_ms = 0
                await self._acquire()
                return
        await self._record()

    async def _record(self) -> None:
        ceiling_ms = max(unix_ms(), self.ids.last_ms) + RECORD_AHEAD_MS
        await self._bucket.put(f"high.{self._machine}", b"%d" % ceiling_ms)
        self.ids.ceiling_ms = ceiling_ms

    async def _put_lease(self, *, ttl_s: int, revision: int) -> None:
        self._revision = await self._bucket.put(
            str(self._machine), self._owner, revision=revision, ttl_s=ttl_s
        )
