"""Three servers each: one dies, one loses its disk, and no message is lost or out of order.

`make faults` runs all faults, for longer.
"""

import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from bench.cluster import Cluster
from bench.cluster_faults import CASES, run_case

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

RATE = 100.0
AWAY_S = 5.0


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """PyMongo leaves sockets to Python; they are collected here, where the warning is expected."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("cluster"), apart=False) as cluster:
        yield cluster


@pytest.mark.parametrize("name", ["primary", "wiped"])
async def test_a_cluster_loses_nothing(cluster: Cluster, name: str) -> None:
    row = await run_case(cluster, CASES[name], seconds=AWAY_S, rate=RATE)
    row.report.timeline.clear()
    print(row)
    assert row.report.acked > RATE
    assert row.passed, row
