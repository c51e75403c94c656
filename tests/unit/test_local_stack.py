"""Ports, the home folder and the own servers of the local stack."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workers.main as worker_main
from deploy import local_mongo, local_nats, ports, stack
from deploy.errors import StartError, UserError
from deploy.home import locked, make_home
from deploy.ports import choose, free_port, holder, why_not
from deploy.settings import Settings


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as held:
        # As servers do: a port that rests after a connection is free all the same.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", free_port()))
        held.listen()
        yield int(held.getsockname()[1])


def test_a_port_in_use_is_told_with_its_holder() -> None:
    with taken() as port:
        assert f"(pid {os.getpid()})" in holder(port)
        assert why_not("127.0.0.1", port).startswith(f"port {port} on 127.0.0.1 is in use by ")
    assert why_not("127.0.0.1", port) == ""
    assert holder(port) == ""


def test_an_address_of_another_machine_is_refused() -> None:
    assert "no address of this machine" in why_not("192.0.2.1", 9)


def test_free_ports_are_not_those_of_outgoing_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = map(int, ports.EPHEMERAL_RANGE.read_text().split())
    assert ports.LOWEST <= free_port() < first
    monkeypatch.setattr(ports, "EPHEMERAL_RANGE", Path("/nowhere"))
    assert ports.LOWEST <= free_port() < 32_768


def test_ports_are_chosen_once_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = choose(file, {"nats_port": 0, "mongo_port": 0})
    assert len(set(first.values())) == 2
    assert choose(file, {"nats_port": 0, "mongo_port": 0}) == first
    assert choose(file, {"nats_port": 0}) == {"nats_port": first["nats_port"]}
    assert json.loads(file.read_text()) == first


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with taken() as port:
        file.write_text(json.dumps({"nats_port": port, "mongo_port": 0}))
        chosen = choose(file, {"nats_port": 0})
        assert chosen["nats_port"] != port
    assert choose(file, {"nats_port": 0}, avoid=chosen.values()) != chosen


@pytest.mark.parametrize("content", ["", "[]", "{", '{"nats_port": "x"}'])
def test_an_unreadable_memory_of_ports_is_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    assert choose(file, {"nats_port": 0}) == json.loads(file.read_text())


def test_a_configured_port_is_used_or_refused_by_name(tmp_path: Path) -> None:
    port = free_port()
    assert choose(tmp_path / "p", {"nats_port": port}) == {"nats_port": port}
    with taken() as port, pytest.raises(UserError, match="set HIKYAKU_NATS_PORT to another port"):
        choose(tmp_path / "p", {"nats_port": port})


# --- the home -------------------------------------------------------------------------------------


def test_a_home_is_private_and_locked_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_home(home)
    make_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    message = rf"already runs in .* \(pid {os.getpid()}\)"
    with locked(home), pytest.raises(UserError, match=message), locked(home):
        raise AssertionError("locked twice")
    with locked(home):
        pass


def test_the_lock_waits_for_the_children_of_a_dead_supervisor(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.3)"
    with locked(tmp_path) as fd:
        child = subprocess.Popen([sys.executable, "-S", "-c", code], pass_fds=(fd,))
        (tmp_path / "up.lock").write_text("4194305")  # no process has this id
    with locked(tmp_path):
        assert child.wait(5) == 0


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="set HIKYAKU_HOME"):
        make_home(tmp_path / "file" / "home")


# --- the own servers ------------------------------------------------------------------------------


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_missing_library_of_mongod_is_told_with_its_package(tmp_path: Path) -> None:
    program = script(
        tmp_path / "mongod",
        "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2\n"
        "exit 127",
    )
    with pytest.raises(
        StartError, match=r"needs the library libcurl\.so\.4: run `apt-get install libcurl4`"
    ):
        local_mongo.version(program)


def test_versions_are_read(tmp_path: Path) -> None:
    mongod = script(tmp_path / "mongod", "echo 'db version v7.0.14'")
    assert local_mongo.version(mongod) == "7.0.14"
    nats = script(tmp_path / "nats-server", "echo 'nats-server: v2.15.1'")
    assert local_nats.version(nats) == "2.15.1"
    with pytest.raises(StartError, match="does not run"):
        local_nats.version(tmp_path / "nothing")


def test_a_server_that_does_not_sync_is_refused() -> None:
    local_nats.check_syncs(b'{"jetstream": {"config": {"sync_always": true}}}')
    for answer in (b"{}", b'{"jetstream": {"config": {"sync_interval": 120000000000}}}'):
        with pytest.raises(StartError, match="does not fsync before it acks"):
            local_nats.check_syncs(answer)


# --- the services ---------------------------------------------------------------------------------


SECRET = "a secret of at least thirty-two bytes"


def edge_port() -> int:
    port = free_port()
    while why_not("127.0.0.1", port + 1):
        port = free_port()
    return port


def test_there_is_a_worker_for_each_name() -> None:
    assert set(stack.WORKERS) <= set(worker_main.WORKERS)


def test_workers_may_be_left_out(tmp_path: Path) -> None:
    make_home(tmp_path)
    settings = Settings(home=str(tmp_path), edge_port=edge_port(), without=("index", "notify"))
    services = {each.name: each for each in stack.declare(settings, {"PATH": os.environ["PATH"]})}
    assert not {"index", "notify", "search"} & set(services)
    assert {"directory", "persist", "query", "archive"} <= set(services)


def test_own_servers_get_no_settings_and_others_learn_where_they_are(tmp_path: Path) -> None:
    make_home(tmp_path)
    settings = Settings(home=str(tmp_path), edge_port=edge_port(), jwt_secret=SECRET, drain_s=60)
    environ = {"PATH": os.environ["PATH"], "HIKYAKU_JWT_SECRET": SECRET}
    services = {each.name: each for each in stack.declare(settings, environ)}
    assert list(services) == [
        *("nats", "mongod", "search"),
        *stack.WORKERS,
        *("edge-1", "edge-2"),
    ]
    search = services["search"]
    assert search.command[-2:] == ("search", "serve")
    key = search.env["HIKYAKU_SEARCH_KEY"]
    assert len(key) == 64
    assert (tmp_path / "search.key").read_text().strip() == key
    assert (tmp_path / "search.key").stat().st_mode & 0o777 == 0o600
    assert "HIKYAKU_JWT_SECRET" not in search.env
    assert "HIKYAKU_JWT_SECRET" not in {*services["nats"].env, *services["mongod"].env}
    edge = services["edge-2"]
    assert edge.command[-3:] == ("edge", "--number", "2")
    assert edge.env["HIKYAKU_NATS_URL"] == services["nats"].address
    assert edge.env["HIKYAKU_MONGO_URL"].startswith(services["mongod"].address)
    assert edge.env["HIKYAKU_SEARCH_URL"] == search.address
    assert edge.env["HIKYAKU_SEARCH_KEY"] == key
    assert float(edge.env["HIKYAKU_DRAIN_S"]) == stack.MAX_DRAIN_S < edge.stop_s
    assert (edge.after, edge.uses) == (("nats",), stack.WORKERS)
    words = " ".join(word for each in services.values() for word in each.command)
    assert SECRET not in words
    assert key not in words
    ports_used = [
        each.env["HIKYAKU_WORKER_HEALTH_PORT"]
        for each in services.values()
        if each.name in stack.WORKERS
    ]
    assert len(set(ports_used)) == len(stack.WORKERS)


def test_given_servers_are_used_as_they_are(tmp_path: Path) -> None:
    make_home(tmp_path)
    settings = Settings(
        home=str(tmp_path),
        edges=1,
        edge_port=edge_port(),
        nats_url=("nats://elsewhere:4222",),
        mongo_url="mongodb://elsewhere/",
        search_url="http://elsewhere:7700",
        worker_health_port=free_port(),
    )
    services = {each.name: each for each in stack.declare(settings, {})}
    assert list(services) == [*stack.WORKERS, "edge-1"]
    assert services["edge-1"].after == ()
    first = services[stack.WORKERS[0]]
    assert first.env["HIKYAKU_WORKER_HEALTH_PORT"] == str(settings.worker_health_port)
    assert "HIKYAKU_NATS_URL" not in first.env


def test_only_the_servers(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path))
    make_home(tmp_path)
    names = [each.name for each in stack.declare(settings, dict(os.environ), servers_only=True)]
    assert names == ["nats", "mongod", "search"]
