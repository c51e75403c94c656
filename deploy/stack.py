"""What `hikyaku up` runs: NATS and MongoDB (unless set to others), the workers, the edges."""

import sys
from collections.abc import Mapping

from . import local_mongo, local_nats
from .errors import UserError
from .ports import choose, why_not
from .probes import http_ok
from .service import Service
from .settings import Settings, edge_url, reachable_host
from .settings_load import PREFIX

WORKERS = ("directory", "persist", "query", "archive")
"""Names of the workers to run, one process each."""

MAX_DRAIN_S = 5.0
"""`hikyaku up` stops within 10 s, so its edges may not take longer to send clients away."""

LOOPBACK = "127.0.0.1"

_HIKYAKU = (sys.executable, "-P", "-m", "deploy.cli")


def declare(settings: Settings, environ: Mapping[str, str]) -> list[Service]:
    """All services. Raises `UserError` when a port is taken, `StartError` for a missing program."""
    edge_ports = range(settings.edge_port, settings.edge_port + settings.edges)
    _check_edge_ports(settings, edge_ports)
    wanted = _own_ports(settings)
    ports = choose(settings.home_path / "ports.json", wanted, avoid=edge_ports)
    bare = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    servers = [*_own_nats(settings, ports, bare), *_own_mongo(settings, ports, bare)]
    names = tuple(server.name for server in servers)
    env = {**environ, **_child_environment(settings, ports)}
    workers = [_worker(name, ports[_health(name)], env, after=names) for name in WORKERS]
    nats = tuple(name for name in names if name == local_nats.NAME)
    edges = [
        _edge(settings, number, env, after=nats, uses=tuple(each.name for each in workers))
        for number in range(1, settings.edges + 1)
    ]
    return [*servers, *workers, *edges]


def _check_edge_ports(settings: Settings, ports: range) -> None:
    for number, port in enumerate(ports, 1):
        why = why_not(settings.edge_host, port)
        if "address" in why:
            raise UserError(f"{why}; set HIKYAKU_EDGE_HOST")
        if why:
            which = f" (the first edge's; edge {number} has {port})" if number > 1 else ""
            raise UserError(f"{why}; set HIKYAKU_EDGE_PORT to another port{which}")


def _own_ports(settings: Settings) -> dict[str, int]:
    wanted = {}
    if not settings.nats_url:
        wanted["nats_port"] = settings.nats_port
        wanted["nats_monitor_port"] = settings.nats_monitor_port
    if not settings.mongo_url:
        wanted["mongo_port"] = settings.mongo_port
    first = settings.worker_health_port
    for number, name in enumerate(WORKERS):
        wanted[_health(name)] = first and first + number
    return wanted


def _health(worker: str) -> str:
    return f"worker_health_port ({worker})"


def _own_nats(settings: Settings, ports: dict[str, int], env: dict[str, str]) -> list[Service]:
    if settings.nats_url:
        return []
    return [
        local_nats.service(
            local_nats.find(),
            settings.home_path / "nats",
            site=settings.site,
            port=ports["nats_port"],
            monitor_port=ports["nats_monitor_port"],
            env=env,
        )
    ]


def _own_mongo(settings: Settings, ports: dict[str, int], env: dict[str, str]) -> list[Service]:
    if settings.mongo_url:
        return []
    program = local_mongo.find()
    local_mongo.version(program)
    folder = settings.home_path / "mongo"
    return [local_mongo.service(program, folder, port=ports["mongo_port"], env=env)]


def _child_environment(settings: Settings, ports: dict[str, int]) -> dict[str, str]:
    """Where the own servers are, and the secret: by environment, since anyone can read `ps`."""
    env = {
        "HIKYAKU_HOME": str(settings.home_path),
        "HIKYAKU_DRAIN_S": str(min(settings.drain_s, MAX_DRAIN_S)),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.jwt_secret:
        env["HIKYAKU_JWT_SECRET"] = settings.jwt_secret
    if not settings.nats_url:
        env["HIKYAKU_NATS_URL"] = f"nats://{local_nats.HOST}:{ports['nats_port']}"
    if not settings.mongo_url:
        env["HIKYAKU_MONGO_URL"] = local_mongo.url(ports["mongo_port"])
    return env


def _worker(name: str, port: int, env: dict[str, str], *, after: tuple[str, ...]) -> Service:
    async def probe() -> None:
        await http_ok(LOOPBACK, port, "/metrics")

    return Service(
        name=name,
        command=(*_HIKYAKU, "worker", name),
        probe=probe,
        env={**env, "HIKYAKU_WORKER_HEALTH_PORT": str(port)},
        address=f"http://{LOOPBACK}:{port}/metrics",
        after=after,
        stop_s=1.5,
    )


def _edge(
    settings: Settings,
    number: int,
    env: dict[str, str],
    *,
    after: tuple[str, ...],
    uses: tuple[str, ...],
) -> Service:
    host, port = reachable_host(settings), settings.edge_port + number - 1

    async def probe() -> None:
        await http_ok(host, port, "/readyz")

    return Service(
        name=f"edge-{number}",
        command=(*_HIKYAKU, "edge", "--number", str(number)),
        probe=probe,
        env=env,
        address=edge_url(settings, number),
        after=after,
        uses=uses,
        stop_s=MAX_DRAIN_S + 0.5,
    )
