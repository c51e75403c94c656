"""One child process of the supervisor: started with its log file, stopped, killed."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 8 * 1024
LINE_CHARS = 160

_WAITS = re.compile(r"(?:waiting for|not ready:) .+")

_CHILD = Path(__file__).with_name("child.py")


def _open_log(log: Path) -> BinaryIO:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    return log.open("ab")


class Child:
    """A running process that leads its own session and dies with this one."""

    def __init__(self, process: Process, log: Path, offset: int):
        self._process = process
        self._log = log
        self._offset = offset
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        command: tuple[str, ...],
        log: Path,
        *,
        env: Mapping[str, str],
        keep_fds: tuple[int, ...] = (),
    ) -> "Child":
        """Start `command` with both outputs appended to `log`; a large log is put aside first."""
        wrapper = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()))
        with _open_log(log) as output:
            offset = output.tell()
            process = await asyncio.create_subprocess_exec(
                *wrapper,
                *command,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                start_new_session=True,
                pass_fds=keep_fds,
            )
        return cls(process, log, offset)

    async def wait(self) -> int:
        """The exit code, negative for a signal."""
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> int:
        """Kill the process and what it has started, and wait for its end."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return await self._process.wait()

    def last_lines(self, count: int) -> list[str]:
        """The end of what this process wrote to its log; of objects of JSON what they say."""
        lines = [_said(line) for line in self._tail()]
        return [line[:LINE_CHARS] for line in lines if line.strip()][-count:]

    def waits(self) -> str:
        """What it said last that it waits for; empty if it did not."""
        found = [each[0] for line in self._tail() if (each := _WAITS.search(_said(line)))]
        return found[-1] if found else ""

    def _tail(self) -> list[str]:
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._offset, end - TAIL_BYTES))
            return log.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()


def _said(line: str) -> str:
    """The message of a line that is an object of JSON, as mongod's; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line)
    except ValueError:
        return line
    message = found.get("message", found.get("msg"))
    if not isinstance(message, str):
        return line
    attributes = found.get("attr")
    why = attributes.get("error") if isinstance(attributes, dict) else None
    return f"{message}: {why}" if why else message
