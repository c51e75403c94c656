"""One process of the worker `relay` has the links; others wait, to take over when it ends.

A key in the bucket `links` says which, with a TTL. Who holds it renews it; who could not for that
long, by its own clock, stops before another one begins. A process that was paused meanwhile finds
out when it is about to store something (`check`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from broker import links
from broker.bucket import Bucket
from broker.bus import Bus
from broker.errors import BrokerError, Conflict, Unavailable

LEASE_S = 4
RENEW_S = 1.0
LOOK_S = 0.5

_log = logging.getLogger("hikyaku.relay")


class Lead:
    """Whether this process has the links."""

    def __init__(self, bus: Bus):
        self._bucket = Bucket(bus, links.BUCKET)
        self._value = uuid4().hex.encode()
        self._revision = 0
        self._until = 0.0

    def check(self) -> None:
        """Raises `Unavailable` when another process may have them by now."""
        if _now() >= self._until:
            raise Unavailable("this process does not have the links any more")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` whenever and as long as this process has the links, until cancelled."""
        waited = False
        while True:
            try:
                won = await self._take()
            except BrokerError as error:
                _log.info("it is not known which process has the links: %s", error)
                won = False
            if not won:
                if not waited:
                    _log.info("relay is ready to take over the links from another process")
                waited = True
                await asyncio.sleep(LOOK_S)
                continue
            waited = False
            try:
                await self._while_led(work)
            finally:
                await self._give_back()
            _log.warning("another process may have the links now; waiting for them")

    async def _while_led(self, work: Callable[[], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work())
        keeping = asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, keeping):
                task.cancel()
            await asyncio.wait({working, keeping})

    async def _take(self) -> bool:
        began = _now()
        there = await self._bucket.last(links.LEAD)
        if there is not None and there.data not in (b"", self._value):
            return False
        try:
            await self._put(there.seq if there else 0, began)
        except Conflict:
            return False
        return True

    async def _keep(self) -> None:
        """Renew, until it is too late."""
        while True:
            await asyncio.sleep(RENEW_S)
            began = _now()
            try:
                async with asyncio.timeout(max(0.0, self._until - began)):
                    if not await self._renewed(began):
                        self._until = 0.0
                        return
            except (BrokerError, TimeoutError) as error:
                if _now() + RENEW_S >= self._until:
                    why = str(error) or "this process was asleep, or NATS did not answer"
                    _log.warning("the links could not be kept for %d s: %s", LEASE_S, why)
                    self._until = 0.0
                    return

    async def _renewed(self, began: float) -> bool:
        try:
            await self._put(self._revision, began)
            return True
        except Conflict:
            # The acknowledgement of an earlier one may have been lost: then the value is ours.
            there = await self._bucket.last(links.LEAD)
            if there is None or there.data != self._value:
                return False
            self._revision = there.seq
            return True

    async def _put(self, revision: int, began: float) -> None:
        self._revision = await self._bucket.put(
            links.LEAD, self._value, revision=revision, ttl_s=LEASE_S
        )
        self._until = began + LEASE_S

    async def _give_back(self) -> None:
        self._until = 0.0
        try:
            await self._bucket.purge(links.LEAD, revision=self._revision)
        except Conflict:
            return  # Another process has them.
        except BrokerError as error:
            _log.info("the links are not given back, they are free in %d s: %s", LEASE_S, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
