"""What a connection costs that does nothing: resident memory of the edges, CPU to connect."""

import asyncio

from .client import Client, in_batches
from .process import CpuMeter, named, rss_bytes
from .scenario import MESSAGE_PATH, BenchError, Context, Outcome, Scenario, check_alive

WARM = 200
SETTLE_S = 3.0


async def idle(context: Context) -> Outcome:
    """Connect users to both edges after a first few, which pay for caches and first pages."""
    supervisor = context.target.supervisor
    if supervisor is None:
        raise BenchError("memory and CPU can be read only when the supervisor's pid is known")
    count = int(context.scaled(2000, 300))
    warm = [Client(context.user(f"w{n}")) for n in range(WARM)]
    clients = [Client(context.user(f"i{n}")) for n in range(count)]
    await in_batches(context.open(client, n % 2) for n, client in enumerate(warm))
    await asyncio.sleep(SETTLE_S)
    cpu = CpuMeter(supervisor)
    before = _edges_rss(supervisor)
    context.say(f"connecting {count}")
    cpu.start()
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    await in_batches(context.open(client, n % 2) for n, client in enumerate(clients))
    seconds = loop.time() - begin_s
    used = cpu.used_s()
    await asyncio.sleep(SETTLE_S)
    check_alive([*warm, *clients])
    grown = {name: size - before[name] for name, size in _edges_rss(supervisor).items()}
    edges_s = sum(spent for name, spent in used.items() if name in grown)
    return Outcome(
        metrics={
            "idle_kb": sum(grown.values()) / count / 1e3,
            "connect_cpu_ms": sum(used.values()) / count * 1e3,
            "connect_edge_cpu_ms": edges_s / count * 1e3,
            "connects_per_s": count / seconds,
        },
        cpu_us={name: spent / count * 1e6 for name, spent in used.items()},
        notes={
            "connections": count,
            **{f"{name} rss before": size for name, size in before.items()},
        },
    )


def _edges_rss(supervisor: int) -> dict[str, float]:
    edges = {pid: name for pid, name in named(supervisor).items() if name.startswith("edge")}
    if not edges:
        raise BenchError("no edge process found under the supervisor")
    sizes: dict[str, float] = {}
    for pid, name in edges.items():
        sizes[name] = sizes.get(name, 0) + rss_bytes(pid)
    return sizes


SCENARIOS = [
    Scenario(
        name="idle",
        title="idle connections",
        expected_s=(14, 9),
        run=idle,
        without=MESSAGE_PATH,
    )
]
