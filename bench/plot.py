"""The report as one picture: latencies, figures against their goals, CPU by process, the kills."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .goals import FIGURES, shown
from .report import Report
from .scenario import median


def write_plot(report: Report, folder: Path) -> Path:
    """Draw the report as `<date>.png` and return its path."""
    figure = Figure(figsize=(14, 10))
    (latency, goals), (processors, kills) = figure.subplots(2, 2)
    _latency(report, latency)
    _goals(report, goals)
    _processors(report, processors)
    _kills(report, kills)
    machine = report.machine
    figure.suptitle(f"Hikyaku, {report.date}: {machine.get('cores')} x {machine.get('processor')}")
    figure.tight_layout()
    path = folder / f"{report.date}.png"
    figure.savefig(path, dpi=110)
    return path


def _curves(report: Report, name: str) -> list[list[float]]:
    return [one.curves[name] for runs in report.runs.values() for one in runs if name in one.curves]


def _latency(report: Report, axes: Any) -> None:
    for name, label, color in (
        ("dm_ms", "DM at 300/s", "tab:blue"),
        ("group500_ms", "group of 500, last member", "tab:orange"),
    ):
        for n, curve in enumerate(_curves(report, name)):
            percents = [step + 0.5 for step in range(len(curve))]
            axes.plot(percents, curve, color=color, alpha=0.7, label=label if n == 0 else None)
    axes.set(title="delivery time", xlabel="percent of messages", ylabel="ms", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend()


def _goals(report: Report, axes: Any) -> None:
    rows = [
        (figure, median(values), figure.goal)
        for figure in FIGURES
        if figure.goal and (values := report.values(figure.metric))
    ]
    names = [f"{figure.label}\n{shown(value)} {figure.unit}" for figure, value, _ in rows]
    # How many times better than the goal: above 1 is reached, whichever way the figure goes.
    better = [
        value / goal if figure.sense == "above" else goal / max(value, 1e-9)
        for figure, value, goal in rows
    ]
    colors = ["tab:green" if ratio > 1 else "tab:red" for ratio in better]
    axes.barh(names, better, color=colors)
    axes.axvline(1, color="black")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set(title="times better than the goal", xscale="log" if better else "linear")


def _processors(report: Report, axes: Any) -> None:
    cpu = {
        name: {
            process: median([one.cpu_us.get(process, 0.0) for one in runs])
            for process in {key for one in runs for key in one.cpu_us}
        }
        for name, runs in report.runs.items()
        if any(one.cpu_us for one in runs)
    }
    below = dict.fromkeys(cpu, 0.0)
    for process in sorted({process for used in cpu.values() for process in used}):
        shares = [
            100 * used.get(process, 0.0) / max(sum(used.values()), 1e-9) for used in cpu.values()
        ]
        axes.bar(list(cpu), shares, bottom=list(below.values()), label=process)
        below = {name: below[name] + share for name, share in zip(below, shares, strict=True)}
    axes.set(title="server CPU by process", ylabel="percent")
    axes.tick_params(axis="x", labelrotation=20, labelsize=8)
    if cpu:
        axes.legend(fontsize=8)


def _kills(report: Report, axes: Any) -> None:
    times, waits = _curves(report, "kill_at_s"), _curves(report, "kill_wait_ms")
    if times:
        axes.scatter(times[-1], waits[-1], s=2)
        for at_s in _curves(report, "kill_struck_s")[-1]:
            axes.axvline(at_s, color="tab:red", alpha=0.4)
        axes.set(yscale="log")
    axes.set(title="kill -9: wait of each message (last run)", xlabel="s", ylabel="ms")
