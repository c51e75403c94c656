"""`make faults`: what a site of three servers each does under faults, message by message.

Each fault has clients of its own that send 300 messages a second through it. Then every message is
accounted for: what was acknowledged was delivered, once and in order, and is in MongoDB.
"""

import argparse
import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from broker import subjects
from broker.bus import Bus
from broker.consumer import progress
from broker.errors import BrokerError
from broker.log import Log
from store.database import connect
from workers.persist import CONSUMER

from .cluster import DISK_BYTES, Cluster, Nats, Process, why_not_apart
from .faults import Fault, FaultReport, under_fire
from .mirror import compare
from .scenario import BenchError

RATE = 300.0
PAIRS = 20
AWAY_S = 30.0
SHORT_S = 5.0
QUIET_S = 3.0
READY_S = 180.0
PERSISTED_S = 120.0
SILENCE_S = 0.5
"""A time without any delivery that is longer counts as an outage."""

Step = Callable[[], Coroutine[Any, Any, None]]


class Case(NamedTuple):
    """A fault of the table: what is done, in steps, for this many seconds where it lasts."""

    name: str
    plan: Callable[[Cluster, float], Awaitable[list[Fault]]]
    apart: bool = False


class Row(NamedTuple):
    """What one fault did."""

    name: str
    report: FaultReport
    differs: str

    @property
    def duration_s(self) -> float:
        """From the first blow until all was ready again."""
        first, last = self.report.faults[0], self.report.faults[-1]
        return last.at_s + last.healed_s - first.at_s

    @property
    def outage_s(self) -> float:
        """All the time in which nobody was delivered anything for over `SILENCE_S`."""
        times = [at for at, _ in self.report.timeline]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return sum(gap for gap in gaps if gap > SILENCE_S)

    @property
    def disordered(self) -> int:
        """Events after a later one, and messages after a later one of the same sender."""
        return self.report.out_of_order + self.report.overtaken

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, out of order, left without an answer, or other in MongoDB."""
        report = self.report
        wrong = (report.lost, report.doubled, self.disordered, report.without_ack)
        return not any(wrong) and not report.refused and not self.differs


def _fault(cluster: Cluster, name: str, work: Step) -> Fault:
    """`work` breaks something and mends it; healed is when everything is ready again."""
    running: list[asyncio.Task[None]] = []

    def strike() -> None:
        running[:] = [asyncio.create_task(work())]

    async def healed() -> bool:
        if not running[0].done():
            return False
        running[0].result()
        return await cluster.whole()

    return Fault(name=name, strike=strike, healed=healed, missing=lambda: cluster.missing)


def _restart(
    cluster: Cluster, process: Process, number: int = signal.SIGTERM, away_s: float = 0
) -> Fault:
    async def work() -> None:
        await process.end(number)
        await asyncio.sleep(away_s)
        process.start()
        await cluster.until_ready(process)

    return _fault(cluster, process.name, work)


def _away(
    cluster: Cluster,
    name: str,
    begin: Callable[[], None],
    end: Callable[[], None],
    seconds: float,
) -> Fault:
    async def work() -> None:
        begin()
        try:
            await asyncio.sleep(seconds)
        finally:
            end()

    return _fault(cluster, name, work)


async def _rolling_nats(cluster: Cluster, _: float) -> list[Fault]:
    return [_restart(cluster, each) for each in cluster.nats]


async def _rolling_mongo(cluster: Cluster, _: float) -> list[Fault]:
    return [_restart(cluster, each) for each in cluster.mongods]


async def _rolling_hikyaku(cluster: Cluster, _: float) -> list[Fault]:
    return [_restart(cluster, each) for each in (*cluster.edges, *cluster.workers)]


async def _leader_killed(cluster: Cluster, seconds: float) -> list[Fault]:
    return [_restart(cluster, await cluster.leader(), signal.SIGKILL, seconds / 5)]


async def _leader_paused(cluster: Cluster, seconds: float) -> list[Fault]:
    server = await cluster.leader()
    pause, go_on = (lambda: server.send(signal.SIGSTOP)), (lambda: server.send(signal.SIGCONT))
    return [_away(cluster, server.name, pause, go_on, seconds)]


async def _cut_off(cluster: Cluster, seconds: float) -> list[Fault]:
    server = await cluster.leader()
    mend = lambda: cluster.mend(server)  # noqa: E731
    return [_away(cluster, server.name, lambda: cluster.cut(server), mend, seconds)]


async def _cut_from_peers(cluster: Cluster, seconds: float) -> list[Fault]:
    server = await cluster.leader()

    def cut() -> None:
        cluster.cut(server, peers_only=True)

    return [_away(cluster, server.name, cut, lambda: cluster.mend(server), seconds)]


async def _wiped(cluster: Cluster, _: float) -> list[Fault]:
    server = await cluster.leader()

    async def work() -> None:
        await server.end(signal.SIGKILL)
        server.wipe()
        server.start()
        await cluster.until_ready(server)

    return [_fault(cluster, server.name, work)]


async def _primary_killed(cluster: Cluster, seconds: float) -> list[Fault]:
    return [_restart(cluster, await cluster.primary(), signal.SIGKILL, seconds / 5)]


async def _full_follower(cluster: Cluster, seconds: float) -> list[Fault]:
    leader = await cluster.leader()
    server = next(each for each in cluster.nats if each is not leader)
    return [_full(cluster, server, seconds)]


async def _full_leader(cluster: Cluster, seconds: float) -> list[Fault]:
    return [_full(cluster, await cluster.leader(), seconds)]


def _full(cluster: Cluster, server: Nats, seconds: float) -> Fault:
    """Room is made after a while, and the server restarted, as an operator would."""
    filler = server.store / "filler"

    async def work() -> None:
        _fill(filler)
        await asyncio.sleep(seconds)
        filler.unlink()
        await server.end()
        server.start()
        await cluster.until_ready(server)

    return _fault(cluster, server.name, work)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for piece in (1024 * 1024, 4096):
            try:
                for _ in range(DISK_BYTES // piece):
                    file.write(bytes(piece))
            except OSError:
                continue


CASES = {
    "nats": Case("rolling restart of NATS", _rolling_nats),
    "mongo": Case("rolling restart of MongoDB", _rolling_mongo),
    "hikyaku": Case("rolling restart of edges and workers", _rolling_hikyaku),
    "killed": Case("leader of the log killed", _leader_killed),
    "paused": Case("leader of the log paused", _leader_paused),
    "cut": Case("leader of the log cut off", _cut_off, apart=True),
    "peers": Case("leader of the log cut off from the other servers only", _cut_from_peers, True),
    "wiped": Case("leader's volume lost", _wiped),
    "primary": Case("MongoDB's primary killed", _primary_killed),
    "follower-full": Case("disk full on a follower", _full_follower, apart=True),
    "leader-full": Case("disk full on the leader of the log", _full_leader, apart=True),
}


async def run_case(
    cluster: Cluster,
    case: Case,
    *,
    seconds: float,
    rate: float = RATE,
    say: Callable[[str], None] = lambda _: None,
) -> Row:
    """Run one fault and account for every message. Raises `BenchError` if nothing comes back."""
    run = uuid4().hex[:6]
    faults = await case.plan(cluster, seconds)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(cluster.broker, name="bench"))
        await bus.wait_connected(10)
        since = (await Log(bus).state()).last_seq + 1
        report = await under_fire(
            cluster.target,
            faults,
            run=run,
            rate=rate,
            pairs=PAIRS,
            quiet_s=QUIET_S,
            ready_s=READY_S,
            say=lambda text: say(f"{case.name}: {text}"),
        )
        say(f"{case.name}: comparing with MongoDB")
        return Row(case.name, report, await _difference(cluster, bus, run, since))


async def _difference(cluster: Cluster, bus: Bus, run: str, since: int) -> str:
    """What MongoDB has otherwise than the log; empty if nothing."""
    chats = [subjects.dm(f"fs{n}-{run}", f"fr{n}-{run}") for n in range(PAIRS)]
    deadline = time.monotonic() + PERSISTED_S
    last = (await Log(bus).state()).last_seq
    while True:
        try:
            if (await progress(bus, CONSUMER, to=last)).reached(last):
                break
        except BrokerError:
            pass
        if time.monotonic() > deadline:
            return f"MongoDB is behind the log for over {PERSISTED_S:g} s"
        await asyncio.sleep(0.1)
    async with connect(cluster.store) as database:
        while True:
            try:
                await compare(bus, database, since=since, chats=chats)
                return ""
            except BenchError as error:
                return str(error)
            except BrokerError as error:  # a server that has just come back may lag
                if time.monotonic() > deadline:
                    return str(error)
                await asyncio.sleep(1)


def table(rows: Sequence[Row]) -> Table:
    """Times in seconds."""
    made = Table("fault", title="Times in seconds", title_justify="left")
    for heading in (
        *("time", "sent", "acked", "delivered", "lost", "twice", "disordered"),
        *("outage", "longest silence", "longest wait", "MongoDB", ""),
    ):
        made.add_column(heading, justify="right")
    for row in rows:
        report = row.report
        counts = (report.sent, report.acked, report.delivered, report.lost, report.doubled)
        times = (row.outage_s, report.longest_silence_s, report.longest_wait_s)
        made.add_row(
            row.name,
            f"{row.duration_s:.0f}",
            *(f"{count:,}" for count in (*counts, row.disordered)),
            *(f"{each:.1f}" for each in times),
            "differs" if row.differs else "same",
            "passed" if row.passed else "FAILED",
        )
    return made


def _details(row: Row) -> str:
    report = row.report
    told = "; ".join(f"{each.name} {each.longest_wait_s:.1f} s" for each in report.faults)
    said = {text for text in [*report.refused, row.differs] if text}
    closes = f"closes {report.closes}, without an ack {report.without_ack}"
    return f"{row.name}: longest waits {told}; {closes}; {', '.join(sorted(said)) or 'no refusals'}"


async def _run(names: Sequence[str], seconds: float, folder: Path, console: Console) -> bool:
    why = why_not_apart()
    rows: list[Row] = []
    failed = 0
    async with Cluster(folder, apart=not why) as cluster:
        for name in names:
            case = CASES[name]
            if case.apart and why:
                console.print(f"{case.name}: not run, {why}")
                continue
            try:
                rows.append(await run_case(cluster, case, seconds=seconds, say=console.print))
            except BenchError as error:
                failed += 1
                console.print(f"{case.name}: {error}", style="red", markup=False)
                continue
            console.print(_details(rows[-1]), markup=False)
    console.print(table(rows))
    return not failed and all(row.passed for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Run the faults that are named, or all; 0 when all passed."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="fault", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help=f"away for {SHORT_S:g} s, not more")
    parser.add_argument("--keep", type=Path, help="an empty folder for data and logs, which stay")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.faults if name not in CASES]:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(CASES)}")
    console = Console(width=None if sys.stdout.isatty() else 180)
    seconds = SHORT_S if options.quick else AWAY_S
    names = options.faults or list(CASES)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        passed = asyncio.run(_run(names, seconds, options.keep.resolve(), console))
    else:
        with tempfile.TemporaryDirectory(prefix="hikyaku-faults-") as folder:
            passed = asyncio.run(_run(names, seconds, Path(folder), console))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
