"""The alerts and dashboards of `deploy/monitoring`, and the names of metrics in them."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that no process writes itself in front of every sample."""


def alerts() -> list[dict[str, Any]]:
    """All rules."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions(dashboard: Path) -> list[str]:
    """What the panels show."""
    board = json.loads(dashboard.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def named(expression: str) -> set[str]:
    """The metrics in an expression."""
    return set(re.findall(r"\b(?:hikyaku|process|up)(?:_[a-z0-9_]+)?\b", expression))


def selected(expression: str) -> set[tuple[str, str]]:
    """Each metric with a label that it is selected by."""
    return {
        (name, label)
        for name, labels in re.findall(r"\b([a-z_]+)\{([^}]*)\}", expression)
        for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", labels)
        if label not in OF_PROMETHEUS
    }
