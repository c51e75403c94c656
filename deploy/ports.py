"""Ports of this machine: which are free, who holds one, and which ones the local stack uses."""

import errno
import json
import os
import random
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from .errors import UserError

LOWEST = 10_240
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LISTEN = "0A"


def why_not(host: str, port: int) -> str:
    """Why a server cannot listen there, or empty if it can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return f"{host!r} is no address of this machine"
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                return _explain(error, host, port)
    return ""


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        found = holder(port)
        return f"port {port} on {host} is in use" + (f" by {found}" if found else "")
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is no address of this machine"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is reserved for the administrator"
    return f"port {port} on {host} cannot be used: {error.strerror}"


def free_port(avoid: Collection[int] = ()) -> int:
    """A free loopback port below those that the kernel gives to outgoing connections.

    One of those could be taken by a client just while the server restarts; and a client that
    reconnects to a dead server on such a port can end up connected to itself.
    """
    top = _first_ephemeral()
    for port in random.sample(range(LOWEST, top), min(1000, top - LOWEST)):
        if port not in avoid and not why_not("127.0.0.1", port):
            return port
    raise UserError(f"there is no free port from {LOWEST} to {top - 1}")


def _first_ephemeral() -> int:
    try:
        first = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > LOWEST + 1000 else 65_536


def choose(
    file: Path, configured: dict[str, int], *, avoid: Collection[int] = ()
) -> dict[str, int]:
    """A port for each name: the configured one, else the remembered one if it is free, else new.

    What was chosen is remembered in `file`. Raises `UserError` if a configured one is in use.
    """
    remembered = _read(file)
    chosen: dict[str, int] = {}
    for name, port in configured.items():
        taken = {*avoid, *configured.values(), *chosen.values()}
        if port:
            chosen[name] = _checked(name, port)
            continue
        port = remembered.get(name, 0)
        if not port or port in taken or why_not("127.0.0.1", port):
            port = free_port({*taken, *remembered.values()})
        chosen[name] = port
    file.write_text(json.dumps({**remembered, **chosen}, indent=2) + "\n")
    return chosen


def remembered(file: Path) -> dict[str, int]:
    """What was last chosen, by name; empty if nothing was."""
    return _read(file)


def _checked(name: str, port: int) -> int:
    why = why_not("127.0.0.1", port)
    if why:
        setting = f"HIKYAKU_{name.partition(' ')[0].upper()}"
        raise UserError(f"{why}; set {setting} to another port, or to 0 for a free one")
    return port


def _read(file: Path) -> dict[str, int]:
    """What was remembered; a file that cannot be understood is as good as none."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: port for name, port in content.items() if isinstance(port, int)}


def holder(port: int) -> str:
    """The process that listens on a port, as `name (pid 123)`; empty where it cannot be found."""
    found = _holder(port)
    return f"{_name(found)} (pid {found.name})" if found else ""


def held_by_child(port: int, pid: int) -> bool:
    """Whether a child of the process listens on the port."""
    found = _holder(port)
    if not found:
        return False
    with suppress(OSError):
        return int((found / "stat").read_text().rpartition(")")[2].split()[1]) == pid
    return False


def _holder(port: int) -> Path | None:
    inodes = set(_listening(port))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) in inodes:
                    return process
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *_rest = line.split()
                if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                    yield f"socket:[{_rest[5]}]"


def _name(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    return " ".join([Path(words[0]).name, *words[1:]]).strip()[:80]
