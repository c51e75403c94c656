"""What the bench says at the end: a table for people, a JSON file for everything else."""

import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from .goals import FIGURES, shown
from .scenario import OTHERS, Outcome, median

BUSY_CORES = 0.1
METHOD = "Latency counts from the time at which a message was due; see docs/bench.md."


class Report(Struct, kw_only=True):
    """All runs of all scenarios, and where they were measured."""

    date: str
    quick: bool
    machine: dict[str, Any]
    method: str = METHOD
    runs: dict[str, list[Outcome]] = {}
    failures: dict[str, list[str]] = {}

    def values(self, metric: str) -> list[float]:
        """What the runs found for a metric."""
        outcomes = [outcome for runs in self.runs.values() for outcome in runs]
        return [one.metrics[metric] for one in outcomes if metric in one.metrics]

    def passed(self) -> bool:
        """Whether nothing failed and every goal that was measured is reached by the median."""
        verdicts = [
            figure.reached(median(values))
            for figure in FIGURES
            if (values := self.values(figure.metric))
        ]
        return not self.failures and False not in verdicts


def new_report(machine: dict[str, Any], *, quick: bool) -> Report:
    """A report of now."""
    now = datetime.datetime.now(datetime.UTC)
    return Report(date=now.strftime("%Y-%m-%dT%H%M%SZ"), quick=quick, machine=machine)


def write_json(report: Report, folder: Path) -> Path:
    """Write the report as `<date>.json` and return its path."""
    path = folder / f"{report.date}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return path


def show(report: Report, console: Console) -> None:
    """Print the figures, CPU by process, what was noted and what failed."""
    console.print(_figures(report))
    if any(one.cpu_us for runs in report.runs.values() for one in runs):
        console.print(_processors(report))
    for name, runs in report.runs.items():
        notes = ", ".join(
            f"{key} {_noted(note)}" for key, note in runs[-1].notes.items() if note != ""
        )
        console.print(f"{name} (last run): {notes}", style="dim", markup=False, highlight=False)
        others = median([_number(one.notes.get(OTHERS, 0.0)) for one in runs])
        if others > BUSY_CORES:
            text = (
                f"{name}: the machine was busy with other things ({others:g} cores); measure again"
            )
            console.print(text, style="yellow", markup=False, highlight=False)
    for name, reasons in report.failures.items():
        for reason in reasons:
            console.print(f"{name} failed: {reason}", style="red", markup=False, highlight=False)


def _noted(note: float | str) -> str:
    return note if isinstance(note, str) else shown(note)


def _number(note: float | str) -> float:
    return 0.0 if isinstance(note, str) else note


def _figures(report: Report) -> Table:
    machine = report.machine
    where = (
        f"{machine.get('cores')} cores for server and load generator, {machine.get('processor')}"
    )
    table = Table(
        title=where, caption="quick: short runs, for a first look" if report.quick else ""
    )
    table.add_column("figure", no_wrap=True)
    table.add_column("median", justify="right", style="bold", no_wrap=True)
    table.add_column("runs", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("")
    verdict = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: ""}
    for figure in FIGURES:
        if values := report.values(figure.metric):
            middle = median(values)
            spread = f"{shown(min(values))} to {shown(max(values))}" if len(values) > 1 else ""
            passed = verdict[figure.reached(middle)]
            goal = figure.goal_text
            table.add_row(figure.label, shown(middle), spread, figure.unit, goal, passed)
    return table


def _processors(report: Report) -> Table:
    measured = {name: runs for name, runs in report.runs.items() if any(one.cpu_us for one in runs)}
    names = sorted({name for runs in measured.values() for one in runs for name in one.cpu_us})
    table = Table(title="server CPU per operation, in microseconds, by process")
    table.add_column("process", no_wrap=True)
    for scenario in measured:
        table.add_column(scenario, justify="right")
    for name in names:
        row = [median([one.cpu_us.get(name, 0.0) for one in runs]) for runs in measured.values()]
        table.add_row(name, *(shown(round(value, 2)) for value in row))
    return table
