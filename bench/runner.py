"""One scenario in a process of its own, so that drawing a progress bar cannot delay a message.

The job comes as one JSON line on the standard input; answers go out as JSON lines: first what is
being done (`say`), last the outcome or the reason why there is none.
"""

import asyncio
import gc
import resource
import sys
import time
import traceback
from collections.abc import Callable

import msgspec
import uvloop
from msgspec import Struct

from .client import Closed, Refused
from .process import CpuMeter, machine_busy_s
from .scenario import OTHERS, BenchError, Context, Outcome, Target
from .scenarios import SCENARIOS
from .wire import WireError

OPEN_FILES = 16384
_EXPECTED = (BenchError, Closed, Refused, WireError, OSError)


class Job(Struct, kw_only=True):
    """What to run, on what."""

    scenario: str
    target: Target
    quick: bool


class Line(Struct, kw_only=True, omit_defaults=True):
    """One line of the answer; `outcome` or `failure` is in the last."""

    say: str = ""
    outcome: Outcome | None = None
    failure: str = ""


async def supervise(job: Job, say: Callable[[str], None], *, timeout_s: float) -> Outcome:
    """Run a job in a new process. Raises `BenchError` when it fails or exceeds its time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            async for text in process.stdout:
                line = msgspec.json.decode(text, type=Line)
                if line.failure:
                    raise BenchError(line.failure)
                if line.outcome is not None:
                    return line.outcome
                say(line.say)
    except TimeoutError:
        raise BenchError(f"not finished after {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    raise BenchError(f"the load generator ended with code {process.returncode}")


def _raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _write(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Read a job, run it, write the answer."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _raise_open_files()
    gc.collect()
    gc.freeze()
    scenario = SCENARIOS[job.scenario]
    context = Context(job.target, quick=job.quick, say=lambda text: _write(Line(say=text)))
    cpu = CpuMeter(job.target.supervisor)
    cpu.start()
    begin_s, busy_s, own_s = time.monotonic(), machine_busy_s(), time.process_time()
    try:
        outcome = uvloop.run(scenario.run(context))
        others_s = machine_busy_s() - busy_s - (time.process_time() - own_s)
        others_s -= sum(cpu.used_s().values())
        if job.target.supervisor:
            outcome.notes[OTHERS] = max(0.0, round(others_s / (time.monotonic() - begin_s), 2))
        _write(Line(outcome=outcome))
    except Exception as error:
        cause = _first(error)
        if not isinstance(cause, _EXPECTED):
            traceback.print_exc()
        said = str(cause) if isinstance(cause, BenchError) else f"{type(cause).__name__}: {cause}"
        _write(Line(failure=said))
        return 1
    return 0


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
