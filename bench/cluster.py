"""A site of three NATS servers, three mongods, workers and two edges, as processes here.

Where it may (root, with `ip` and `iptables`), each NATS server has its own network and small disk,
so that it can be cut off and its disk can fill up.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.errors import BrokerError
from broker.roles import RELAY
from deploy import links, local_mongo, local_nats
from deploy.nats_accounts import accounts
from deploy.ports import free_port
from store.config import StoreConfig
from store.replica_set import Access, role
from store.replica_set_site import make_site_set
from store.roles import NAMES, OPERATOR

from . import http
from .scenario import BenchError, Target

READY_S = 120.0
END_S = 30.0
POLL_S = 0.1
SIZE = 3
WORKERS = ("directory", "persist", "query")
DISK_BYTES = 256 * 1024 * 1024
STREAM_BYTES = 8 * 1024**3
SET = "rs0"
BEFORE_ROLE = "password of "

_MANY = "1000000"


class Process:
    """One process: started, ended, paused, started again. Its output goes to a file."""

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        folder: Path,
        ready: Callable[[], Awaitable[bool]],
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.ready = ready
        self._command = command
        self._env = env
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    async def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; after `END_S` it is killed."""
        if self._process is None:
            return
        self.send(number)
        deadline = time.monotonic() + END_S
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(0.02)
        self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def tail(self) -> str:
        """The end of what it has said."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""


class Nats(Process):
    """One of three servers, maybe with a network and a disk of its own."""

    def __init__(
        self,
        number: int,
        folder: Path,
        hosts: list[str],
        ports: list[tuple[int, int, int]],
        prefix: tuple[str, ...],
    ) -> None:
        self.host = hosts[number]
        self.port, self.monitor_port, route_port = ports[number]
        self.store = folder / f"nats-{number}"
        self.store.mkdir()
        routes = ", ".join(
            f'"nats-route://{host}:{port}"' for host, (_, _, port) in zip(hosts, ports, strict=True)
        )
        conf = folder / f"nats-{number}.conf"
        links_folder = folder / f"links-{number}"
        links.ensure(links_folder, "bench", json.dumps(BEFORE_ROLE + RELAY))
        conf.write_text(f"""\
server_name: "nats-{number}"
listen: "{self.host}:{self.port}"
http: "{self.host}:{self.monitor_port}"
max_payload: 1MB
jetstream {{ store_dir: "{self.store}", sync_interval: always, max_file_store: 100GB }}
feature_flags {{ js_ack_fc_v2: false }}
cluster {{ name: bench, listen: "{self.host}:{route_port}", routes: [{routes}] }}
{accounts(lambda role: json.dumps(BEFORE_ROLE + role), links_folder.name)}""")
        command = (*prefix, str(local_nats.find()), "--config", str(conf))
        super().__init__(f"nats-{number}", command, folder, self._healthy)

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"nats://{self.host}:{self.port}"

    async def _healthy(self) -> bool:
        return await http.status(f"{self.host}:{self.monitor_port}", "/healthz") == 200

    def wipe(self) -> None:
        """Lose the disk; it must not run."""
        for each in self.store.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()


class Cluster:
    """`async with Cluster(folder) as cluster:` starts everything and ends it."""

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self.folder = folder
        self._apart = apart
        self._tag = f"hk{secrets.token_hex(2)}"
        self._secret = secrets.token_hex(32)
        self._undo = ExitStack()
        self.nats: list[Nats] = []
        self.mongods: list[Process] = []
        self.workers: list[Process] = []
        self.edges: list[Process] = []
        self.missing: list[str] = []

    async def __aenter__(self) -> "Cluster":
        try:
            await self._start()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()

    @property
    def everything(self) -> list[Process]:
        """All processes."""
        return [*self.edges, *self.workers, *self.nats, *self.mongods]

    @property
    def target(self) -> Target:
        """Where clients connect."""
        return Target(edges=tuple(self._addresses), secret=self._secret)

    async def until_ready(self, *processes: Process, within_s: float = READY_S) -> None:
        """Wait until all are. Raises `BenchError` with what one said last."""
        deadline = time.monotonic() + within_s
        for each in processes:
            while not await each.ready():
                if time.monotonic() > deadline:
                    raise BenchError(f"{each.name} is not ready: {each.tail()}")
                await asyncio.sleep(POLL_S)

    async def whole(self) -> bool:
        """Whether every process is ready; `missing` has those that are not."""
        self.missing = [each.name for each in self.everything if not await each.ready()]
        return not self.missing

    @property
    def broker(self) -> BrokerConfig:
        """Where NATS is."""
        urls = tuple(each.url for each in self.nats)
        return BrokerConfig(
            urls=urls, replicas=SIZE, role=OPERATOR, password=BEFORE_ROLE + OPERATOR
        )

    async def leader(self) -> Nats:
        """The server that leads the log."""
        deadline = time.monotonic() + READY_S
        async with Bus(self.broker, name="bench") as bus:
            while time.monotonic() < deadline:
                try:
                    await bus.wait_connected(5)
                    answer = await bus.request("$JS.API.STREAM.INFO.CHAT", timeout_s=5)
                except BrokerError:
                    continue
                name = json.loads(answer.data).get("cluster", {}).get("leader")
                for each in self.nats:
                    if each.name == name:
                        return each
                await asyncio.sleep(POLL_S)
        raise BenchError("the log has no leader")

    async def primary(self) -> Process:
        """The mongod that takes writes."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for each, port in zip(self.mongods, self._mongo_ports, strict=True):
                if await role("127.0.0.1", port) == "primary":
                    return each
            await asyncio.sleep(POLL_S)
        raise BenchError("MongoDB has no primary")

    # --- starting ---

    async def _start(self) -> None:
        hosts = ["127.0.0.1"] * SIZE
        prefixes: list[tuple[str, ...]] = [()] * SIZE
        if self._apart:
            hosts, prefixes = self._networks()
        free = iter(_ports(3 * SIZE))
        ports = [(next(free), next(free), next(free)) for _ in range(SIZE)]
        self.nats = [Nats(n, self.folder, hosts, ports, prefixes[n]) for n in range(SIZE)]
        if self._apart:
            for each in self.nats:
                _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(each.store))
                self._undo.callback(_run, "umount", str(each.store))
        self._mongo_ports = _ports(SIZE)
        self.mongods = [self._mongod(port) for port in self._mongo_ports]
        for process in (*self.nats, *self.mongods):
            process.start()
        await self.until_ready(*self.nats)
        await make_site_set(self.mongo_url, self._access, within_s=READY_S)
        await self.until_ready(*self.mongods)
        self._edge_ports = _ports(2)
        env = self._environment()
        for name in WORKERS:
            health = free_port()
            given = {**env, "HIKYAKU_WORKER_HEALTH_PORT": str(health)}
            self.workers.append(
                self._hikyaku(("worker", name), given, f"127.0.0.1:{health}", "/metrics")
            )
        for number, port in enumerate(self._edge_ports, 1):
            given = {**env, "HIKYAKU_EDGE_PORT": str(port - number + 1)}
            words = ("edge", "--number", str(number))
            self.edges.append(self._hikyaku(words, given, f"127.0.0.1:{port}", "/readyz"))
        for process in (*self.workers, *self.edges):
            process.start()
        await self.until_ready(*self.workers, *self.edges)

    @property
    def _addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._edge_ports]

    @property
    def _access(self) -> Access:
        return Access(self._secret, "hikyaku", {name: BEFORE_ROLE + name for name in NAMES})

    @property
    def mongo_url(self) -> str:
        """What workers are told."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._mongo_ports)
        return f"mongodb://{hosts}/?replicaSet={SET}"

    @property
    def store(self) -> StoreConfig:
        """Where MongoDB is, as the operator."""
        return StoreConfig(url=self.mongo_url, role=OPERATOR, password=BEFORE_ROLE + OPERATOR)

    def _environment(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("HIKYAKU_")}
        return kept | {
            "HIKYAKU_HOME": str(self.folder / "home"),
            "HIKYAKU_NATS_URL": ",".join(each.url for each in self.nats),
            "HIKYAKU_MONGO_URL": self.mongo_url,
            "HIKYAKU_REPLICAS": str(SIZE),
            "HIKYAKU_STREAM_MAX_BYTES": str(STREAM_BYTES),
            "HIKYAKU_JWT_SECRET": self._secret,
            "HIKYAKU_MESSAGES_PER_S": _MANY,
            "HIKYAKU_MESSAGES_BURST": _MANY,
            "HIKYAKU_CONNECTIONS_PER_USER": "1000",
            "PYTHONUNBUFFERED": "1",
        }

    def _hikyaku(
        self, words: tuple[str, ...], env: dict[str, str], address: str, path: str
    ) -> Process:
        async def ready() -> bool:
            return await http.status(address, path) == 200

        role = words[1] if words[0] == "worker" else words[0]
        env = {
            **env,
            "HIKYAKU_NATS_PASSWORD": BEFORE_ROLE + role,
            "HIKYAKU_MONGO_PASSWORD": BEFORE_ROLE + role,
        }
        name = "-".join(each for each in words if each != "--number")
        return Process(name, (sys.executable, "-m", "deploy.cli", *words), self.folder, ready, env)

    def _mongod(self, port: int) -> Process:
        folder = self.folder / f"mongod-{port}"
        (folder / "data").mkdir(parents=True)
        command = local_mongo.service(
            local_mongo.find(), folder, port=port, access=self._access, env={}
        ).command

        async def ready() -> bool:
            return bool(await role("127.0.0.1", port))

        return Process(f"mongod-{port}", command, self.folder, ready)

    def _networks(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """A network for each server, and one with the switch; gives addresses and how to run there.

        The switch is not among this machine's own interfaces, whose firewall may forward nothing.
        """
        switch = f"{self._tag}sw"
        subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self._space_made(switch)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for number in range(SIZE):
            space = self._space(number)
            self._space_made(space)
            self._plug(switch, f"port{number}", f"{subnet}.{number + 1}/24", "eth0", "-n", space)
            _run("ip", "-n", space, "link", "set", "lo", "up")
        self._plug(switch, "above", f"{subnet}.254/24", f"{self._tag}up")
        hosts = [f"{subnet}.{number + 1}" for number in range(SIZE)]
        return hosts, [("ip", "netns", "exec", self._space(n)) for n in range(SIZE)]

    def _space_made(self, space: str) -> None:
        _run("ip", "netns", "add", space)
        self._undo.callback(_run, "ip", "netns", "del", space)

    def _plug(self, switch: str, port: str, address: str, link: str, *where: str) -> None:
        """A cable from `port` of the switch to an interface with this address."""
        peer = ("peer", "name", link, "netns", where[1] if where else str(os.getpid()))
        _run("ip", "-n", switch, "link", "add", port, "type", "veth", *peer)
        _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
        _run("ip", *where, "addr", "add", address, "dev", link)
        _run("ip", *where, "link", "set", link, "up")

    def _space(self, number: int) -> str:
        return f"{self._tag}s{number}"

    def cut(self, server: Nats, *, peers_only: bool = False) -> None:
        """Drop every packet from and to a server, or only those of the other servers."""
        for host in [each.host for each in self.nats if each is not server] if peers_only else [""]:
            for chain, flag in (("INPUT", "-s"), ("OUTPUT", "-d")):
                of = (flag, host) if host else ()
                self._firewall(server, "-A", chain, *of, "-j", "DROP")

    def mend(self, server: Nats) -> None:
        """Let packets pass again."""
        self._firewall(server, "-F")

    def _firewall(self, server: Nats, *words: str) -> None:
        _run("ip", "netns", "exec", self._space(self.nats.index(server)), "iptables", *words)

    def _stop(self) -> None:
        for process in self.everything:
            process.send(signal.SIGCONT)
            process.kill()
        self._undo.close()


def why_not_apart() -> str:
    """Why servers cannot have networks and disks of their own here, or empty."""
    if os.geteuid():
        return "only root may cut a network or fill a disk of its own"
    if missing := [name for name in ("ip", "iptables", "mount") if not shutil.which(name)]:
        return f"there is no {', '.join(missing)}"
    probe = f"hk{secrets.token_hex(2)}"
    try:
        _run("ip", "netns", "add", probe)
        try:
            _run("ip", "netns", "exec", probe, "iptables", "-F")
        finally:
            _run("ip", "netns", "del", probe)
    except BenchError as error:
        return str(error)
    return ""


def _run(*words: str) -> None:
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if ran.returncode:
        raise BenchError(f"{' '.join(words)}: {ran.stderr.strip()}")


def _ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append(free_port(found))
    return found
