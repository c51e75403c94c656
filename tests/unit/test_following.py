"""Following single messages: which are chosen, what is written, and that nothing is done if off."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from bench.past import quantile
from broker.following import FollowConfig, Following, following, trace_of
from broker.metrics import Spread
from deploy import settings_check
from deploy.errors import SettingsError
from deploy.logs import JsonLines, TextLines
from deploy.settings_load import load

IDS = [str(384_619_256_045_879_296 + number) for number in range(2000)]


def noted(share: float, caplog: pytest.LogCaptureFixture) -> set[str]:
    caplog.clear()
    following = Following(FollowConfig(log_messages=share), "test")
    with caplog.at_level(logging.INFO, "hikyaku.messages"):
        for each in IDS:
            following.step("stored", each, seq=1)
    return {record.fields["id"] for record in caplog.records}  # type: ignore[attr-defined]


def test_every_process_chooses_the_same_share(caplog: pytest.LogCaptureFixture) -> None:
    assert noted(0, caplog) == set()
    assert noted(1, caplog) == set(IDS)
    tenth = noted(0.1, caplog)
    assert 100 < len(tenth) < 300
    assert noted(0.1, caplog) == tenth
    assert noted(0.5, caplog) > tenth


def test_nothing_follows_unless_it_is_set() -> None:
    assert following(FollowConfig(), "edge-1") is None
    script = (
        "import sys, edge.server, workers.main, workers.notify_parts, workers.index\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("[]\n", "")


@pytest.mark.parametrize(("ratio", "taken"), [("0", 0), ("1", 50), ("0.5", None)])
def test_the_ratio_of_traces_is_honoured(
    ratio: str, taken: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    followed = Following(FollowConfig(traces=True), "test")
    spans = [followed.begin(each, "dm.a.b") for each in IDS[:50]]
    traces = [span.trace for span in spans if span is not None and span.trace]
    assert 0 < len(traces) < 50 if taken is None else len(traces) == taken
    assert all(trace.startswith(b"00-") and int(trace[-2:], 16) & 1 for trace in traces)
    assert trace_of(b"NATS/1.0\r\ntraceparent: 00-x-01\r\nNats-Sequence: 1\r\n\r\n") == b"00-x-01"
    assert trace_of(b"NATS/1.0\r\nNats-Sequence: 1\r\n\r\n") == trace_of(None) == b""


def test_traces_without_the_packages_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({"HIKYAKU_TRACES": "on"}).settings.traces == "on"
    monkeypatch.setattr(settings_check, "EXPORTER", "no_such_package.http")
    with pytest.raises(SettingsError, match=r"pip install 'hikyaku\[otel\]'"):
        load({"HIKYAKU_TRACES": "on"})


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("hikyaku.x", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_lines_of_json() -> None:
    lines = JsonLines("edge-1")
    told = json.loads(lines.format(record("said %r\n", 'a "b"', fields={"id": "7", "seq": 3})))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "hikyaku.x",
        "process": "edge-1",
        "message": "said 'a \"b\"'\n",
        "id": "7",
        "seq": 3,
    }
    try:
        raise ValueError("no")
    except ValueError:
        failed = record("failed", exc_info=sys.exc_info())
    line = lines.format(failed)
    assert "\n" not in line
    assert "ValueError: no" in json.loads(line)["exception"]


def test_lines_for_people() -> None:
    line = TextLines().format(record("message 7 stored", fields={"id": "7", "seq": 3}))
    assert line.endswith(" INFO hikyaku.x: message 7 stored id=7 seq=3")
    assert TextLines().format(record("plain")).endswith("hikyaku.x: plain")


def test_a_spread_is_a_histogram() -> None:
    spread = Spread((1, 2.5, 10))
    spread.add_all([0.5, 1, 1.1, 2.5, 3, 11])
    assert spread.buckets() == [("1.0", 2), ("2.5", 4), ("10.0", 5), ("+Inf", 6)]
    assert spread.total == pytest.approx(19.1)
    buckets = [(1.0, 2.0), (2.5, 4.0), (10.0, 5.0), (float("inf"), 6.0)]
    assert quantile(buckets, 0.25) == pytest.approx(0.75)
    assert quantile(buckets, 0.5) == pytest.approx(1.75)
    assert quantile(buckets, 1.0) == 10.0
    assert quantile([(1.0, 0.0), (float("inf"), 0.0)], 0.5) == 0.0
