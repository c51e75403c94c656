"""The stack's processes as the kernel sees them: names, CPU time, resident memory."""

import os
import re
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """The pids of all descendants of `pid`, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += parents.get(parent, [])
    return found[1:]


def named(supervisor: int) -> dict[int, str]:
    """Pid to name for the supervisor and all its descendants that are alive."""
    names = {pid: name(pid) for pid in [supervisor, *children(supervisor)]}
    return {pid: text for pid, text in names.items() if text} | {supervisor: "supervisor"}


def name(pid: int) -> str:
    """What a process is, from its command line; empty when it is gone."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    program = Path(words[0]).name
    if not program.startswith("python"):
        return program
    found = re.search(r" (worker) (\w+)| (edge) --number (\d+)| (search) (serve)", " ".join(words))
    return " ".join(filter(None, found.groups())) if found else program


def cpu_s(pids: dict[int, str]) -> dict[int, float]:
    """CPU seconds (user and system, all threads) used so far by each process that is alive."""
    used = {}
    for pid in pids:
        if fields := _stat(pid):
            used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return used


def rss_bytes(pid: int) -> int:
    """Resident memory of one process; raises `FileNotFoundError` when it is gone."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    """The fields of `stat` after the command, the state first; empty when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] == "Z" else fields


def machine_busy_s() -> float:
    """CPU seconds that this machine has been busy, or held back by its host, since it began."""
    ticks = [int(text) for text in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / _TICKS_PER_S


class CpuMeter:
    """CPU used by the stack between `start` and `used`, by process name."""

    def __init__(self, supervisor: int | None) -> None:
        self._supervisor = supervisor
        self._before: dict[int, float] = {}

    def start(self) -> None:
        """Begin to count."""
        if self._supervisor:
            self._before = cpu_s(named(self._supervisor))

    def used_s(self) -> dict[str, float]:
        """Seconds since `start`; empty when the stack's supervisor is not known."""
        if not self._supervisor:
            return {}
        total: dict[str, float] = {}
        names = named(self._supervisor)
        for pid, seconds in cpu_s(names).items():
            spent = seconds - self._before.get(pid, 0.0)
            total[names[pid]] = total.get(names[pid], 0.0) + spent
        return total
