"""kill -9 and pause anything while messages flow: acked means delivered, once, in order."""

import asyncio
import signal
import uuid
from collections.abc import Callable

import pytest

from bench.faults import Fault, FaultReport, under_fire
from bench.scenario import Target
from tests.servers import SECRET, Hikyaku, Mongo, Nats, Site

pytestmark = pytest.mark.anyio

RATE = 100.0


def target(site: Site) -> Target:
    return Target(edges=tuple(f"127.0.0.1:{edge.port}" for edge in site.edges), secret=SECRET)


def kill_and_restart(name: str, *servers: Hikyaku | Nats | Mongo) -> Fault:
    """kill -9 all of them, then start them again, as a supervisor does."""
    starting: list[asyncio.Task[None]] = []

    def strike() -> None:
        for server in servers:
            server.process.kill()
        starting[:] = [asyncio.create_task(server.start()) for server in servers]

    async def healed() -> bool:
        return all(task.done() and task.exception() is None for task in starting)

    return Fault(name=name, strike=strike, healed=healed)


def pause(name: str, server: Nats, for_s: float) -> Fault:
    """SIGSTOP, and SIGCONT after a while."""
    resumed: list[asyncio.TimerHandle | bool] = []

    def resume() -> None:
        server.process.send(signal.SIGCONT)
        resumed.append(True)

    def strike() -> None:
        resumed.clear()
        server.process.send(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(for_s, resume)

    async def healed() -> bool:
        return True in resumed

    return Fault(name=name, strike=strike, healed=healed)


async def fire(site: Site, *faults: Fault) -> FaultReport:
    report = await under_fire(
        target(site), faults, run=uuid.uuid4().hex[:6], rate=RATE, pairs=10, quiet_s=1.0
    )
    print(report.sent, report.acked, report.delivered, report.closes, report.faults)
    assert report.acked > RATE
    assert report.acked == report.sent, report.refused
    names = ("lost", "doubled", "out_of_order", "overtaken", "unrecovered")
    wrong = {name: getattr(report, name) for name in names if getattr(report, name)}
    assert not wrong, report
    return report


@pytest.mark.parametrize(
    "pick",
    [
        pytest.param(lambda site: [site.nats], id="nats"),
        pytest.param(lambda site: [site.edges[0]], id="edge"),
        pytest.param(lambda site: [site.mongo, site.worker], id="mongod-and-worker"),
        pytest.param(lambda site: [site.nats, site.edges[1]], id="nats-and-edge"),
        pytest.param(
            lambda site: [site.nats, site.mongo, site.worker, *site.edges], id="everything"
        ),
    ],
)
async def test_kill(site: Site, pick: Callable[[Site], list[Hikyaku | Nats | Mongo]]) -> None:
    await fire(site, kill_and_restart("kill", *pick(site)))


async def test_nats_killed_three_times_in_a_row(site: Site) -> None:
    await fire(site, *[kill_and_restart("nats", site.nats) for _ in range(3)])


@pytest.mark.parametrize("for_s", [1.5, 6.0])
async def test_nats_paused(site: Site, for_s: float) -> None:
    await fire(site, pause("nats paused", site.nats, for_s))


async def test_edge_restarts_one_by_one_lose_nothing(site: Site) -> None:
    """SIGTERM: clients are sent elsewhere with 4200 and what was accepted is committed."""

    def roll(edge: Hikyaku) -> Fault:
        restarting: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await asyncio.to_thread(edge.process.end, signal.SIGTERM)
            await edge.start()

        def strike() -> None:
            restarting[:] = [asyncio.create_task(restart())]

        async def healed() -> bool:
            return restarting[0].done() and restarting[0].exception() is None

        return Fault(name=f"edge {edge.port}", strike=strike, healed=healed)

    report = await fire(site, *[roll(edge) for edge in site.edges])
    assert report.closes.get("4200", 0) > 0
