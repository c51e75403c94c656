"""Alerts and dashboards name metrics that the code has, and each is explained.

`tests/integration/test_observability.py` looks for the same names in what processes tell.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring import DASHBOARDS, MONITORING, ROOT, alerts, expressions, named
from workers.main import WORKERS

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SOURCES = "\n".join(
    path.read_text()
    for package in ("broker", "edge", "workers")
    for path in (ROOT / package).rglob("*.py")
)
METRICS = set(re.findall(r'"(hikyaku_[a-z0-9_]+)"', SOURCES))


def unknown(expression: str) -> set[str]:
    """Metrics of ours that the code does not have."""
    found = named(expression)
    assert found
    ours = {name for name in found if name.startswith("hikyaku")}
    return {name for name in ours if not {name, re.sub("_(bucket|sum|count)$", "", name)} & METRICS}


def test_the_check_can_fail() -> None:
    assert unknown("rate(hikyaku_edge_no_such_thing_total[5m])")
    assert not unknown("rate(hikyaku_commit_seconds_bucket[5m])")


@pytest.mark.parametrize("alert", alerts(), ids=lambda each: each["alert"])
def test_each_alert_has_its_metrics_and_its_line(alert: dict[str, Any]) -> None:
    assert not unknown(alert["expr"])
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"]
    rows = OPERATIONS.splitlines()
    assert [row for row in rows if row.startswith(f"| `{alert['alert']}` |")], alert["alert"]


def test_no_alert_is_explained_that_there_is_not() -> None:
    table = OPERATIONS.partition("## Alerts")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert explained == {alert["alert"] for alert in alerts()}


def test_each_metric_is_explained_and_no_other() -> None:
    table = OPERATIONS.partition("### Metrics")[2].partition("\n## ")[0]
    names = re.findall(r"hikyaku_[a-z0-9_]+", table)
    assert {name.removesuffix("_bucket") for name in names} == METRICS


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_panel_has_its_metrics(path: Path) -> None:
    assert json.loads(path.read_text())["uid"] == f"hikyaku-{path.stem}"
    shown = expressions(path)
    assert len(shown) > 10
    assert not [name for expression in shown for name in unknown(expression)]


def test_every_process_is_read() -> None:
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    jobs = {each["job_name"]: each for each in configuration["scrape_configs"]}
    targets = {name: set(each["static_configs"][0]["targets"]) for name, each in jobs.items()}
    assert targets["worker"] == {f"{name}:9100" for name in WORKERS}
    assert targets["edge"] == {"edge-1:8080", "edge-2:8081"}
