"""kill -9 of everything while messages flow: what was acked must arrive, once, in order.

`under_fire` is the part for tests: it takes any faults. `kill_everything` makes them for a stack
whose supervisor is known: each of its processes in random order, the next when all are back.
"""

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from . import http
from .fault_clients import Journal, Peer, Receiver, Sender
from .process import named
from .scenario import BenchError, Context, Outcome, Scenario, Target, percentile

RATE = 200.0
PAIRS = 20
QUIET_S = 2.0
READY_TIMEOUT_S = 60.0
HEAL_TIMEOUT_S = 60.0


class Fault(Struct, frozen=True, kw_only=True):
    """Something to break: its name, how, and how to know that it is whole again.

    `missing` is what was not, when it was last asked.
    """

    name: str
    strike: Callable[[], None]
    healed: Callable[[], Awaitable[bool]]
    missing: Callable[[], list[str]] = list


class Struck(Struct, kw_only=True):
    """What one fault did: seconds from the start, until healed, and the longest wait after it."""

    name: str
    at_s: float
    healed_s: float
    longest_wait_s: float = 0.0


class FaultReport(Struct, kw_only=True):
    """The count of all messages, and what became of them.

    `repeats` are events delivered again with the same id, which a client drops; `doubled` is one
    message delivered under two ids; `out_of_order` counts events that came after a higher `seq`;
    `overtaken` counts messages that arrived after a later one of the same sender, but for those
    that the sender was told to send again.
    """

    sent: int
    acked: int
    delivered: int
    lost: int
    doubled: int
    repeats: int
    out_of_order: int
    overtaken: int
    unrecovered: int
    without_ack: int
    refused: list[str]
    closes: dict[str, int]
    p50_ms: float
    longest_wait_s: float
    longest_silence_s: float
    faults: list[Struck]
    timeline: list[tuple[float, float]]


async def under_fire(
    target: Target,
    faults: Sequence[Fault],
    *,
    run: str,
    rate: float = RATE,
    pairs: int = PAIRS,
    quiet_s: float = QUIET_S,
    heal_s: float = HEAL_TIMEOUT_S,
    ready_s: float = READY_TIMEOUT_S,
    say: Callable[[str], None] = lambda _: None,
) -> FaultReport:
    """Send `rate` messages a second through all faults, heal, and account for every message."""
    journal = Journal()
    receivers = [Receiver(n, run, target, journal) for n in range(pairs)]
    senders = [Sender(n, run, peer.user, target, journal) for n, peer in enumerate(receivers)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(peer.run()) for peer in [*receivers, *senders]]
        await _connected([*receivers, *senders])
        start_ns = time.monotonic_ns()
        load = group.create_task(_send(senders, rate))
        struck = []
        try:
            await asyncio.sleep(quiet_s)
            for fault in faults:
                say(fault.name)
                struck.append(await _strike(fault, start_ns, ready_s))
                await asyncio.sleep(quiet_s)
            load.cancel()
            say("healing")
            await _healed(senders, journal, heal_s)
        finally:
            load.cancel()
            for peer in [*receivers, *senders]:
                peer.stop()
        await asyncio.wait(tasks, timeout=10)
    return _report(journal, senders, struck, start_ns)


async def _connected(peers: Sequence[Peer]) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        for peer in peers:
            await peer.connected.wait()


async def _send(senders: Sequence[Sender], rate: float) -> None:
    period_ns, number, start_ns = 1e9 / rate, 0, time.monotonic_ns()
    while True:
        while (due_ns := start_ns + int(number * period_ns)) <= time.monotonic_ns():
            senders[number % len(senders)].say(due_ns)
            number += 1
        await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))


async def _strike(fault: Fault, start_ns: int, ready_s: float) -> Struck:
    at_ns = time.monotonic_ns()
    fault.strike()
    try:
        async with asyncio.timeout(ready_s):
            healed = False
            while not healed:
                await asyncio.sleep(0.1)
                healed = await fault.healed()
    except TimeoutError:
        missing = ", ".join(fault.missing()) or "not known what"
        why = f"not whole again within {ready_s:g} s: {missing}"
        raise BenchError(f"{fault.name}: {why}") from None
    now_ns = time.monotonic_ns()
    return Struck(name=fault.name, at_s=(at_ns - start_ns) / 1e9, healed_s=(now_ns - at_ns) / 1e9)


async def _healed(senders: Sequence[Sender], journal: Journal, timeout_s: float) -> None:
    """Wait until all is acked and delivered, or the deadline: the report tells what is missing."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(sender.unacked for sender in senders) and journal.acked <= journal.delivered:
            return
        await asyncio.sleep(0.2)


def _report(
    journal: Journal, senders: Sequence[Sender], struck: list[Struck], start_ns: int
) -> FaultReport:
    arrivals = sorted(journal.arrivals)
    if not arrivals:
        raise BenchError("no message was delivered")
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(arrivals)]
    for n, one in enumerate(struck):
        until_s = struck[n + 1].at_s if n + 1 < len(struck) else float("inf")
        waits = [w for t, w in arrivals if one.at_s <= (t - start_ns) / 1e9 < until_s]
        one.longest_wait_s = max(waits, default=0) / 1e9
    return FaultReport(
        sent=journal.sent,
        acked=len(journal.acked),
        delivered=len(journal.delivered),
        lost=len(journal.acked - journal.delivered),
        doubled=journal.doubled,
        repeats=journal.repeats,
        out_of_order=journal.out_of_order,
        overtaken=journal.overtaken,
        unrecovered=journal.unrecovered,
        without_ack=sum(len(sender.unacked) for sender in senders),
        refused=journal.refused[:20],
        closes={str(code): count for code, count in sorted(journal.closes.items())},
        p50_ms=percentile([wait for _, wait in arrivals], 50) / 1e6,
        longest_wait_s=max(wait for _, wait in arrivals) / 1e9,
        longest_silence_s=max(gaps, default=0) / 1e9,
        faults=struck,
        timeline=[((t - start_ns) / 1e9, wait / 1e6) for t, wait in arrivals],
    )


def process_faults(target: Target) -> list[Fault]:
    """One fault for each process of the stack but its supervisor."""
    supervisor = target.supervisor
    if supervisor is None:
        raise BenchError("processes can be killed only when the supervisor's pid is known")
    before = {pid: name for pid, name in named(supervisor).items() if pid != supervisor}
    names = sorted(before.values())

    def fault(name: str) -> Fault:
        killed: list[int] = []

        def strike() -> None:
            killed[:] = [pid for pid, other in named(supervisor).items() if other == name]
            if not killed:
                raise BenchError(f"there is no process {name} to kill")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

        async def healed() -> bool:
            now = {p: n for p, n in named(supervisor).items() if p not in killed}
            there = sorted(n for p, n in now.items() if p != supervisor) == names
            return there and await http.ready(target.edges)

        return Fault(name=name, strike=strike, healed=healed)

    return [fault(name) for name in sorted(set(names))]


async def kill_everything(
    target: Target,
    *,
    run: str,
    rounds: int = 2,
    rate: float = RATE,
    seed: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FaultReport:
    """Kill each process of the stack `rounds` times, each round in a random order of its own."""
    chosen = random.Random(seed)
    faults = process_faults(target)
    plan = [fault for _ in range(rounds) for fault in chosen.sample(faults, len(faults))]
    return await under_fire(target, plan, run=run, rate=rate, say=say)


async def scenario(context: Context) -> Outcome:
    """`kill_everything` as a scenario of the bench."""
    seed = random.SystemRandom().randrange(1 << 32)
    rounds = int(context.scaled(4, 1))
    report = await kill_everything(
        context.target, run=context.run, rounds=rounds, seed=seed, say=context.say
    )
    counted = ("sent", "acked", "delivered", "lost", "doubled", "out_of_order", "overtaken")
    return Outcome(
        metrics={
            **{f"kill_{name}": float(getattr(report, name)) for name in counted},
            "kill_without_ack": float(report.without_ack),
            "kill_longest_wait_s": report.longest_wait_s,
            "kill_longest_silence_s": report.longest_silence_s,
        },
        curves={
            "kill_at_s": [at for at, _ in report.timeline],
            "kill_wait_ms": [wait for _, wait in report.timeline],
            "kill_struck_s": [one.at_s for one in report.faults],
        },
        notes={
            "seed": seed,
            "repeats_dropped_by_id": report.repeats,
            "unrecovered": report.unrecovered,
            "p50_ms": round(report.p50_ms, 3),
            "refused": "; ".join(report.refused),
            "closes": str(report.closes),
            "kills": "; ".join(
                f"{one.name}: ready {one.healed_s:.1f} s, longest wait {one.longest_wait_s:.2f} s"
                for one in report.faults
            ),
        },
    )


SCENARIOS = [
    Scenario(
        name="kill",
        title=f"kill -9 of everything at {RATE:g} DMs/s",
        expected_s=(75, 20),
        run=scenario,
    )
]
