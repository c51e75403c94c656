"""What a site tells its operators: metrics, logs, traces, `hikyaku status`. One stack for all."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chat import Clients, names
from tests.collector import Collector, collector
from tests.metrics import sample
from tests.monitoring import DASHBOARDS, alerts, expressions, named, selected
from tests.push_server import Authority, PushServer
from tests.servers import SECRET, Hikyaku, eventually
from tests.up import Up, two_ports, up

pytestmark = pytest.mark.anyio

UNITS = ("seconds", "bytes", "events", "messages")
WORKERS = {"directory", "persist", "query", "index", "archive", "notify", "files", "relay"}


class Site(NamedTuple):
    """A whole stack whose messages are all followed."""

    stack: Up
    edges: list[Hikyaku]
    told: Collector

    def metrics(self) -> dict[str, str]:
        """What each process tells Prometheus."""
        return {name: each.get("/metrics") for name, each in self.processes().items()}

    def processes(self) -> dict[str, Hikyaku]:
        """By name; only for HTTP."""
        ports = json.loads((self.stack.home / "ports.json").read_text())
        own = {
            re.findall(r"\((\w+)\)", name)[0]: port for name, port in ports.items() if "(" in name
        }
        assert own.keys() == WORKERS
        folder = self.stack.home.parent / "unused"
        found = {name: Hikyaku(folder, [], {}, port) for name, port in own.items()}
        return found | {f"edge-{number}": each for number, each in enumerate(self.edges, 1)}

    def lines(self) -> list[dict[str, Any]]:
        """All lines of all logs of our own processes."""
        return [
            json.loads(line)
            for path in sorted((self.stack.home / "log").iterdir())
            if path.stem not in ("nats", "mongod")
            for line in path.read_text().splitlines()
        ]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("observed")
    port, authority = two_ports(), Authority(folder / "ca")
    async with PushServer(authority) as hook:
        with collector() as told:
            settings = {
                "HIKYAKU_JWT_SECRET": SECRET,
                "HIKYAKU_LOG_FORMAT": "json",
                "HIKYAKU_LOG_MESSAGES": "1",
                "HIKYAKU_TRACES": "on",
                "HIKYAKU_PUSH_WAIT_S": "0.1",
                "HIKYAKU_WEBHOOK_URL": f"{hook.url}/push",
                "HIKYAKU_WEBHOOK_SECRET": SECRET,
                "OTEL_EXPORTER_OTLP_ENDPOINT": told.url,
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                **authority.env,
            }
            with up(folder / "home", port, **settings) as stack:
                edges = [Hikyaku(folder / "edge", [], {}, port + number) for number in (0, 1)]
                yield Site(stack, edges, told)


async def test_a_message_can_be_followed_through_all_processes(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        group = (await a.group(bob, carol))["group_id"]
        ack = await a.tell(group, "nothing that belongs into a log")
        await b.until("group_chat", seq=ack["seq"])
        message_id = ack["message_id"]

        def steps() -> set[tuple[str, str]]:
            said = re.compile(rf"message {message_id} (\w+)")
            found = ((each["process"], said.fullmatch(each["message"])) for each in site.lines())
            return {(process, match[1]) for process, match in found if match is not None}

        wanted = {
            *(("edge-1", step) for step in ("received", "stored", "delivered")),
            ("edge-2", "delivered"),
            ("persist", "persisted"),
            ("index", "indexed"),
            *(("notify", step) for step in ("planned", "pushed")),
        }
        await eventually(lambda: steps() >= wanted, within_s=30, what="all steps are logged")
        assert steps() == wanted

        spans = {
            ("hikyaku-edge-1", "message"),
            *((f"hikyaku-{process}", step) for process, step in wanted if step != "received"),
        }
        await eventually(
            lambda: set(site.told.trace(message_id)) >= spans, within_s=30, what="one trace"
        )
        assert set(site.told.trace(message_id)) == spans

    lines = site.lines()
    assert all({"time", "level", "logger", "process", "message"} <= each.keys() for each in lines)
    stored = next(each for each in lines if each["message"] == f"message {message_id} stored")
    assert (stored["id"], stored["seq"], stored["chat"]) == (
        message_id,
        ack["seq"],
        f"group.{group}",
    )
    everything = json.dumps(lines)
    assert "nothing that belongs" not in everything
    assert "eyJ" not in everything, "a token"
    assert SECRET not in everything


async def test_metrics_follow_the_conventions(site: Site) -> None:
    for process, text in site.metrics().items():
        declared = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
        assert len(declared) == len(set(declared)), process
        seen = set()
        for family in text_string_to_metric_families(text):
            name = family.name
            assert re.fullmatch("(hikyaku|process)_[a-z0-9_]+", name), name
            assert family.documentation, name
            assert family.type in ("counter", "gauge", "histogram"), name
            assert not re.search("_(ms|s|us|kb|mb|total|count|sum|bucket|p50|p99|max)$", name), name
            if "seconds" in name or "bytes" in name:
                assert re.search("_(seconds|bytes)$", name), name
            if family.type == "histogram":
                assert name.endswith(UNITS), name
            for each in family.samples:
                key = (each.name, *sorted(each.labels.items()))
                assert key not in seen, key
                seen.add(key)
                if family.type == "counter":
                    assert each.name in (f"{name}_total", f"{name}_created"), each.name
        assert "hikyaku_" in text
        if (promtool := shutil.which("promtool")) is not None:
            checked = await anyio.run_process(
                [promtool, "check", "metrics"], input=text.encode(), check=False
            )
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b""), process


async def test_alerts_and_dashboards_show_what_there_is(site: Site) -> None:
    there: dict[str, set[str]] = {"up": set()}
    for text in site.metrics().values():
        for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
            there.setdefault(name, set())
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                there.setdefault(each.name, set()).update(each.labels)
    shown = [rule["expr"] for rule in alerts()]
    shown += [each for path in DASHBOARDS for each in expressions(path)]
    assert not {name for each in shown for name in named(each) if name not in there}
    wrong = {
        (name, label)
        for each in shown
        for name, label in selected(each)
        if label not in there[name]
    }
    assert not wrong
    assert named("rate(hikyaku_commit_secnds_bucket[5m])") - there.keys(), "it can fail"


async def test_numbers_move(site: Site) -> None:
    alice, bob = names("alice", "bob")
    edge = site.edges[0]

    def number(name: str, **labels: str) -> float:
        return sample(edge.get("/metrics"), name, **labels)

    def stored() -> tuple[float, ...]:
        events = number("commit_events_total", result="stored")
        return events, number("commit_batch_events_sum"), number("commit_received_total")

    async with Clients() as connect:
        a, b = await connect(edge, alice), await connect(site.edges[1], bob)
        before, commits = stored(), number("commit_seconds_count")
        for index in range(5):
            await a.say(bob, str(index))
        await b.until("chat", content="4")
        assert stored() == tuple(each + 5 for each in before)
        assert number("commit_seconds_count") == commits + 5
        assert number("commit_batch_events_count") == number("commit_seconds_count")
        assert number("edge_ready") == 1
        assert number("edge_machine_lease_seconds") > 0
        assert number("presence_leases_total") == 1
        await eventually(lambda: number("log_size_bytes") > 0)
        assert number("log_limit_bytes") > number("log_size_bytes")
        text = edge.get("/metrics")
        files = re.search(r"^process_open_fds (\S+)$", text, re.MULTILINE)
        assert files is not None
        assert 10 < float(files[1]) < 1000
    persist = site.processes()["persist"]
    await eventually(
        lambda: sample(persist.get("/metrics"), "persist_delay_seconds_count") >= 5, within_s=20
    )
    await eventually(
        lambda: sample(persist.get("/metrics"), "consumer_oldest_seconds", consumer="persist") == 0
    )


async def test_status(site: Site) -> None:
    (alice,) = names("alice")

    async def status(*words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(site.stack.run, "status", *words)

    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        await client.say("bob", "in the log")

        async def connections() -> int:
            return sum(each["connections"] for each in (await read())["broker"]["edges"])

        async def read() -> dict[str, Any]:
            answer = await status("--json")
            assert answer.stderr == ""
            found: dict[str, Any] = json.loads(answer.stdout)
            assert answer.returncode == (0 if found["ok"] else 1), found["problems"]
            return found

        async with asyncio.timeout(30):
            while await connections() != 1:
                pass
        found = await read()
    assert found["ok"], found["problems"]
    assert {each["worker"] for each in found["broker"]["workers"]} == WORKERS - {"archive"}
    assert {each["name"] for each in found["broker"]["consumers"]} == {"persist", "index", "notify"}
    (log,) = (each for each in found["broker"]["streams"] if each["name"] == "CHAT")
    assert log["messages"] > 0
    assert log["copies"] == log["replicas"] == 1
    assert [each["error"] for each in found["servers"]] == ["", "", ""]
    assert found["broker"]["machine_leases"] == 2

    shown = await status()
    assert shown.returncode == 0, shown.stdout
    for part in (
        "edge-1-",
        "persist",
        "CHAT",
        "KV_presence",
        "MongoDB at",
        "the site local is well",
    ):
        assert part in shown.stdout


async def test_status_says_what_is_wrong(site: Site, tmp_path: Path) -> None:
    nobody = "127.0.0.1:9"
    wrong = await asyncio.to_thread(
        lambda: site.stack.run(
            "status", "--json", HIKYAKU_MONGO_URL=f"mongodb://x:secret@{nobody}/"
        )
    )
    assert wrong.returncode == 1
    found = json.loads(wrong.stdout)
    (problem,) = found["problems"]
    assert problem.startswith(f"MongoDB does not answer at {nobody}; start it or see its log")
    assert not found["archived_known"]
    away = await asyncio.to_thread(
        lambda: site.stack.run("status", HIKYAKU_NATS_URL=f"nats://x:secret@{nobody}")
    )
    assert (away.returncode, away.stdout) == (2, "")
    assert away.stderr.startswith(f"hikyaku: NATS does not answer at nats://{nobody}: ")
    assert away.stderr.endswith("; start it, or set HIKYAKU_NATS_URL to where it is\n")
    assert "secret" not in away.stderr
    none = await asyncio.to_thread(
        lambda: site.stack.run("status", HIKYAKU_HOME=str(tmp_path / "none"))
    )
    assert none.returncode == 2
    assert "does `hikyaku up` run with HIKYAKU_HOME=" in none.stderr


async def test_status_misses_a_worker_that_is_paused(site: Site) -> None:
    pid = site.stack.children()["query"]
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = await asyncio.to_thread(site.stack.run, "status")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answer.returncode == 1
    assert "no query answers: start `hikyaku worker query`" in answer.stdout
