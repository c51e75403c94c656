"""A site as operators run it: the real `compose.yaml`, under a project name of its own."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from deploy.init import write
from tests.container_process import IMAGES, RUN

from ..ports import free_port

ROOT = Path(__file__).parents[2]
READY_S = 600.0
BASE, CLUSTER, LINKED = "compose.yaml", "compose.cluster.yaml", "compose.federation.yaml"
ONE_SHOTS = {"volumes", "mongo-init"}

KILL = "kill -9 $(cat /proc/1/task/1/children)"
"""Ends what a container runs, as a crash does; `docker kill` counts as the operator's stop."""


@cache
def command() -> tuple[str, ...]:
    """Today's plugin, else the program of before; empty if there is neither."""
    for words in (("docker", "compose"), ("docker-compose",)):
        try:
            tried = subprocess.run([*words, "version"], capture_output=True, timeout=30)
        except FileNotFoundError:
            continue
        if tried.returncode == 0:
            return words
    return ()


def docker(*words: str, check: bool = True) -> str:
    ran = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120)
    assert not check or ran.returncode == 0, f"docker {' '.join(words)}: {ran.stderr}"
    return ran.stdout.strip()


class Compose:
    """`compose.yaml` with secrets of its own, on a free loopback port."""

    def __init__(self, folder: Path, *added: str, **variables: str):
        """`added` are files beside `compose.yaml`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.project = f"{RUN}-{uuid4().hex[:8]}"
        self.port = free_port()
        self.env_file = folder / ".env"
        write(self.env_file)
        self._files = (BASE, *added)
        given = {
            "HIKYAKU_IMAGE": IMAGES["hikyaku"],
            "HIKYAKU_NATS_IMAGE": IMAGES["nats-server"],
            "HIKYAKU_MONGO_IMAGE": IMAGES["mongod"],
            "HIKYAKU_PROXY_IMAGE": IMAGES["caddy"],
            "HIKYAKU_SEARCH_IMAGE": IMAGES["meilisearch"],
            "HIKYAKU_CERTIFICATES": str(folder / "certificates"),
            "HIKYAKU_LISTEN": f"127.0.0.1:{self.port}",
            "HIKYAKU_HEALTH_INTERVAL": "2s",
            "HIKYAKU_OPEN_FILES": "4096",
            **variables,
        }
        self.set(given)

    def set(self, variables: Mapping[str, str]) -> None:
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}/ws/chat"

    def command(self) -> list[str]:
        files = [word for file in self._files for word in ("-f", file)]
        return [*command(), "-p", self.project, "--env-file", str(self.env_file), *files]

    def run(
        self, *words: str, check: bool = True, within_s: float = READY_S
    ) -> subprocess.CompletedProcess[str]:
        ours = ("HIKYAKU_", "COMPOSE_")
        ran = subprocess.run(
            [*self.command(), *words],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
            capture_output=True,
            text=True,
            timeout=within_s,
        )
        assert not check or ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran

    def up(self) -> None:
        """`up -d`, and what `--wait` waits for, which 1.29 does not know."""
        self.run("up", "-d")
        self.ready()

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says, by service."""
        ids = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}")
        if not ids:
            return {}
        found = json.loads(docker("inspect", *ids.split()))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def not_ready(self) -> dict[str, str]:
        """The state of each service that is not as `--wait` wants it."""
        wrong = {}
        for service, each in self.containers().items():
            state = each["State"]
            if service in ONE_SHOTS:
                if state["Status"] != "exited" or state["ExitCode"]:
                    wrong[service] = f"{state['Status']} {state['ExitCode']}"
            elif not state["Running"] or state["Health"]["Status"] != "healthy":
                wrong[service] = f"{state['Status']} {state.get('Health')}"
        return wrong

    def ready(self, within_s: float = READY_S) -> None:
        deadline = time.monotonic() + within_s
        while wrong := self.not_ready():
            assert time.monotonic() < deadline, f"{wrong}: {self.logs(*wrong)}"
            time.sleep(0.3)

    def logs(self, *services: str) -> str:
        return self.run("logs", "--tail", "30", *services, check=False).stdout

    def execute(self, service: str, *words: str, check: bool = True) -> str:
        return docker("exec", self.containers()[service]["Id"], *words, check=check)

    def complaint(self, service: str, *words: str) -> str:
        """What a command in the container says when it fails; empty if it does not."""
        container = self.containers()[service]["Id"]
        ran = subprocess.run(
            ["docker", "exec", container, *words], capture_output=True, text=True, timeout=60
        )
        return ran.stderr + ran.stdout if ran.returncode else ""

    def crash(self, service: str) -> None:
        """kill -9 of what the service runs; returns when it was started again and all is ready."""
        container = self.containers()[service]
        docker("exec", container["Id"], "sh", "-c", KILL, check=False)
        deadline = time.monotonic() + READY_S
        while self.containers()[service]["RestartCount"] <= container["RestartCount"]:
            assert time.monotonic() < deadline, f"{service} was not started again"
            time.sleep(0.2)
        self.ready()

    def tool(self, *words: str) -> str:
        """What a command of the operator says."""
        return self.run("run", "--rm", "-T", "tool", *words).stdout

    def token(self, user: str) -> str:
        return self.execute("edge-1", "hikyaku", "token", user)

    def certificate(self, folder: Path) -> Path:
        """The certificate of the proxy's own authority, which clients have to trust."""
        to = folder / "root.crt"
        to.write_text(
            self.execute("proxy", "cat", "/data/caddy/pki/authorities/local/root.crt") + "\n"
        )
        return to

    def down(self) -> None:
        self.run("down", "-v", "--remove-orphans")
