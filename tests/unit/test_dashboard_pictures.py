"""What `python -m bench.dashboards` reads, asks and draws; the run itself needs a Prometheus."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bench import dashboards
from bench.dashboard_plot import COLORS, NO_DATA, WIDTH, Line, Panel, marks, shown, write_dashboard
from bench.offices import Site
from bench.scenario import BenchError
from bench.stack import Stack
from deploy.stack import WORKERS
from tests.monitoring import DASHBOARDS, MONITORING


class Refusing(dashboards.Prometheus):
    """Answers all queries but those of one metric."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.asked: list[str] = []

    async def ask(self, what: str, **parameters: str) -> Any:
        self.asked.append(parameters["query"])
        if self.metric in parameters["query"]:
            raise BenchError("bad_data")
        at = float(parameters["start"])
        values = [[at, "1"], [at + dashboards.SCRAPE_S, "NaN"], [at + 20, "3"]]
        return {"result": [{"metric": {"site": "osaka"}, "values": values}]}


def board(name: str) -> dict[str, Any]:
    (path,) = (each for each in DASHBOARDS if each.stem == name)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_jobs_and_names_are_those_of_the_containers(tmp_path: Path) -> None:
    site_stack = Stack(tmp_path)
    home = Path(site_stack.environ["HIKYAKU_HOME"])
    home.mkdir()
    ports = {f"worker_health_port ({name})": 9 for name in WORKERS} | {"nats_port": 8}
    (home / "ports.json").write_text(json.dumps(ports))
    site = Site("tokyo", site_stack, site_stack._target)
    wanted = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    names = {
        each["job_name"]: {target.split(":")[0] for target in each["static_configs"][0]["targets"]}
        for each in wanted
    }
    assert {job: set(found) for job, found in dashboards.jobs(site).items()} == names


@pytest.mark.anyio
async def test_a_refused_query_names_its_panel(tmp_path: Path) -> None:
    asked = Refusing("hikyaku_relay_behind")
    title = "links with other sites, panel 'Waiting for a site, not yet looked through'"
    with pytest.raises(BenchError, match=f"{title}: bad_data"):
        await dashboards.draw(asked, board("links"), 0, 60, tmp_path / "links.png")
    assert asked.asked[-1] == "max(hikyaku_relay_behind)"


@pytest.mark.anyio
async def test_every_query_of_a_dashboard_is_asked_and_drawn(tmp_path: Path) -> None:
    asked, path = Refusing("none"), tmp_path / "links.png"
    await dashboards.draw(asked, board("links"), 100, 160, path)
    assert len(asked.asked) == sum(len(each["targets"]) for each in board("links")["panels"])
    assert not [query for query in asked.asked if "$" in query]
    with Image.open(path) as picture:
        assert picture.width == WIDTH
    assert path.stat().st_size < 300_000


@pytest.mark.anyio
async def test_where_there_was_no_value_is_a_hole() -> None:
    target = {"expr": "x", "legendFormat": "to {{site}} {{other}}"}
    (line,) = await dashboards.lines(Refusing("none"), target, 100, 160)
    assert (line.name, line.times) == ("to osaka", [0, 2, 20, 20])
    assert [value == value for value in line.values] == [True, False, False, True]
    assert line.drawn


def test_a_panel_without_numbers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    text = "bench.dashboard_plot._Drawing.text"
    monkeypatch.setattr(text, lambda _self, _x, _y, words, **_style: said.append(words))
    empty = Line("nothing", [0, 2], [float("nan")] * 2)
    panel = Panel("pushes", "short", {"x": 0, "y": 0, "w": 12, "h": 8}, [empty])
    write_dashboard("title", [panel], 60, tmp_path / "one.png")
    assert said == ["title", "pushes", NO_DATA]


def test_lines_keep_their_colors_even_below_others(tmp_path: Path) -> None:
    lines = [Line(f"line {number}", [0, 60], [0, 0]) for number in range(len(COLORS))]
    panel = Panel("all", "short", {"x": 0, "y": 0, "w": 12, "h": 8}, lines)
    write_dashboard("title", [panel], 60, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        found = picture.convert("RGB").tobytes().hex(" ", 3).split()
    assert {f"#{color}" for color in found} >= set(COLORS)


def test_values_have_units() -> None:
    assert [shown(value, "s") for value in (0, 0.25, 2)] == ["0 s", "250 ms", "2 s"]
    assert [shown(value, "bytes") for value in (0, 32 << 30)] == ["0 B", "32 GiB"]
    assert shown(150_000, "Bps") == "150 kB/s"
    assert shown(1500, "short") == "1.5 k"
    assert shown(0.2, "cps") == "0.2 /s"
    assert shown(0.0015, "percentunit") == "0.15 %"


def test_marks_are_round() -> None:
    assert marks(1.0, "short") == [0, 0.25, 0.5, 0.75, 1]
    assert [shown(mark, "bytes") for mark in marks(35 << 30, "bytes")] == [
        *("0 B", "10 GiB", "20 GiB", "30 GiB")
    ]
