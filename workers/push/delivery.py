"""Sends what is due to one provider: so many at once, with a breaker for each server.

A push that fails is due again after a growing time, until its message is too old. What became of it
is written before anything else is done with it; see `store.pushes` for what a kill in between does.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from broker.errors import BrokerError
from broker.following import Following
from broker.metrics import Spread
from store.errors import StoreError
from store.pushes import Pushes, PushRecord

from .breaker import Breaker
from .provider import Gone, Later, Outcome, Provider, Push, Refused, Sent, Unfit

LEASE_S = 60.0
"""What a killed worker had in hand is sent by another one after this."""

AT_ONCE = 100
POLL_S = 1.0
DRAIN_S = 0.8
"""`hikyaku up` gives a worker 1.5 s to stop."""

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 3.0
SERVERS = 1000
SERVER_SHARE = 4
"""One of many servers gets at most a quarter of the slots."""

BUSY_S = 0.5

RESULTS = ("sent", "gone", "refused", "again", "expired", "dropped", "failed")

Prepared = Push | str
"""A push, or why it is not sent after all."""

Prepare = Callable[[list[PushRecord]], Awaitable[dict[str, Prepared]]]
"""What each push says, by its key."""

OnGone = Callable[[PushRecord, Push, Gone], Awaitable[None]]
"""Forgets a device that is gone."""

_log = logging.getLogger("hikyaku.notify")


class _Server:
    """One server of a provider."""

    __slots__ = ("breaker", "sending")

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.sending = 0


class Delivery:
    """One provider's. `run` until cancelled; `wake` when there is something new."""

    def __init__(
        self,
        provider: Provider,
        pushes: Pushes,
        prepare: Prepare,
        on_gone: OnGone,
        *,
        concurrency: int,
        timeout_s: float,
        following: Following | None = None,
    ):
        self.provider = provider
        self._pushes = pushes
        self._prepare = prepare
        self._on_gone = on_gone
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._following = following
        self._lease_s = LEASE_S
        self._servers: OrderedDict[str, _Server] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.results = dict.fromkeys(RESULTS, 0)
        self.seconds = Spread()

    def wake(self) -> None:
        """Look at once."""
        self._changed.set()

    async def run(self) -> None:
        """Claim and send; backs off while MongoDB does not answer."""
        pause_s = FIRST_RETRY_S
        try:
            while True:
                self._changed.clear()
                try:
                    claimed = await self._begin()
                    pause_s = FIRST_RETRY_S
                except Exception as error:
                    # What was claimed is due again when its lease ends.
                    expected = isinstance(error, StoreError | BrokerError)
                    _log.warning(
                        "%s: next try in %g s: %s",
                        self.provider.name,
                        pause_s,
                        error,
                        exc_info=not expected,
                    )
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, LAST_RETRY_S)
                    continue
                if not claimed:
                    await self._wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        """Let what is on its way be answered, but not for long: it would be sent again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _begin(self) -> int:
        """Claim as many as may be sent now and start them; how many were claimed."""
        wanted = min(self._concurrency - len(self._tasks), AT_ONCE)
        if self.provider.one_server and self._servers:
            (server,) = self._servers.values()
            if server.breaker.open:
                wanted = min(wanted, 1) if not server.breaker.wait_s(time.monotonic()) else 0
        if wanted <= 0:
            return 0
        begun = time.monotonic()
        claimed = await self._pushes.claim(self.provider.name, wanted, self._lease_s)
        if not claimed:
            return 0
        prepared = await self._prepare(claimed)
        for each in claimed:
            task = asyncio.create_task(self._handle(each, prepared[each.key], begun))
            self._tasks.add(task)
            task.add_done_callback(self._over)
        return len(claimed)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease ends, and it is sent again.
            self.results["failed"] += 1
            _log.error("%s: a push failed", self.provider.name, exc_info=error)

    async def _handle(self, record: PushRecord, push: Prepared, begun: float) -> None:
        if isinstance(push, str):
            await self._kept(lambda: self._pushes.done(record.key, push))
            self.results["expired" if push == "expired" else "dropped"] += 1
            return
        try:
            server = self._server(self.provider.origin(push.address))
        except Unfit as error:
            await self._record(record, push, Refused(str(error)))
            return
        wait_s = server.breaker.wait_s(time.monotonic())
        if not self.provider.one_server and server.sending >= self._share:
            wait_s = max(wait_s, BUSY_S)
        if wait_s:
            wait_s *= random.uniform(1.0, 1.5)
            await self._kept(lambda: self._pushes.again(record.key, wait_s, tried=False))
            return
        if time.monotonic() - begun > self._lease_s - self._timeout_s:
            return  # This process was paused: another one may have it by now.
        begin = time.monotonic()
        outcome = await self._send(server, push)
        if self._following is not None:
            self._following.step(
                "pushed",
                record.message_id,
                trace=self._following.trace(str(record.message_id)),
                took_s=time.monotonic() - begin,
                seq=record.seq,
                provider=self.provider.name,
                device=record.device,
                result=type(outcome).__name__.lower(),
            )
        await self._record(record, push, outcome)

    @property
    def _share(self) -> int:
        return max(1, self._concurrency // SERVER_SHARE)

    def _server(self, origin: str) -> _Server:
        server = self._servers.pop(origin, None) or _Server()
        self._servers[origin] = server
        if len(self._servers) > SERVERS:
            self._servers.popitem(last=False)
        return server

    async def _send(self, server: _Server, push: Push) -> Outcome:
        server.breaker.begin()
        server.sending += 1
        begun = time.monotonic()
        try:
            outcome = await self.provider.send(push)
        except asyncio.CancelledError:
            server.breaker.unclear()
            raise
        except Exception:
            _log.exception("%s: a push was not sent", self.provider.name)
            outcome = Later("failed here", fault=True)
        finally:
            server.sending -= 1
            self.seconds.add(time.monotonic() - begun)
        if isinstance(outcome, Later) and outcome.fault:
            was_open = server.breaker.open
            server.breaker.failed(time.monotonic())
            if server.breaker.open and not was_open:
                _log.error("%s is left alone for a while: %s", self.provider.name, outcome.reason)
        else:
            server.breaker.succeeded()
        return outcome

    async def _record(self, record: PushRecord, push: Push, outcome: Outcome) -> None:
        name = self.provider.name
        match outcome:
            case Sent():
                await self._kept(lambda: self._pushes.done(record.key, "sent"))
                self.results["sent"] += 1
            case Gone():
                await self._kept(lambda: self._on_gone(record, push, outcome))
                await self._kept(lambda: self._pushes.done(record.key, f"gone: {outcome.reason}"))
                self.results["gone"] += 1
            case Refused():
                reason = outcome.reason
                _log.error("%s refused a push to %s: %s", name, record.device, reason)
                await self._kept(lambda: self._pushes.done(record.key, f"refused: {reason}"))
                self.results["refused"] += 1
            case Later():
                await self._later(record, outcome)

    async def _later(self, record: PushRecord, outcome: Later) -> None:
        pause_s = pause_after(record.attempts)
        if outcome.after_s is not None:
            pause_s = outcome.after_s * random.uniform(1.0, 1.1)
        if time.time() + pause_s > record.until_ms / 1000:
            _log.warning("%s: a push was given up: %s", self.provider.name, outcome.reason)
            await self._kept(lambda: self._pushes.done(record.key, f"expired: {outcome.reason}"))
            self.results["expired"] += 1
            return
        _log.info("%s: next try in %.1f s: %s", self.provider.name, pause_s, outcome.reason)
        await self._kept(lambda: self._pushes.again(record.key, pause_s))
        self.results["again"] += 1

    async def _kept(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write until MongoDB has it: while it is away nobody else can claim the push either."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                return await write()
            except StoreError as error:
                _log.warning("not recorded, next try in %g s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_RETRY_S)

    @property
    def in_flight(self) -> int:
        """Pushes on their way now."""
        return len(self._tasks)

    @property
    def broken(self) -> int:
        """Servers that are left alone for a while."""
        return sum(each.breaker.open for each in self._servers.copy().values())


def pause_after(attempts: int) -> float:
    """A growing pause, with jitter, so that not all who failed come back together."""
    most_s = min(FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 20), LAST_PAUSE_S)
    return most_s * random.uniform(0.5, 1.0)
