"""`hikyaku doctor`: is everything here that `hikyaku up` needs, and if not, what to do."""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from . import local_mongo, local_nats
from .errors import StartError
from .home import runs_as
from .ports import held_by_child, why_not
from .settings import Settings

NATS_SERIES = "2.15."
OLDEST_MONGO = (5, 0)
DISK_BYTES = 2 * 1024**3
FILES = 4096


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and what to do if that is a problem."""

    what: str
    found: str
    advice: str = ""


def examine(settings: Settings) -> int:
    """Print all findings; gives 1 if one is a problem, else 0."""
    console = Console(soft_wrap=True)
    problems = 0
    for check in _CHECKS:
        for finding in check(settings):
            problems += bool(finding.advice)
            mark = Text("problem ", "red") if finding.advice else Text("ok      ", "green")
            advice = f": {finding.advice}" if finding.advice else ""
            console.print(mark + Text(f"{finding.what:12} {finding.found}{advice}", ""))
    return 1 if problems else 0


def _python(_: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", found, "" if sys.version_info >= (3, 11) else "install Python 3.11")


def _nats(settings: Settings) -> Iterator[Finding]:
    if settings.nats_url:
        yield Finding("nats-server", "not needed, HIKYAKU_NATS_URL is set")
        return
    try:
        program = local_nats.find()
        version = local_nats.version(program)
    except StartError as error:
        yield Finding("nats-server", "does not run", str(error))
        return
    advice = "" if version.startswith(NATS_SERIES) else f"install a {NATS_SERIES}x version"
    yield Finding("nats-server", f"{version} ({program})", advice)


def _mongod(settings: Settings) -> Iterator[Finding]:
    if settings.mongo_url:
        yield Finding("mongod", "not needed, HIKYAKU_MONGO_URL is set")
        return
    try:
        program = local_mongo.find()
        version = local_mongo.version(program)
    except StartError as error:
        yield Finding("mongod", "does not run", str(error))
        return
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    advice = "" if numbers >= OLDEST_MONGO else "install MongoDB 5.0 or newer"
    yield Finding("mongod", f"{version} ({program})", advice)


def _home(settings: Settings) -> Iterator[Finding]:
    if all((settings.nats_url, settings.mongo_url, settings.objects_url, settings.files_url)):
        yield Finding("home", "not needed, everything is kept elsewhere")
        return
    home = settings.home_path
    there = _existing(home)
    writable = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    advice = "" if writable else f"make {there} writable, or set HIKYAKU_HOME"
    yield Finding("home", str(home), advice)
    free = shutil.disk_usage(there).free
    advice = "" if free >= DISK_BYTES else "make room, or set HIKYAKU_HOME to another disk"
    found = f"{free / 1024**3:.1f} GiB free"
    if not settings.nats_url and free < settings.stream_max_bytes:
        found += f", less than the log may take ({settings.stream_max_bytes / 1024**3:.1f} GiB,"
        found += " HIKYAKU_STREAM_MAX_BYTES)"
    yield Finding("disk", found, advice)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _files(_: Settings) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = "" if soft >= FILES else f"raise the limit with `ulimit -n {min(hard, 65_536)}`"
    yield Finding("open files", f"up to {soft}: about as many connections for an edge", advice)


def _ports(settings: Settings) -> Iterator[Finding]:
    wanted = [
        (settings.edge_host, settings.edge_port + number, "HIKYAKU_EDGE_PORT")
        for number in range(settings.edges)
    ]
    own = [] if settings.nats_url else ["nats_port", "nats_monitor_port"]
    own += [] if settings.mongo_url else ["mongo_port"]
    wanted += [
        ("127.0.0.1", getattr(settings, name), f"HIKYAKU_{name.upper()}")
        for name in own
        if getattr(settings, name)
    ]
    up = runs_as(settings.home_path)
    for host, port, setting in wanted:
        why = why_not(host, port)
        if why and up and held_by_child(port, up):
            yield Finding("port", f"{port} on {host} is this site's own, which runs (pid {up})")
            continue
        advice = f"stop it, or set {setting}" if why else ""
        yield Finding("port", why or f"{port} on {host} is free", advice)


_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python,
    _nats,
    _mongod,
    _home,
    _files,
    _ports,
)
