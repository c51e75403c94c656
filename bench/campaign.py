"""A plan of measurements and its progress bar, with a new stack for each run (or a given one)."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from . import machine
from .process import CpuMeter, machine_busy_s
from .report import BUSY_CORES, new_report
from .runner import Job, supervise
from .scenario import OTHERS, BenchError, Scenario, Target
from .stack import Stack

START_S = 3.0
QUIET_S = 3


class Campaign:
    """Runs scenarios `runs` times; one that fails is reported, and the next gets a new stack.

    For `patience_s` in all it waits for a quiet machine before a scenario, and runs again on a new
    stack what others disturbed nevertheless.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        target: Target | None,
        console: Console,
        *,
        runs: int,
        quick: bool,
        patience_s: float,
        folder: Path,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._scenarios = scenarios
        self._target = target
        self._runs = runs
        self._quick = quick
        self._patience_s = patience_s
        self._folder = folder
        self.report = new_report(machine.describe(folder), quick=quick)
        self._prefix = ""
        self._kept = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=1,
        )
        total = runs * (START_S + sum(self._expected_s(one) for one in scenarios))
        self._bar = self._progress.add_task("starting", total=total)

    async def run(self) -> None:
        """Run everything; `report` has what was found so far."""
        with self._progress:
            for run in range(self._runs):
                self._prefix = f"run {run + 1} of {self._runs}: " if self._runs > 1 else ""
                waiting = list(self._scenarios)
                while waiting:
                    try:
                        await self._on_one_stack(waiting)
                    except BenchError as error:
                        self._failed(waiting.pop(0), str(error))

    async def _on_one_stack(self, waiting: list[Scenario]) -> None:
        """Take scenarios from `waiting` until one fails, was disturbed or wants another stack."""
        begun = self._begin("starting a stack")
        without = waiting[0].without
        async with self._stack(without) as target:
            self._progress.update(self._bar, completed=begun + START_S)
            if target.supervisor:
                self.report.machine["servers"] = machine.server_versions(target.supervisor)
            good = True
            while waiting and good and waiting[0].without == without:
                begin_s = asyncio.get_running_loop().time()
                await self._quiet(waiting[0], target)
                good = await self._measure(waiting, target)
                if not good:
                    self._patience_s -= asyncio.get_running_loop().time() - begin_s

    async def _quiet(self, scenario: Scenario, target: Target) -> None:
        """Wait, as long as patience lasts, until nobody else has used the machine for a while."""
        quiet, cpu = 0, CpuMeter(target.supervisor)
        while quiet < QUIET_S and self._patience_s > 0:
            self._say(scenario, "waiting for a quiet machine")
            cpu.start()
            busy_s = machine_busy_s()
            await asyncio.sleep(1)
            others_s = machine_busy_s() - busy_s - sum(cpu.used_s().values())
            quiet = quiet + 1 if others_s < BUSY_CORES else 0
            self._patience_s -= quiet == 0

    async def _measure(self, waiting: list[Scenario], target: Target) -> bool:
        """Run the first of `waiting`; false when the next should be run on a new stack."""
        scenario = waiting[0]
        job = Job(scenario=scenario.name, target=target, quick=self._quick)
        expected_s = self._expected_s(scenario)
        async with self._part(scenario.title, expected_s):
            try:
                outcome = await supervise(
                    job, lambda text: self._say(scenario, text), timeout_s=120 + 5 * expected_s
                )
            except BenchError as error:
                self._failed(waiting.pop(0), f"{error}{self._kept_logs(scenario, target)}")
                return False
        others = outcome.notes.get(OTHERS, 0.0)
        if isinstance(others, float) and others > BUSY_CORES and self._patience_s > 0:
            self._progress.advance(self._bar, -expected_s)
            return False
        self.report.runs.setdefault(scenario.name, []).append(outcome)
        del waiting[0]
        return True

    def _failed(self, scenario: Scenario, reason: str) -> None:
        self.report.failures.setdefault(scenario.name, []).append(reason)

    def _kept_logs(self, scenario: Scenario, target: Target) -> str:
        """Copy the logs of the bench's own stack, which goes with its folder, and say where to."""
        if target.logs is None or not Path(target.logs).is_dir():
            return ""
        self._kept += 1
        kept = self._folder / f"{self.report.date}-{scenario.name}-logs-{self._kept}"
        shutil.copytree(target.logs, kept)
        return f" (logs: {kept})"

    def _say(self, scenario: Scenario, text: str) -> None:
        self._progress.update(self._bar, description=f"{self._prefix}{scenario.title}: {text}")

    @contextlib.asynccontextmanager
    async def _stack(self, without: tuple[str, ...]) -> AsyncIterator[Target]:
        if self._target is not None:
            yield self._target
        else:
            async with Stack(self._folder, without=without) as target:
                yield target

    def _begin(self, title: str) -> float:
        """Show the title; return how far the bar is."""
        self._progress.update(self._bar, description=f"{self._prefix}{title}")
        return self._progress.tasks[0].completed

    @contextlib.asynccontextmanager
    async def _part(self, title: str, expected_s: float) -> AsyncIterator[None]:
        """Move the bar by `expected_s` seconds while this part lasts, however long it takes."""
        begin = self._begin(title)

        async def tick() -> None:
            while self._progress.tasks[0].completed + 1 < begin + expected_s:
                await asyncio.sleep(1)
                self._progress.advance(self._bar, 1)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
        self._progress.update(self._bar, completed=begin + expected_s)

    def _expected_s(self, scenario: Scenario) -> float:
        return scenario.expected_s[1 if self._quick else 0]
