"""The lease on a machine number for Snowflake ids, in the bucket `machines`.

Two keys for a number: `<n>` is the lease itself, created only if absent, with a TTL; `high.<n>`
has no TTL and records up to which time ids may have been made with that number. Whoever leases it
next starts above, so that ids stay unique even when the clock has stepped back in between.
"""

import asyncio
import logging
import random
from uuid import uuid4

import msgspec
from msgspec import Struct

from .bus import Bus
from .errors import BrokerError, Conflict, Unavailable
from .log import ApiError, api_error
from .snowflake import MACHINES, Snowflake, unix_ms

TTL_S = 60
RENEW_S = 10.0
RETRY_S = 1.0
RECORD_AHEAD_MS = 30_000
TIMEOUT_S = 2.0

_STREAM = "KV_machines"
_KEY = "$KV.machines."
_WRONG_LAST = (10071, 10164)

_log = logging.getLogger("hikyaku.machine")


class _PubAck(Struct):
    seq: int = 0
    error: ApiError | None = None


class _Message(Struct):
    data: bytes = b""
    seq: int = 0


class _MessageAnswer(Struct):
    message: _Message | None = None
    error: ApiError | None = None


class MachineLease:
    """Holds one machine number and the generator that uses it. Use as a context manager."""

    def __init__(self, bus: Bus):
        self._bus = bus
        self._owner = uuid4().hex.encode()
        self._machine = 0
        self._revision = 0
        self._renewed = 0.0
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
            await self._put(f"high.{self._machine}", b"%d" % self.ids.last_ms)
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
            recorded = await self._last(f"high.{machine}")
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
            present = await self._last(str(self._machine))
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
        await self._put(f"high.{self._machine}", b"%d" % ceiling_ms)
        self.ids.ceiling_ms = ceiling_ms

    async def _put_lease(self, *, ttl_s: int, revision: int) -> None:
        header = b"Nats-TTL: %ds\r\nNats-Expected-Last-Subject-Sequence: %d\r\n" % (ttl_s, revision)
        self._revision = await self._put(str(self._machine), self._owner, header)

    async def _put(self, key: str, value: bytes, header: bytes = b"") -> int:
        block = b"NATS/1.0\r\n%b\r\n" % header if header else b""
        reply = await self._bus.request(_KEY + key, value, timeout_s=TIMEOUT_S, header=block)
        ack = msgspec.json.decode(reply.data, type=_PubAck)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code in _WRONG_LAST:
            raise Conflict(0)
        raise api_error(ack.error)

    async def _last(self, key: str) -> _Message | None:
        request = msgspec.json.encode({"last_by_subj": _KEY + key})
        subject = f"$JS.API.STREAM.MSG.GET.{_STREAM}"
        reply = await self._bus.request(subject, request, timeout_s=TIMEOUT_S)
        answer = msgspec.json.decode(reply.data, type=_MessageAnswer)
        if answer.error is not None:
            if answer.error.code == 404:
                return None
            raise api_error(answer.error)
        return answer.message
