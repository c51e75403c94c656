"""What `hikyaku up` prints."""

import io
import sys

import pytest
from rich.console import Console

from deploy.service import (
    Died,
    Failed,
    Ready,
    Service,
    Starting,
    Stopped,
    Stopping,
    Waiting,
    describe_exit,
)
from deploy.up_view import PlainView, TableView, line


async def at_once() -> None:
    return


def a_service(name: str, address: str) -> Service:
    return Service(name=name, command=("true",), probe=at_once, env={}, address=address)


def test_events_as_lines() -> None:
    addresses = {"a": "nats://x"}
    assert line(Ready(name="a", after_s=1.23, again=False), addresses) == (
        "a is ready after 1.2 s (nats://x)"
    )
    assert line(Ready(name="a", after_s=0, again=True), addresses) == "a is ready again after 0.0 s"
    died = Died(name="a", how=describe_exit(-9), delay_s=0.5, lines=["why"])
    assert line(died, addresses) == ("a was killed by SIGKILL; starting it again in 0.5 s\n    why")
    assert line(Starting(name="a", pid=1), addresses) == ""
    assert line(Waiting(name="a", why="not ready: x"), addresses) == "a: not ready: x"
    assert describe_exit(0) == "exited with status 0"
    assert describe_exit(-33) == "was killed by signal 33"


def test_a_terminal_shows_a_table_and_then_lines() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    services = [a_service("nats", "nats://x"), a_service("edge-1", "ws://y")]
    view = TableView(services, console)
    for event in (
        Starting(name="nats", pid=1),
        Ready(name="nats", after_s=0.5, again=False),
        Starting(name="edge-1", pid=2),
        Failed(name="edge-1"),
        Stopping(name="nats"),
        Stopped(name="nats", killed=False),
    ):
        view.show(event)
    view.say("x" * 300)
    view.close()
    table, _, lines = output.getvalue().rpartition("edge-1")
    assert "nats     nats://x" in table
    assert "✓ ready" in table
    assert "0.5 s" in table
    assert "failed" in lines
    assert "nats has stopped" in lines
    assert "x" * 300 in lines


def test_a_closed_output_does_not_end_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    view = PlainView([])
    view.say("nobody reads this")
    view.close()
