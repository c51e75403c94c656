"""The whole stack as a person runs it: `hikyaku up` as a process, in a temporary home."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .ports import free_port

READY_S = 60.0
STOP_S = 10.0


def poll(check: Callable[[], object], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def two_ports() -> int:
    """A free port with a free one after it, both taken."""
    while True:
        port = free_port()
        if free_port() == port + 1:
            return port


class Up:
    """One `hikyaku up`. Its output goes to a file."""

    def __init__(self, home: Path, port: int, **settings: str):
        """`settings` are added to the environment as they are."""
        self.home, self.port = home, port
        self.output = home.parent / f"{home.name}.out"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("HIKYAKU_")}
        self._env = {**kept, "HIKYAKU_HOME": str(home), "HIKYAKU_EDGE_PORT": str(port)}
        self._env |= settings
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "up"],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            return "Hikyaku is ready in" in self.said()

        poll(ready, READY_S, self.said())

    def children(self) -> dict[str, int]:
        """Process ids by the last words of the command."""
        pid = self.process.pid
        found = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0").split("\0")
            name = {"nats-server": "nats", "mongod": "mongod"}.get(Path(words[0]).name)
            ours = {"--number": f"edge-{words[-1]}", "worker": words[-1], "search": "search"}
            name = name or ours.get(words[-2], "")
            found[name] = int(child)
        return found

    def get(self, number: int, path: str) -> int:
        url = f"http://127.0.0.1:{self.port + number - 1}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)

    def notifications(self) -> dict[str, Any]:
        """What alice is told of pushes, by the token that is printed."""
        (token,) = re.findall(r"^  alice +(\S+)$", self.said(), re.MULTILINE)
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/notifications")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def another(self, **env: str) -> subprocess.CompletedProcess[str]:
        """A second `hikyaku up`."""
        return self.run("up", **env)

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Another command with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *words],
            env={**self._env, **env},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def stop(self) -> float:
        """Ctrl-C; the seconds until it has ended."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(STOP_S + 5) == 0, self.said()
        return time.monotonic() - started


@contextmanager
def up(home: Path, port: int, **settings: str) -> Iterator[Up]:
    """A stack that is ready."""
    stack = Up(home, port, **settings)
    try:
        stack.until_ready()
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.process.kill()
            stack.process.wait(5)
