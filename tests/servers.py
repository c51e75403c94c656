"""Real servers for tests: `nats-server` and `mongod` from wheels, edges and workers as processes.

Each listens on a free loopback port, keeps its data in a temporary folder, and can be killed,
paused and started again on the same port with the same data. With `HIKYAKU_TEST_SERVERS=containers`
NATS, MongoDB and search run in containers instead: the same tests, with the programs of the images.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt

from broker.roles import EDGE
from deploy import local_mongo, local_nats
from deploy.service import NotReady
from store.replica_set import Access
from store.roles import NAMES

from .ports import free_port

SECRET = "a secret of at least thirty-two bytes"
READY_S = 120.0
LINKS = "links"
"""The folder of `deploy.links`, in that of the server."""
MONGO_KEY = "TheKeyOfTheMembersInTests"


def password(role: str) -> str:
    """A role's, at the servers of tests."""
    return f"the password of {role}"


SERVERS = os.environ.get("HIKYAKU_TEST_SERVERS") or "processes"
assert SERVERS in ("processes", "containers"), f"HIKYAKU_TEST_SERVERS={SERVERS}"
CONTAINERS = SERVERS == "containers"


async def eventually(check: Callable[[], bool], *, within_s: float = 10.0, what: str = "") -> None:
    """Poll until `check` holds; fails the test after `within_s`."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or check}"
        await asyncio.sleep(0.01)


def as_role(role: str) -> dict[str, str]:
    """What a process of this role is told to get in."""
    passwords = {"HIKYAKU_NATS_PASSWORD": password(role)}
    return passwords if role == EDGE else {**passwords, "HIKYAKU_MONGO_PASSWORD": password(role)}


def mongo_access() -> Access:
    """Who may use the MongoDB of tests."""
    return Access(MONGO_KEY, "hikyaku", {role: password(role) for role in NAMES})


class Process:
    """A server process that can be killed, paused and started again."""

    def __init__(self, command: tuple[str, ...], folder: Path, env: dict[str, str] | None = None):
        self._command = command
        self._env = env
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(self._env or {})},
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
            if number != signal.SIGCONT:
                self._process.send_signal(signal.SIGCONT)
        self._process.wait(20)
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None


async def until_ready(process: Process, probe: Callable[[], Awaitable[None]]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            await probe()
            return
        except NotReady as not_ready:
            why = str(not_ready)
        log = process.log.read_text(errors="replace")[-2000:]
        assert process.running, f"ended: {log}"
        assert time.monotonic() < deadline, f"not ready: {why}: {log}"
        await asyncio.sleep(0.02)


def server_process(command: tuple[str, ...], folder: Path) -> Process:
    """The server as a process, or in a container if that is asked for."""
    return container(command, folder, {}) if CONTAINERS else Process(command, folder)


def container(command: tuple[str, ...], folder: Path, env: dict[str, str]) -> Process:
    """The server in a container; `command` begins with a program that an image has."""
    from .container_process import ContainerProcess

    return ContainerProcess(command, folder, env)


class Nats:
    """A real nats-server, every commit fsynced."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.monitor_port = free_port({self.port})
        service = local_nats.service(
            local_nats.find(),
            folder,
            site="test",
            port=self.port,
            monitor_port=self.monitor_port,
            password=password,
            links_folder=folder / LINKS,
            env={},
        )
        self.process = server_process(service.command, folder)
        self._probe = service.probe
        self.url = f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process.start()
        await until_ready(self.process, self._probe)


class Mongo:
    """A real mongod, as a replica set of one."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.port = free_port()
        self._prepare()
        # As the members of a set among themselves: tests look into everything.
        own = f"mongodb://__system:{MONGO_KEY}@"
        self.url = local_mongo.url(self.port).replace("mongodb://", own) + "&authSource=local"

    def _prepare(self) -> None:
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        service = local_mongo.service(
            local_mongo.find(), self._folder, port=self.port, access=mongo_access(), env={}
        )
        self.process = server_process(service.command, self._folder)
        self._probe = service.probe

    async def start(self) -> None:
        self.process.start()
        await until_ready(self.process, self._probe)

    def lose(self) -> None:
        """All its data, while it is stopped."""
        shutil.rmtree(self._folder / "data")
        self._prepare()


class Hikyaku:
    """An edge or a worker as its own process, as operators run it."""

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        env: dict[str, str],
        port: int = 0,
        *,
        role: str = "",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "deploy.cli", *arguments)
        self.port = port
        role = role or (arguments[1] if arguments[:1] == ["worker"] else EDGE)
        self.process = Process(command, folder, {**env, **as_role(role)})

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat"

    async def start(self) -> None:
        self._offset = self.process.log.stat().st_size if self.process.log.exists() else 0
        self.process.start()
        await until_ready(self.process, self._answers if self.port else self._says_so)

    async def _says_so(self) -> None:
        if b" is ready" not in self.process.log.read_bytes()[self._offset :]:
            raise NotReady("it does not say that it is ready")

    async def _answers(self) -> None:
        try:
            await asyncio.to_thread(self.get, "/readyz")
        except OSError as error:
            raise NotReady(str(error)) from None

    def get(self, path: str) -> str:
        """The body of an HTTP answer; an `HTTPError` is an `OSError`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body.decode()


class Site:
    """A whole site: NATS, MongoDB, the workers (`worker` is the directory) and two edges."""

    def __init__(self, folder: Path, **settings: str):
        self.nats = Nats(folder / "nats")
        self.mongo = Mongo(folder / "mongo")
        ports = [free_port()]
        ports.append(free_port(ports))
        common = {
            "HIKYAKU_HOME": str(folder / "home"),
            "HIKYAKU_NATS_URL": self.nats.url,
            "HIKYAKU_MONGO_URL": self.mongo.url,
            "HIKYAKU_JWT_SECRET": SECRET,
            **settings,
        }
        self.worker, self.persist, self.query = (
            Hikyaku(folder / name, ["worker", name], common)
            for name in ("directory", "persist", "query")
        )
        self.edges = [
            Hikyaku(
                folder / f"edge{number}",
                ["edge", "--number", "1"],
                {**common, "HIKYAKU_EDGE_PORT": str(port)},
                port,
            )
            for number, port in enumerate(ports, 1)
        ]

    async def start(self) -> None:
        await asyncio.gather(self.nats.start(), self.mongo.start())
        processes = (self.worker, self.persist, self.query, *self.edges)
        await asyncio.gather(*(each.start() for each in processes))

    def stop(self) -> None:
        servers: list[Hikyaku | Nats | Mongo] = [*self.edges, self.worker, self.persist, self.query]
        servers += [self.nats, self.mongo]
        for process in [each.process for each in servers]:
            process.end(signal.SIGKILL)


def token(user: str, ttl_s: float = 3600, **claims: object) -> str:
    """A development token."""
    return jwt.encode(
        {"sub": user, "exp": time.time() + ttl_s, **claims}, SECRET, algorithm="HS256"
    )
