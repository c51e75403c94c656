"""The whole stack as a person runs it: `hikyaku up` as a process, in a temporary home."""

import asyncio
import json
import os
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import local_nats
from deploy.cli import main
from deploy.errors import StartError
from deploy.ports import free_port, why_not
from deploy.stack import WORKERS
from tests.servers import Process, until_ready

READY_S = 60.0
STOP_S = 10.0
EVERYTHING = {"nats", "mongod", "edge-1", "edge-2", *WORKERS}


def poll(check: Callable[[], object], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def two_ports() -> int:
    """A free port with a free one after it."""
    while True:
        port = free_port()
        if not why_not("127.0.0.1", port + 1):
            return port


class Up:
    """One `hikyaku up`. Its output goes to a file."""

    def __init__(self, home: Path, port: int):
        self.home, self.port = home, port
        self.output = home.parent / f"{home.name}.out"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("HIKYAKU_")}
        self._env = {**kept, "HIKYAKU_HOME": str(home), "HIKYAKU_EDGE_PORT": str(port)}
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
            name = name or {"--number": f"edge-{words[-1]}", "worker": words[-1]}.get(words[-2], "")
            found[name] = int(child)
        return found

    def get(self, number: int, path: str) -> int:
        url = f"http://127.0.0.1:{self.port + number - 1}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)

    def another(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", "up"],
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
def up(home: Path, port: int) -> Iterator[Up]:
    stack = Up(home, port)
    try:
        stack.until_ready()
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.process.kill()
            stack.process.wait(5)


@contextmanager
def stranger(port: int) -> Iterator[None]:
    """A server that speaks no protocol of ours: it closes every connection."""

    class Reusing(socketserver.TCPServer):
        allow_reuse_address = True

    with Reusing(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join(5)


def test_it_starts_refuses_a_second_stops_and_starts_again(tmp_path: Path) -> None:
    home, port = tmp_path / "home", two_ports()
    with up(home, port) as stack:
        children = stack.children()
        assert children.keys() == EVERYTHING
        assert [stack.get(number, "/readyz") for number in (1, 2)] == [200, 200]
        assert f"ws://127.0.0.1:{port}/ws/chat" in stack.said()
        assert "chat --as alice" in stack.said()

        secret = (home / "secret").read_text().strip()
        assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
        for pid in (*children.values(), stack.process.pid):
            assert secret not in Path(f"/proc/{pid}/cmdline").read_text()

        second = stack.another()
        assert second.returncode == 2
        assert f"already runs in {home} (pid {stack.process.pid})" in second.stderr
        elsewhere = stack.another(HIKYAKU_HOME=str(tmp_path / "other"))
        assert elsewhere.returncode == 2
        assert f"port {port} on 127.0.0.1 is in use by" in elsewhere.stderr
        assert f"(pid {children['edge-1']})" in elsewhere.stderr
        assert "HIKYAKU_EDGE_PORT" in elsewhere.stderr

        assert stack.stop() < STOP_S
        assert not [name for name, pid in children.items() if runs(pid)]
        stopped = [
            said.split()[0] for said in stack.said().splitlines() if said.endswith(" has stopped")
        ]
        assert set(stopped[:2]) == {"edge-1", "edge-2"}
        assert set(stopped[2:-2]) == set(WORKERS)
        assert set(stopped[-2:]) == {"nats", "mongod"}
        assert "killed" not in stack.said()

    ports = json.loads((home / "ports.json").read_text())
    with up(home, port) as stack:
        assert json.loads((home / "ports.json").read_text()) == ports
        assert (home / "secret").read_text().strip() == secret
        children = stack.children()
        stack.process.kill()
        stack.process.wait(5)
        poll(lambda: not any(map(runs, children.values())), 5, "no process left")

    # A process is a zombie while the last of its threads still hold its sockets.
    poll(lambda: not why_not("127.0.0.1", ports["mongo_port"]), 5, "MongoDB's port is free")
    with stranger(ports["mongo_port"]), up(home, port) as stack:
        moved = json.loads((home / "ports.json").read_text())
        assert moved["mongo_port"] != ports["mongo_port"]
        assert moved["nats_port"] == ports["nats_port"]
        assert stack.get(2, "/readyz") == 200
        assert stack.stop() < STOP_S


def test_whatever_is_killed_comes_back_and_is_said(tmp_path: Path) -> None:
    with up(tmp_path / "home", two_ports()) as stack:
        children = stack.children()
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            assert stack.process.poll() is None, stack.said()
            return all(f"{name} is ready again after" in stack.said() for name in EVERYTHING)

        poll(back, READY_S, "everything is ready again")
        for name in EVERYTHING:
            assert f"{name} was killed by SIGKILL; starting it again in" in stack.said()
        assert [stack.get(number, "/readyz") for number in (1, 2)] == [200, 200]
        assert stack.children().keys() == EVERYTHING
        assert stack.stop() < STOP_S


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    with up(tmp_path / "home", two_ports()) as stack:
        children = stack.children()
        os.kill(children["edge-1"], signal.SIGSTOP)
        stack.process.send_signal(signal.SIGINT)
        poll(lambda: "Press Ctrl-C again" in stack.said(), STOP_S, "asked to stop")
        started = time.monotonic()
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(STOP_S) == 0
        assert time.monotonic() - started < 3
        assert not any(map(runs, children.values()))


@pytest.mark.parametrize("offset", [0, 1])
def test_an_edge_port_in_use_is_named_with_its_setting(tmp_path: Path, offset: int) -> None:
    port = two_ports()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port + offset))
        holder.listen()
        stack = Up(tmp_path / "home", port)
        assert stack.process.wait(30) == 2
    assert f"port {port + offset} on 127.0.0.1 is in use by" in stack.said()
    assert f"(pid {os.getpid()}); set HIKYAKU_EDGE_PORT to another port" in stack.said()
    assert "Traceback" not in stack.said()


def test_doctor_finds_this_machine_in_order_or_says_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = two_ports()
    monkeypatch.setenv("HIKYAKU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HIKYAKU_EDGE_PORT", str(port))
    assert main(["doctor"]) == 0
    healthy = capsys.readouterr().out
    assert "ok      nats-server  2.15." in healthy
    assert "ok      mongod" in healthy
    with stranger(port):
        assert main(["doctor"]) == 1
    problem = next(line for line in capsys.readouterr().out.splitlines() if "problem" in line)
    assert "stop it, or set HIKYAKU_EDGE_PORT" in problem


def test_a_nats_server_that_acks_before_its_disk_has_it_is_refused(tmp_path: Path) -> None:
    port, monitor_port = free_port(), free_port()
    service = local_nats.service(
        local_nats.find(), tmp_path, site="test", port=port, monitor_port=monitor_port, env={}
    )
    conf = tmp_path / "nats.conf"
    conf.write_text(conf.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    server = Process(service.command, tmp_path)
    server.start()
    try:
        with pytest.raises(StartError, match="does not fsync before it acks"):
            asyncio.run(until_ready(server, service.probe))
    finally:
        server.end()
