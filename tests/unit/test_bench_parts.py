"""The bench's parts that need no server: wire, messages, schedule, /proc, figures, report."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from bench import http, messages, plot, process, report, scenario, wire
from bench.cli import main
from bench.goals import FIGURES, shown
from bench.pace import Schedule
from bench.scenario import BenchError, Outcome
from bench.scenarios import SCENARIOS
from bench.stack import free_port_pair


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_frames_are_what_a_websocket_library_reads(size: int) -> None:
    server = ServerProtocol(max_size=None)
    server.state = server.state.OPEN
    server.parser = server.parse()
    next(server.parser)
    payload = b"a" * size
    server.receive_data(wire.frame(payload))
    (frame,) = server.events_received()
    assert (frame.opcode, frame.data) == (Opcode.TEXT, payload)  # type: ignore[union-attr]


def test_upgrade_must_be_the_answer_to_our_key() -> None:
    _, accept = wire.opening("h:1", "t", device="d")
    good = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: " + accept
    wire.check_upgrade(good, accept)
    for bad in (good + b"x", good.replace(b"101", b"403"), b"", b"HTTP/1.1 101 ok"):
        with pytest.raises(wire.WireError):
            wire.check_upgrade(bad, accept)


def test_close_reason() -> None:
    assert wire.close_reason(b"") == (1005, "")
    assert wire.close_reason(b"\x10\x68draining") == (4200, "draining")


@pytest.mark.parametrize("sender", [0, 37, 999_999])
def test_template_and_readers_agree(sender: int) -> None:
    template = messages.Template("run%d", sender, to="bob%s")
    frame = template.frame(123, 4_567_890_123)
    payload = frame[frame.index(b"{") :]
    fields = json.loads(payload)
    assert frame == wire.frame(payload)
    assert fields["to"] == "bob%s"
    assert fields["client_id"] == f"run%d-{sender:06d}-000000123"
    assert len(fields["content"]) == messages.BODY_BYTES
    event = b'{"type":"chat","seq":1,"content":"' + fields["content"].encode() + b'","x":1}'
    mark = event.find(messages.MARK)
    assert messages.sender(event, mark) == sender
    assert messages.number(event, mark) == 123
    assert messages.due_ns(event, mark) == 4_567_890_123


def test_group_template() -> None:
    frame = messages.Template("r", 1, group_id="g").frame(0, 0)
    assert json.loads(frame[frame.index(b"{") :])["group_id"] == "g"


def test_schedule_sends_all_at_their_times() -> None:
    sent: list[tuple[int, int]] = []

    async def run() -> Schedule:
        schedule = Schedule(1000, 50, lambda number, due: sent.append((number, due)))
        await schedule.run()
        return schedule

    schedule = asyncio.run(run())
    assert [number for number, _ in sent] == list(range(50))
    assert sent[-1][1] - sent[0][1] == pytest.approx(49e6, abs=10)
    assert len(schedule.late_ns) == 50
    assert min(schedule.late_ns) >= 0


def test_own_process_in_proc() -> None:
    words = ["edge", "--number", "7"]
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
    try:
        deadline = time.monotonic() + 10
        while process.name(child.pid) != "edge 7":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        names = process.named(os.getpid())
        assert names[os.getpid()] == "supervisor"
        assert names[child.pid] == "edge 7"
        assert process.rss_bytes(child.pid) > 1_000_000
    finally:
        child.kill()
        child.wait(timeout=10)
    assert process.name(child.pid) == ""
    assert child.pid not in process.cpu_s({child.pid: "edge 7"})


def test_cpu_meter_counts_this_process() -> None:
    meter = process.CpuMeter(os.getpid())
    meter.start()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert 0.1 <= meter.used_s()["supervisor"] < 5
    assert process.CpuMeter(None).used_s() == {}
    assert process.machine_busy_s() > time.process_time() / 2


def test_percentiles_by_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert scenario.percentile(values, 50) == 50
    assert scenario.percentile(values, 99) == 99
    assert scenario.percentile(values, 100) == 100
    assert scenario.percentile([3.0], 1) == 3
    curve = scenario.curve([n * 1e6 for n in values])
    assert curve == values


def test_only_loopback_is_loaded() -> None:
    assert http.loopback_address("http://127.0.0.1:8080") == "127.0.0.1:8080"
    assert http.loopback_address("localhost:1") == "localhost:1"
    with pytest.raises(ValueError, match="this machine"):
        http.loopback_address("http://192.0.2.1:80")


def test_figures_have_one_scenario_each_and_show_well() -> None:
    assert len({figure.metric for figure in FIGURES}) == len(FIGURES)
    by_metric = {figure.metric: figure for figure in FIGURES}
    assert by_metric["dm_p99_ms"].reached(2.9) is True
    assert by_metric["dm_per_s"].reached(9_999) is False
    assert by_metric["kill_lost"].reached(0) is True
    assert by_metric["kill_sent"].reached(1) is None
    assert by_metric["dm_per_s"].goal_text == "> 10,000"
    assert by_metric["kill_lost"].goal_text == "0"
    assert [shown(value) for value in (0.1234, 12.34, 12345.6, 0)] == [
        "0.123",
        "12.3",
        "12,346",
        "0",
    ]


def test_report_passes_by_the_median_and_is_written(tmp_path: Path) -> None:
    made = report.new_report({"cores": 2, "processor": "test"}, quick=False)
    made.runs["dm-latency"] = [
        Outcome(
            metrics={"dm_p99_ms": value},
            curves={"dm_ms": [1.0] * 100},
            notes={"n": 1.0, scenario.OTHERS: 0.5},
        )
        for value in (1.0, 2.0, 9.0)
    ]
    made.runs["idle"] = [Outcome(metrics={"idle_kb": 20.0}, cpu_us={"edge 1": 3.0, "mongod": 1.0})]
    made.runs["kill"] = [
        Outcome(
            metrics={"kill_lost": 0.0},
            curves={"kill_at_s": [1.0], "kill_wait_ms": [2.0], "kill_struck_s": [0.5]},
        )
    ]
    assert made.passed()
    console = Console(record=True, width=140)
    report.show(made, console)
    text = console.export_text()
    assert "pass" in text
    assert "mongod" in text
    assert "busy with other things" in text
    written = json.loads(report.write_json(made, tmp_path).read_bytes())
    assert len(written["runs"]["dm-latency"]) == 3
    assert plot.write_plot(made, tmp_path).stat().st_size > 10_000
    made.runs["dm-latency"].append(Outcome(metrics={"dm_p99_ms": 9.0}))
    assert not made.passed()


def test_an_empty_report_can_be_drawn(tmp_path: Path) -> None:
    made = report.new_report({}, quick=True)
    made.failures["idle"] = ["because [of] this"]
    console = Console(record=True)
    report.show(made, console)
    assert "because [of] this" in console.export_text()
    assert not made.passed()
    assert plot.write_plot(made, tmp_path).exists()


def test_wrong_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nothing"], ["--url", "http://127.0.0.1:1"], ["--runs", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "no scenario nothing" in capsys.readouterr().err
    assert main(["--url", "http://192.0.2.1", "--secret", "s"]) == 2


def test_ports_are_a_pair_and_scenarios_are_named() -> None:
    assert 1024 <= free_port_pair() < 65535
    assert all(name == one.name for name, one in SCENARIOS.items())


def test_reached_says_what_is_missing() -> None:
    with pytest.raises(BenchError, match="3 of 5 missing"):
        asyncio.run(scenario.reached(lambda: 2, 5, timeout_s=0.05))
    with pytest.raises(BenchError, match="1 more"):
        asyncio.run(scenario.reached(lambda: 6, 5, timeout_s=0.05))
