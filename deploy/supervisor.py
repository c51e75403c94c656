"""Starts services in order, keeps them running, stops them in order. See `docs/operations.md`.

A service that ends is started again after a delay that doubles, and that is forgotten once it was
healthy for a while. Before its first readiness there is no second try: what cannot start now is
reported and everything is stopped.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import NoReturn

from .errors import StartError
from .process import Child
from .service import (
    AllReady,
    Died,
    Event,
    Failed,
    NotReady,
    Ready,
    Report,
    Service,
    Starting,
    Stopped,
    Stopping,
    Waiting,
    describe_exit,
)

STOP_S = 9.5
PROBE_INTERVAL_S = 0.05
PATIENCE_S = 8.0
"""A start that takes no longer than this says nothing of what it waits for."""

LOOK_S = 0.5
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 15.0
HEALTHY_S = 30.0
DIED_LINES = 5
FAILED_LINES = 20


def backoff_s(failures: int) -> float:
    """Delay before the next start, after `failures` earlier ones in a row."""
    return float(min(FIRST_DELAY_S * 2 ** min(failures, 16), MAX_DELAY_S))


class Supervisor:
    """Runs services until it is asked to stop. `keep_fds` stay open in every child."""

    def __init__(
        self,
        services: Iterable[Service],
        *,
        log_dir: Path,
        report: Report,
        keep_fds: tuple[int, ...] = (),
    ):
        self._report = report
        self._started = monotonic()
        self._keepers = {
            service.name: _Keeper(service, log_dir / f"{service.name}.log", keep_fds, self._saw)
            for service in services
        }
        self._not_ready = set(self._keepers)
        for keeper in self._keepers.values():
            service = keeper.service
            keeper.needed = [self._keepers[name] for name in service.after]
            for name in {*service.after, *service.uses}:
                self._keepers[name].users.append(keeper)

    async def run(self, stop: asyncio.Event, kill: asyncio.Event) -> None:
        """Run everything until `stop`; then stop it in order, or at once when `kill` is set.

        Raises `StartError` when a service cannot start. Whatever happens, no child remains.
        """
        self._started = monotonic()
        asked = asyncio.create_task(stop.wait())
        tasks = [asyncio.create_task(each.run()) for each in self._keepers.values()]
        try:
            await asyncio.wait({asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await _cancel(asked, *tasks)
            await self._stop(kill)

    def _saw(self, event: Event) -> None:
        self._report(event)
        if isinstance(event, Ready) and not event.again:
            self._not_ready.discard(event.name)
            if not self._not_ready:
                self._report(AllReady(after_s=monotonic() - self._started))

    async def _stop(self, kill: asyncio.Event) -> None:
        deadline = monotonic() + STOP_S
        await asyncio.gather(*(each.stop(deadline, kill) for each in self._keepers.values()))


class _Keeper:
    """Keeps one service running."""

    def __init__(self, service: Service, log: Path, keep_fds: tuple[int, ...], report: Report):
        self.service = service
        self.needed: list[_Keeper] = []
        self.users: list[_Keeper] = []
        self.ready = asyncio.Event()
        self._stopped = asyncio.Event()
        self._log = log
        self._keep_fds = keep_fds
        self._report = report
        self._child: Child | None = None
        self._missing = "no answer yet"

    async def run(self) -> NoReturn:
        for each in self.needed:
            await each.ready.wait()
        failures = 0
        while True:
            started = monotonic()
            child = await self._start()
            how = await self._until_ready(child)
            if not how:
                self._say_ready(monotonic() - started)
                started = monotonic()
                how = describe_exit(await child.wait())
                if monotonic() - started >= HEALTHY_S:
                    failures = 0
            self._child = None
            if not self.ready.is_set():
                self._report(Failed(name=self.service.name))
                raise StartError(self._failure(how, child))
            delay_s = backoff_s(failures)
            failures += 1
            lines = child.last_lines(DIED_LINES)
            self._report(Died(name=self.service.name, how=how, delay_s=delay_s, lines=lines))
            await asyncio.sleep(delay_s)

    async def stop(self, deadline: float, kill: asyncio.Event) -> None:
        for each in self.users:
            await each._stopped.wait()
        child, self._child = self._child, None
        if child is not None:
            self._report(Stopping(name=self.service.name))
            child.send_signal(self.service.stop_signal)
            grace_s = max(0.0, min(self.service.stop_s, deadline - monotonic()))
            ended = await self._ends(child, grace_s, kill)
            if not ended:
                await child.kill()
            self._report(Stopped(name=self.service.name, killed=not ended))
        self._stopped.set()

    async def _start(self) -> Child:
        service = self.service
        self._child = child = await Child.start(
            service.command, self._log, env=service.env, keep_fds=self._keep_fds
        )
        self._report(Starting(name=service.name, pid=child.pid))
        return child

    async def _until_ready(self, child: Child) -> str:
        """Empty when ready, else how it failed, and then the process has ended."""
        exited = asyncio.create_task(child.wait())
        probing = asyncio.create_task(self._probe())
        looking = asyncio.create_task(self._look(child))
        try:
            done, _ = await asyncio.wait(
                {exited, probing},
                timeout=self.service.ready_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if exited in done:
                return describe_exit(exited.result())
            if probing in done:
                probing.result()
                return ""
        finally:
            await _cancel(exited, probing, looking)
        await child.kill()
        why = child.waits().removeprefix("not ready: ") or self._missing
        return f"was not ready within {self.service.ready_s:g} s: {why}"

    async def _probe(self) -> None:
        while True:
            try:
                return await self.service.probe()
            except NotReady as why:
                self._missing = str(why)
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _look(self, child: Child) -> None:
        """Tell what the process says that it waits for."""
        said = ""
        await asyncio.sleep(PATIENCE_S)
        while True:
            why = child.waits()
            if why and why != said:
                self._report(Waiting(name=self.service.name, why=why))
                said = why
            await asyncio.sleep(LOOK_S)

    def _say_ready(self, after_s: float) -> None:
        again = self.ready.is_set()
        self.ready.set()
        self._report(Ready(name=self.service.name, after_s=after_s, again=again))

    def _failure(self, how: str, child: Child) -> str:
        lines = "".join(f"\n  {line}" for line in child.last_lines(FAILED_LINES))
        said = f"; the last lines of {self._log}:{lines}" if lines else f"; see {self._log}"
        return f"{self.service.name} {how}{said}"

    async def _ends(self, child: Child, grace_s: float, kill: asyncio.Event) -> bool:
        ended = asyncio.create_task(child.wait())
        killed = asyncio.create_task(kill.wait())
        try:
            await asyncio.wait(
                {ended, killed}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            return ended.done()
        finally:
            await _cancel(ended, killed)


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
