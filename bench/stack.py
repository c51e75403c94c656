"""A stack of the bench's own: `hikyaku up` on free ports, in a folder that goes with it."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from . import http
from .process import children
from .scenario import BenchError, Target

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
_ANY = "1000000"
_READY = b"Hikyaku is ready"


def free_port_pair() -> int:
    """A port that is free together with the next one."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise BenchError("no two neighbouring ports are free")


class Stack:
    """`async with Stack(folder) as target:` starts it, says where it is, and stops it."""

    def __init__(
        self,
        folder: Path,
        command: tuple[str, ...] = ("-m", "deploy.cli", "up"),
        *,
        without: tuple[str, ...] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`settings` are those that differ from a stack's own."""
        folder.mkdir(parents=True, exist_ok=True)
        self._home = Path(tempfile.mkdtemp(prefix="stack-", dir=folder))
        self._log = self._home / "up.log"
        self._secret = secrets.token_hex(32)
        self._port = free_port_pair()
        self._command = command
        kept = {key: text for key, text in os.environ.items() if not key.startswith("HIKYAKU_")}
        self.environ = {
            **kept,
            "HIKYAKU_HOME": str(self._home / "data"),
            "HIKYAKU_EDGE_PORT": str(self._port),
            "HIKYAKU_JWT_SECRET": self._secret,
            "HIKYAKU_MESSAGES_PER_S": _ANY,
            "HIKYAKU_MESSAGES_BURST": _ANY,
            "HIKYAKU_CONNECTIONS_PER_USER": "1000",
            "HIKYAKU_WITHOUT": ",".join(without),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        """What its commands need, too."""
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Target:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                env=self.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            await self._ready()
        except BaseException:
            await self.stop()
            raise
        return self._target

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def _target(self) -> Target:
        """Where the stack is."""
        edges = (f"127.0.0.1:{self._port}", f"127.0.0.1:{self._port + 1}")
        pid = self._process.pid if self._process else None
        logs = str(self._home / "data" / "log")
        return Target(edges=edges, secret=self._secret, supervisor=pid, logs=logs)

    async def _ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        while not (_READY in self._log.read_bytes() and await http.ready(self._target.edges)):
            assert self._process is not None
            if self._process.returncode is not None:
                raise BenchError(f"the stack ended while starting:\n{self._tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise BenchError(f"not ready after {READY_TIMEOUT_S:g} s:\n{self._tail()}")
            await asyncio.sleep(0.1)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    async def stop(self) -> None:
        """Stop it as Ctrl-C does, kill what is left after the deadline, remove its folder."""
        process = self._process
        if process is not None and process.returncode is None:
            family = [process.pid, *children(process.pid)]
            process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                for pid in family:
                    _kill(pid)
                await process.wait()
                print(f"the stack did not stop within {STOP_TIMEOUT_S:g} s", file=sys.stderr)
        shutil.rmtree(self._home, ignore_errors=True)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
