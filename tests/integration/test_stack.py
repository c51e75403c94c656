"""The whole stack as a person runs it: `hikyaku up` as a process, in a temporary home."""

import asyncio
import json
import os
import signal
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import local_nats
from deploy.cli import main
from deploy.errors import StartError
from deploy.ports import why_not
from deploy.stack import WORKERS
from tests.servers import Process, password, until_ready
from tests.up import READY_S, STOP_S, Up, poll, two_ports, up

from ..ports import free_port

EVERYTHING = {"nats", "mongod", "search", "edge-1", "edge-2", *WORKERS}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
        told = stack.said().partition("Hikyaku is ready in")[2]
        first, _, rest = told.partition(f"http://127.0.0.1:{port}/")
        assert "://" not in first
        assert f"ws://127.0.0.1:{port}/ws/chat" in rest
        assert "chat --as alice" in stack.said()
        doctor = stack.run("doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert f"{port} on 127.0.0.1 is this site's own, which runs" in doctor.stdout

        assert stack.notifications()["providers"] == ["webpush"], "with a key of the home"

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
        assert set(stopped[2:-3]) == set(WORKERS)
        assert set(stopped[-3:]) == {"nats", "mongod", "search"}
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
        local_nats.find(),
        tmp_path,
        site="test",
        port=port,
        monitor_port=monitor_port,
        links_folder=tmp_path / "links",
        password=password,
        env={},
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
