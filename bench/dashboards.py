"""`python -m bench.dashboards`: what Grafana's dashboards show of a run, as pictures.

Two linked sites with light traffic. Prometheus reads all processes of the first, by the jobs of
`deploy/monitoring`, and answers the queries of every panel; one that it refuses ends the run.
"""

import argparse
import asyncio
import json
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from deploy.ports import free_port, remembered

from .dashboard_plot import Line, Panel, write_dashboard
from .dashboard_traffic import traffic
from .offices import Site, linked
from .scenario import BenchError

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
DASHBOARDS = list((MONITORING / "grafana" / "dashboards").glob("*.json"))
SCRAPE_S = 2
RATE_INTERVAL = "10s"
"""What Grafana puts in for `$__rate_interval`: a few scrapes."""

WARM_S = 14.0
"""Until every process has been read often enough for a rate."""

START_S, STOP_S = 30.0, 10.0


def jobs(site: Site) -> dict[str, dict[str, str]]:
    """Where each process of the site tells its metrics, by job and name."""
    ports = remembered(Path(site.stack.environ["HIKYAKU_HOME"]) / "ports.json")
    health = re.compile(r"worker_health_port \((\w+)\)")
    workers = {found[1]: port for name, port in ports.items() if (found := health.match(name))}
    return {
        "edge": {f"edge-{n}": address for n, address in enumerate(site.target.edges, 1)},
        "worker": {name: f"127.0.0.1:{port}" for name, port in workers.items()},
    }


def configuration(site: Site) -> dict[str, Any]:
    """Of Prometheus, which takes JSON too; names as the services of `compose.yaml`."""
    scrapes = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [address], "labels": {"instance": name}}
                for name, address in processes.items()
            ],
        }
        for job, processes in jobs(site).items()
    ]
    every = f"{SCRAPE_S}s"
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [str(MONITORING / "alerts.yml")],
        "scrape_configs": scrapes,
    }


class Prometheus:
    """Asks one that runs."""

    def __init__(self, web: aiohttp.ClientSession) -> None:
        self._web = web

    async def ready(self) -> bool:
        """Whether it answers."""
        try:
            async with self._web.get("/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, what: str, **parameters: str) -> Any:
        """Its answer. Raises `BenchError` with its reason when it refuses."""
        async with self._web.post(f"/api/v1/{what}", data=parameters) as answer:
            told = await answer.json()
        if told["status"] != "success":
            raise BenchError(f"Prometheus refuses {parameters.get('query', what)}: {told['error']}")
        return told["data"]

    async def check(self) -> None:
        """Raise `BenchError` for a process that it cannot read, or an alert that it cannot tell."""
        async with self._web.get("/api/v1/rules") as answer:
            groups = (await answer.json())["data"]["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            if rule["health"] != "ok":
                raise BenchError(f"alert {rule['name']}: {rule.get('lastError', rule['health'])}")
        for each in (await self.ask("query", query="up == 0"))["result"]:
            raise BenchError(f"{each['metric']['instance']} tells Prometheus nothing")


@asynccontextmanager
async def prometheus(program: str, folder: Path, site: Site) -> AsyncIterator[Prometheus]:
    """Start it on the processes of a site, and stop it. Raises `BenchError`."""
    file, log, port = folder / "prometheus.json", folder / "prometheus.log", free_port()
    file.write_text(json.dumps(configuration(site)))
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
            stdout=out,
            stderr=out,
        )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as web:
            asked = Prometheus(web)
            deadline = time.monotonic() + START_S
            while not await asked.ready():
                if process.returncode is not None or time.monotonic() > deadline:
                    raise BenchError(f"Prometheus did not start:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.1)
            yield asked
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def lines(asked: Prometheus, target: dict[str, str], begin: float, end: float) -> list[Line]:
    """What a panel shows for one of its queries."""
    query = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
    span = {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": str(SCRAPE_S)}
    found = await asked.ask("query_range", query=query, **span)
    return [_line(target["legendFormat"], each, begin) for each in found["result"]]


def _line(legend: str, found: dict[str, Any], begin: float) -> Line:
    """With a hole where there was no value."""
    labels = found["metric"]
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda label: labels.get(label[1], ""), legend)
    times: list[float] = []
    values: list[float] = []
    for at, value in found["values"]:
        if times and at - begin - times[-1] > 1.5 * SCRAPE_S:
            times.append(at - begin)
            values.append(float("nan"))
        times.append(at - begin)
        values.append(float(value))
    return Line(name.strip(), times, values)


async def draw(
    asked: Prometheus, board: dict[str, Any], begin: float, end: float, path: Path
) -> None:
    """Draw a dashboard. Raises `BenchError` with the panel that Prometheus refuses."""
    panels: list[Panel] = []
    for each in board["panels"]:
        try:
            found = [
                line
                for target in each["targets"]
                for line in await lines(asked, target, begin, end)
            ]
        except BenchError as error:
            raise BenchError(f"{board['title']}, panel {each['title']!r}: {error}") from error
        unit = each["fieldConfig"]["defaults"]["unit"]
        panels.append(Panel(each["title"], unit, each["gridPos"], found))
    await asyncio.to_thread(write_dashboard, board["title"], panels, end - begin, path)


async def _run(program: str, out: Path, seconds: float, folder: Path) -> None:
    boards = {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS)}
    async with linked(folder, ("tokyo", "osaka")) as offices:
        tokyo, osaka = offices.sites.values()
        async with prometheus(program, folder, tokyo) as asked:
            begin = time.time() + WARM_S
            await traffic(tokyo, osaka, offices.links["osaka"], WARM_S + seconds, folder)
            await asked.check()
            end = time.time()
            for name, board in boards.items():
                path = out / f"{name}.png"
                await draw(asked, board, begin, end, path)
                print(path, flush=True)


def main() -> None:
    """Run and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboards"))
    parser.add_argument("--seconds", type=float, default=60.0, help="how much the pictures show")
    arguments = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        raise BenchError("there is no prometheus here: apt-get install prometheus")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hikyaku-dashboards-") as folder:
        asyncio.run(_run(program, arguments.out, arguments.seconds, Path(folder)))


if __name__ == "__main__":
    main()
