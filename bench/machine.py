"""On what a figure was measured: processors, memory, disk, versions, load from elsewhere."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .process import named
from .scenario import median

_PACKAGES = (
    "hikyaku",
    "uvicorn",
    "uvloop",
    "starlette",
    "websockets",
    "msgspec",
    "nats-py",
    "motor",
)
_SERVERS = ("nats-server", "mongod")
_REPOSITORY = Path(__file__).parent.parent


def describe(disk: Path) -> dict[str, Any]:
    """Facts about this machine; `disk` is a folder on the disk that the stack writes to."""
    return {
        "processor": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "fsync_ms": round(fsync_ms(disk), 3),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": _output(["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty"]),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def server_versions(supervisor: int) -> dict[str, str]:
    """What the running servers under a supervisor say of themselves."""
    found = {}
    for pid, name in named(supervisor).items():
        if name in _SERVERS:
            found[name] = _output([f"/proc/{pid}/exe", "--version"]).partition("\n")[0]
    return found


def fsync_ms(folder: Path, *, times: int = 40) -> float:
    """The median time of a write of 4 KiB with fsync: the least that an ack costs."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            begin = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - begin) * 1e3)
    return median(taken)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _output(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"
