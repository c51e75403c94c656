"""What `hikyaku up` runs: NATS, MongoDB, search (unless set to others), workers, edges."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from broker.roles import EDGE

from . import local_mongo, local_nats, local_search
from .errors import UserError
from .home import mongo_access, role_password, search_key
from .ports import choose, why_not
from .probes import http_ok
from .service import Service
from .settings import Settings, edge_url, links_folder, reachable_host
from .settings_load import PREFIX

WORKERS = ("directory", "persist", "query", "index", "archive", "notify", "files", "relay")
"""Names of the workers to run, one process each."""

MAX_DRAIN_S = 4.0
"""`hikyaku up` stops within 10 s, so its edges may not take longer to send clients away."""

LOOPBACK = "127.0.0.1"

_HIKYAKU = (sys.executable, "-P", "-m", "deploy.cli")


def declare(
    settings: Settings, environ: Mapping[str, str], *, servers_only: bool = False
) -> list[Service]:
    """All services, or only NATS, MongoDB and search.

    Raises `UserError` when a port is taken, `StartError` for a missing program.
    """
    edge_ports = range(settings.edge_port, settings.edge_port + settings.edges)
    _check_edge_ports(settings, edge_ports)
    wanted = _own_ports(settings)
    ports = choose(settings.home_path / "ports.json", wanted, avoid=edge_ports)
    bare = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    servers = [
        *_own_nats(settings, ports, bare, restoring=servers_only),
        *_own_mongo(settings, ports, bare),
        *_own_search(settings, ports, bare),
    ]
    if servers_only:
        return servers
    env = {**environ, **_child_environment(settings, ports)}
    names = tuple(server.name for server in servers)
    workers = [
        _worker(name, ports[_health(name)], {**env, **_as_role(settings, name)}, after=names)
        for name in _own(settings)
    ]
    env.update(_as_role(settings, EDGE))
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
    if not settings.search_url:
        wanted["search_port"] = settings.search_port
    if not settings.files_worker_url:
        wanted["files_port"] = settings.files_port
    first = settings.worker_health_port
    for number, name in enumerate(_own(settings)):
        wanted[_health(name)] = first and first + number
    return wanted


def _own(settings: Settings) -> list[str]:
    """The workers to run here; files are another's work when edges are to find them elsewhere."""
    elsewhere = ("files",) if settings.files_worker_url else ()
    return [name for name in WORKERS if name not in (*settings.without, *elsewhere)]


def _health(worker: str) -> str:
    return f"worker_health_port ({worker})"


def _own_nats(
    settings: Settings, ports: dict[str, int], env: dict[str, str], *, restoring: bool
) -> list[Service]:
    if settings.nats_url:
        return []
    return [
        local_nats.service(
            local_nats.find(),
            settings.home_path / "nats",
            site=settings.site,
            port=ports["nats_port"],
            monitor_port=ports["nats_monitor_port"],
            password=partial(role_password, settings.home_path),
            env=env,
            links_folder=links_folder(settings),
            listen=settings.link_listen,
            address=settings.link_address,
            restoring=restoring,
        )
    ]


def _own_mongo(settings: Settings, ports: dict[str, int], env: dict[str, str]) -> list[Service]:
    if settings.mongo_url:
        return []
    program = local_mongo.find()
    local_mongo.version(program)
    folder = settings.home_path / "mongo"
    access = mongo_access(settings.home_path, settings.mongo_database)
    return [local_mongo.service(program, folder, port=ports["mongo_port"], access=access, env=env)]


def _own_search(settings: Settings, ports: dict[str, int], env: dict[str, str]) -> list[Service]:
    if settings.search_url or "index" in settings.without:
        return []
    port = ports["search_port"]
    own = {
        "HIKYAKU_HOME": str(settings.home_path),
        "HIKYAKU_LOG_LEVEL": settings.log_level,
        "HIKYAKU_LOG_FORMAT": settings.log_format,
        "HIKYAKU_SEARCH_KEY": settings.search_key or search_key(settings.home_path),
        "HIKYAKU_SEARCH_PORT": str(port),
    }
    return [local_search.service(_HIKYAKU, port=port, env={**env, **own})]


def _child_environment(settings: Settings, ports: dict[str, int]) -> dict[str, str]:
    """Where the own servers are, and the secret: by environment, since anyone can read `ps`."""
    env = {
        "HIKYAKU_HOME": str(settings.home_path),
        "HIKYAKU_DRAIN_S": str(min(settings.drain_s, MAX_DRAIN_S)),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.jwt_secret:
        env["HIKYAKU_JWT_SECRET"] = settings.jwt_secret
    if settings.vapid_key:
        env["HIKYAKU_VAPID_KEY"] = str(Path(settings.vapid_key).absolute())
        env["HIKYAKU_VAPID_SUBJECT"] = settings.vapid_subject
    if settings.internal_secret:
        env["HIKYAKU_INTERNAL_SECRET"] = settings.internal_secret
    if "files_port" in ports:
        env["HIKYAKU_FILES_PORT"] = str(ports["files_port"])
    if not settings.nats_url:
        env["HIKYAKU_NATS_URL"] = f"nats://{local_nats.HOST}:{ports['nats_port']}"
    if not settings.mongo_url:
        env["HIKYAKU_MONGO_URL"] = local_mongo.url(ports["mongo_port"])
    if not settings.search_url:
        env["HIKYAKU_SEARCH_URL"] = local_search.url(ports["search_port"])
        env["HIKYAKU_SEARCH_KEY"] = settings.search_key or search_key(settings.home_path)
    return env


def _as_role(settings: Settings, role: str) -> dict[str, str]:
    """What only a process of this role is told."""
    password = role_password(settings.home_path, role)
    own = {} if settings.nats_url else {"HIKYAKU_NATS_PASSWORD": password}
    if not settings.mongo_url and role != EDGE:
        own["HIKYAKU_MONGO_PASSWORD"] = password
    return own


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
        stop_s=2.5,
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
