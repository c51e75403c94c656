"""The supervisor, with small Python programs as services."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy import process, supervisor
from deploy.errors import StartError
from deploy.service import (
    AllReady,
    Died,
    Event,
    Failed,
    NotReady,
    Ready,
    Service,
    Starting,
    Stopped,
    Stopping,
    Waiting,
)
from deploy.supervisor import Supervisor, backoff_s

WITHIN_S = 15.0

FOREVER = "import signal; signal.pause()"
STUBBORN = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
while True: signal.pause()
"""


class Seen:
    """Collects what a supervisor reports."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Any], name: str = "") -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "name", "") == name]

    def order(self, kind: type[Any]) -> list[str]:
        return [each.name for each in self.events if isinstance(each, kind)]

    def pid(self, name: str) -> int:
        pid: int = self.of(Starting, name)[-1].pid
        return pid


async def eventually(check: Callable[[], object], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def at_once() -> None:
    return


def service(name: str, code: str = FOREVER, *arguments: str, **more: Any) -> Service:
    command = (sys.executable, "-I", "-S", "-c", code, *arguments)
    return Service(**{"name": name, "command": command, "probe": at_once, "env": {}, **more})


class Running:
    """A supervisor at work, and the two ways to end it."""

    def __init__(self, services: list[Service], log_dir: Path):
        self.seen = Seen()
        self.stop, self.kill = asyncio.Event(), asyncio.Event()
        self.supervisor = Supervisor(services, log_dir=log_dir, report=self.seen)
        self.task = asyncio.create_task(self.supervisor.run(self.stop, self.kill))

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(WITHIN_S):
            await self.task


@asynccontextmanager
async def running(services: list[Service], log_dir: Path) -> Any:
    work = Running(services, log_dir)
    try:
        yield work
    finally:
        work.kill.set()
        work.stop.set()
        await asyncio.wait([work.task], timeout=WITHIN_S)
        assert not [
            pid for pid in [e.pid for e in work.seen.events if isinstance(e, Starting)] if runs(pid)
        ]


def run(test: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(limited())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.01)


# --- starting -------------------------------------------------------------------------------------


def test_services_start_in_order_and_independent_ones_together(tmp_path: Path) -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def gated() -> None:
            if not gate.is_set():
                raise NotReady("the gate is closed")

        services = [
            service("last", after=("first", "second")),
            service("first", probe=gated),
            service("second", probe=gated),
        ]
        async with running(services, tmp_path) as work:
            await eventually(lambda: len(work.seen.order(Starting)) == 2)
            assert set(work.seen.order(Starting)) == {"first", "second"}
            assert work.seen.order(Ready) == []
            gate.set()
            await eventually(lambda: work.seen.of(AllReady))
            assert work.seen.order(Starting)[-1] == work.seen.order(Ready)[-1] == "last"
            assert not any(event.again for event in work.seen.of(Ready, "first"))

    run(test())


def test_a_service_that_ends_before_it_is_ready_fails_the_start(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    async def test() -> None:
        code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
        services = [service("good"), service("bad", code, probe=never, after=("good",))]
        async with running(services, tmp_path) as work:
            with pytest.raises(StartError) as caught:
                await work.task
            assert str(caught.value).startswith("bad exited with status 3; the last lines of ")
            assert sorted(str(caught.value).splitlines()[1:]) == ["  one", "  two"]
            assert work.seen.of(Failed, "bad")
            assert work.seen.of(Stopped, "good") == [Stopped(name="good", killed=False)]

    run(test())


def test_a_service_that_is_not_ready_in_time_says_what_is_missing(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("the log does not answer")

    async def test() -> None:
        async with running([service("slow", probe=never, ready_s=0.2)], tmp_path) as work:
            with pytest.raises(StartError, match=r"within 0\.2 s: the log does not answer"):
                await work.task

    run(test())


def test_what_a_process_says_that_it_waits_for_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.0)
    monkeypatch.setattr(supervisor, "LOOK_S", 0.01)
    code = """
import json, signal, sys
for text in ("one", "two", "two", "two"):
    print("12:00 WARNING hikyaku.worker: waiting for the log: " + text, flush=True)
    sys.stdin = open(sys.argv[1]) if text == "one" else None
print(json.dumps({"level": "warning", "message": "not ready: three"}), flush=True)
signal.pause()
"""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def never() -> None:
        raise NotReady("nothing answers")

    async def test() -> None:
        slow = service("slow", code, str(gate), probe=never, ready_s=3)
        async with running([slow], tmp_path) as work:
            await eventually(lambda: work.seen.of(Waiting, "slow"))
            assert work.seen.of(Waiting, "slow")[0].why == "waiting for the log: one"
            await asyncio.to_thread(gate.write_text, "")
            with pytest.raises(StartError, match=r"not ready within 3 s: three"):
                await work.task
            said = [each.why for each in work.seen.of(Waiting, "slow")]
            assert said[-1] == "not ready: three"
            assert len(said) == len(set(said))

    run(test())


def test_a_probe_can_refuse_for_good(tmp_path: Path) -> None:
    async def refuse() -> None:
        raise StartError("not on this server")

    async def test() -> None:
        async with running([service("any", probe=refuse)], tmp_path) as work:
            with pytest.raises(StartError, match="not on this server"):
                await work.task

    run(test())


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    async def test() -> None:
        missing = service("ghost", command=("/no/such/program",), probe=never)
        async with running([missing], tmp_path) as work:
            with pytest.raises(StartError, match="cannot run /no/such/program: No such file"):
                await work.task

    run(test())


def test_children_have_their_own_session_and_no_input(tmp_path: Path) -> None:
    async def test() -> None:
        code = "import sys, signal; print(repr(sys.stdin.read()), flush=True); signal.pause()"
        async with running([service("one", code)], tmp_path) as work:
            await eventually(lambda: work.seen.of(AllReady))
            pid = work.seen.pid("one")
            assert os.getsid(pid) == pid != os.getsid(0)
            await eventually(lambda: (tmp_path / "one.log").read_text() == "''\n")

    run(test())


# --- restarts -------------------------------------------------------------------------------------


def test_a_service_that_dies_is_started_again_with_growing_delay(tmp_path: Path) -> None:
    async def test() -> None:
        code = "import sys; print('dying', flush=True); sys.exit(7)"
        async with running([service("weak", code)], tmp_path) as work:
            await eventually(lambda: len(work.seen.of(Died, "weak")) >= 4)
            deaths = work.seen.of(Died, "weak")[:4]
            assert {death.how for death in deaths} == {"exited with status 7"}
            assert [death.delay_s for death in deaths] == [0.01, 0.02, 0.04, 0.08]
            assert all(death.lines == ["dying"] for death in deaths)

    run(test())


def test_a_killed_service_is_ready_again_and_said_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with running([service("one"), service("two")], tmp_path) as work:
            await eventually(lambda: work.seen.of(AllReady))
            os.kill(work.seen.pid("one"), signal.SIGKILL)
            await eventually(lambda: len(work.seen.of(Ready, "one")) == 2)
            assert work.seen.of(Died, "one")[0].how == "was killed by SIGKILL"
            assert work.seen.of(Ready, "one")[1].again
            assert len(work.seen.of(Starting, "two")) == 1
            assert len(work.seen.of(AllReady)) == 1

    run(test())


def test_the_delay_starts_anew_after_a_healthy_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HEALTHY_S", 0.0)

    async def test() -> None:
        async with running([service("one")], tmp_path) as work:
            for count in (1, 2, 3):
                await eventually(partial(lambda n: len(work.seen.of(Ready, "one")) == n, count))
                os.kill(work.seen.pid("one"), signal.SIGKILL)
            await eventually(lambda: len(work.seen.of(Died, "one")) == 3)
            assert {death.delay_s for death in work.seen.of(Died, "one")} == {0.01}

    run(test())


def test_a_service_that_does_not_get_ready_again_is_killed_and_retried(tmp_path: Path) -> None:
    async def test() -> None:
        healthy = asyncio.Event()
        healthy.set()

        async def probe() -> None:
            if not healthy.is_set():
                raise NotReady("broken")

        async with running([service("one", probe=probe, ready_s=0.1)], tmp_path) as work:
            await eventually(lambda: work.seen.of(AllReady))
            healthy.clear()
            os.kill(work.seen.pid("one"), signal.SIGKILL)
            await eventually(lambda: len(work.seen.of(Died, "one")) >= 2)
            assert work.seen.of(Died, "one")[1].how == "was not ready within 0.1 s: broken"
            healthy.set()
            await eventually(lambda: len(work.seen.of(Ready, "one")) == 2)

    run(test())


def test_backoff_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    delays = [backoff_s(failures) for failures in range(10)]
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert backoff_s(10_000) == supervisor.MAX_DELAY_S


# --- stopping -------------------------------------------------------------------------------------


def test_services_stop_before_those_they_use(tmp_path: Path) -> None:
    async def test() -> None:
        services = [
            service("nats"),
            service("worker", after=("nats",)),
            service("edge", after=("nats",), uses=("worker",)),
        ]
        async with running(services, tmp_path) as work:
            await eventually(lambda: work.seen.of(AllReady))
            await work.end()
            assert [e.name for e in work.seen.events if isinstance(e, Stopping | Stopped)] == [
                *("edge", "edge", "worker", "worker", "nats", "nats")
            ]
            assert not any(runs(work.seen.pid(name)) for name in ("nats", "worker", "edge"))

    run(test())


def test_a_service_that_does_not_stop_in_its_grace_is_killed(tmp_path: Path) -> None:
    async def test() -> None:
        deaf = tmp_path / "deaf"
        async with running([service("one", STUBBORN, str(deaf), stop_s=0.1)], tmp_path) as work:
            await eventually(deaf.exists)
            await work.end()
            assert work.seen.of(Stopped, "one") == [Stopped(name="one", killed=True)]

    run(test())


def test_a_second_request_kills_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        deaf = tmp_path / "deaf"
        async with running([service("one", STUBBORN, str(deaf), stop_s=60)], tmp_path) as work:
            await eventually(deaf.exists)
            work.stop.set()
            await eventually(lambda: work.seen.of(Stopping, "one"))
            work.kill.set()
            await work.end()
            assert not runs(work.seen.pid("one"))

    run(test())


def test_the_stop_ends_in_time_however_many_are_stubborn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_S", 0.2)

    async def test() -> None:
        marks = [tmp_path / f"deaf{number}" for number in range(3)]
        services = [
            service(
                f"s{number}",
                STUBBORN,
                str(mark),
                stop_s=60,
                uses=tuple(f"s{i}" for i in range(number)),
            )
            for number, mark in enumerate(marks)
        ]
        async with running(services, tmp_path) as work:
            await eventually(lambda: all(mark.exists() for mark in marks))
            await work.end()
            assert work.seen.order(Stopped) == ["s2", "s1", "s0"]

    run(test())


def test_stopping_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    async def test() -> None:
        services = [service("one", probe=never), service("two", after=("one",))]
        async with running(services, tmp_path) as work:
            await eventually(lambda: work.seen.of(Starting, "one"))
            await work.end()
            assert work.seen.order(Stopped) == ["one"]
            assert work.seen.order(Starting) == ["one"]

    run(test())


def test_stopping_while_a_restart_waits_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 15.0)

    async def test() -> None:
        async with running([service("one")], tmp_path) as work:
            await eventually(lambda: work.seen.of(AllReady))
            os.kill(work.seen.pid("one"), signal.SIGKILL)
            await eventually(lambda: work.seen.of(Died, "one"))
            await work.end()
            assert work.seen.order(Starting) == ["one"]

    run(test())


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from deploy.service import Service
from deploy.supervisor import Supervisor

async def at_once(): pass

def report(event): print(event, flush=True)

stubborn = {STUBBORN!r}
services = [
    Service(name=n, command=(sys.executable, "-c", stubborn, n), probe=at_once, env={{}})
    for n in ("one", "two")
]
supervisor = Supervisor(services, log_dir=Path("."), report=report)
asyncio.run(supervisor.run(asyncio.Event(), asyncio.Event()))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(supervisor.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE
    ) as parent:

        async def test() -> None:
            await eventually(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists())
            children = children_of(parent.pid)
            assert len(children) == 2
            parent.kill()
            await eventually(lambda: not any(map(runs, children)))

        try:
            run(test())
        finally:
            parent.kill()


# --- logs and words -------------------------------------------------------------------------------


def test_a_large_log_is_put_aside_and_only_new_lines_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 100)
    log = tmp_path / "one.log"
    log.write_text("old\n" * 30)

    async def once(text: str) -> list[str]:
        command = (sys.executable, "-c", f"print({text!r})")
        child = await process.Child.start(command, log, env={})
        assert await child.wait() == 0
        return child.last_lines(5)

    async def test() -> None:
        assert await once("new") == ["new"]
        assert await once("newer\n\n" + "x" * 1000) == ["newer", "x" * process.LINE_CHARS]

    run(test())
    assert (tmp_path / "one.log.1").read_text() == "old\n" * 30
    assert log.read_text().startswith("new\nnewer\n")
