"""`make faults-federation`: what three linked sites do under faults, message by message.

osaka and kyoto dial tokyo, each through a proxy; what they say to each other goes through tokyo.
Members at all sites write into a group that lives at tokyo and into one that lives at osaka,
through the fault. Then every member must have the same messages in the same order: every
one that was acknowledged, once, and those of each sender in the order in which they were sent.
"""

import argparse
import asyncio
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from . import http
from .client import Client
from .federation_members import HOMES, OF_A_SITE, Key, Member
from .offices import Offices, Site, linked
from .process import named
from .proxy import Proxy
from .scenario import MESSAGE_PATH, BenchError

SITES = ("tokyo", "osaka", "kyoto")
RATE = 30.0
AWAY_S, SHORT_S = 30.0, 4.0
QUIET_S = 2.0
HEAL_S = 180.0
READY_S = 120.0
NARROW_BYTES_PER_S = 8000

Work = Callable[[Offices, float], Awaitable[None]]


async def _cut(links: Sequence[Proxy], seconds: float) -> None:
    for link in links:
        link.sever()
    await asyncio.sleep(seconds)
    for link in links:
        link.refusing = False


async def _all_cut(offices: Offices, seconds: float) -> None:
    await _cut(list(offices.links.values()), seconds)


async def _one_cut(offices: Offices, seconds: float) -> None:
    await _cut([offices.links["kyoto"]], seconds)


async def _deaf(offices: Offices, seconds: float) -> None:
    link = offices.links["osaka"]
    for direction in (link.up, link.down):
        direction.drop()
        await asyncio.sleep(seconds / 2)
        # Bytes are missing in the stream now; TCP would not go on with it.
        link.reset()
        direction.clear()


async def _slow(offices: Offices, seconds: float) -> None:
    for link in offices.links.values():
        for direction in (link.up, link.down):
            direction.delay_s, direction.stalls = 0.15, 0.02
    await asyncio.sleep(seconds)


async def _narrow(offices: Offices, seconds: float) -> None:
    for direction in (offices.links["osaka"].up, offices.links["osaka"].down):
        direction.bytes_per_s = NARROW_BYTES_PER_S
    await asyncio.sleep(seconds)


async def _flapping(offices: Offices, seconds: float) -> None:
    for _ in range(int(2 * seconds)):
        offices.links["osaka"].reset()
        await asyncio.sleep(1)


async def _until(wanted: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not await wanted():
        if time.monotonic() > deadline:
            raise BenchError(f"not ready within {timeout_s:g} s")
        await asyncio.sleep(0.1)


async def _kill(site: Site, process: str) -> None:
    """kill -9; its supervisor starts it again."""
    assert site.target.supervisor is not None
    pids = [pid for pid, name in named(site.target.supervisor).items() if name == process]
    if not pids:
        raise BenchError(f"there is no {process} at {site.name}")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(1)
    await _until(lambda: http.ready(site.target.edges), READY_S)


def _killed(process: str, *sites: str) -> Work:
    async def work(offices: Offices, _: float) -> None:
        for name in sites:
            await _kill(offices.sites[name], process)

    return work


def _random(seed: int) -> Work:
    chosen = random.Random(seed)

    async def work(offices: Offices, seconds: float) -> None:
        end = time.monotonic() + 2 * seconds
        while time.monotonic() < end:
            link = offices.links[chosen.choice(SITES[1:])]
            site = offices.sites[chosen.choice(SITES)]
            match chosen.choice(("cut", "reset", "hold", "deaf", "relay", "nats")):
                case "cut":
                    await _cut([link], chosen.uniform(0.2, 4))
                case "reset":
                    link.reset()
                case "hold":
                    link.up.hold()
                    await asyncio.sleep(chosen.uniform(0.5, 4))
                    link.up.release()
                case "deaf":
                    link.down.drop()
                    await asyncio.sleep(chosen.uniform(0.5, 4))
                    link.reset()
                    link.down.clear()
                case "relay":
                    await _kill(site, "worker relay")
                case "nats":
                    await _kill(site, "nats-server")
            await asyncio.sleep(chosen.uniform(0, 1))

    return work


class Case(NamedTuple):
    """A fault of the table."""

    name: str
    work: Work


CASES = {
    "cut": Case("all links cut", _all_cut),
    "deaf": Case("osaka's link loses all one way, then the other", _deaf),
    "slow": Case("300 ms there and back, one piece of 50 late by 0.4 s", _slow),
    "narrow": Case("osaka's link has 64 kbit/s", _narrow),
    "flapping": Case("osaka's link breaks each second", _flapping),
    "one": Case("kyoto's link cut", _one_cut),
    "relay": Case("kill -9 of each relay", _killed("worker relay", *SITES)),
    "nats": Case("kill -9 of NATS at osaka", _killed("nats-server", "osaka")),
    "hub": Case("kill -9 of NATS at tokyo, through which all go", _killed("nats-server", "tokyo")),
}


class Row(NamedTuple):
    """What one fault did; times in seconds."""

    name: str
    duration_s: float
    sent: int
    acked: int
    delivered: int
    lost: int
    doubled: int
    disordered: int
    differing: int
    outage_s: float
    healed_s: float
    refused: list[str]

    @property
    def passed(self) -> bool:
        """Nothing lost, twice, out of order or refused, and all members have the same."""
        return not any((self.lost, self.doubled, self.disordered, self.differing, self.refused))


async def run_case(offices: Offices, case: Case, *, seconds: float, rate: float = RATE) -> Row:
    """All write through the fault, then everything is counted. Raises `BenchError`."""
    run = uuid4().hex[:6]
    members = [
        Member(offices.sites[site], number * OF_A_SITE + each, run)
        for number, site in enumerate(SITES)
        for each in range(OF_A_SITE)
    ]
    async with asyncio.TaskGroup() as group:
        for each in members:
            group.create_task(each.run())
        try:
            async with asyncio.timeout(READY_S):
                for each in members:
                    await each.connected.wait()
            await _groups(members, run)
            load = group.create_task(_write(members, rate))
            await asyncio.sleep(QUIET_S)
            begin = time.monotonic()
            try:
                await case.work(offices, seconds)
            finally:
                for link in offices.links.values():
                    link.clear()
            duration_s = time.monotonic() - begin
            await asyncio.sleep(QUIET_S)
            load.cancel()
            healed = time.monotonic()
            await _until_whole(members)
            return _row(case.name, members, duration_s, begin, time.monotonic() - healed)
        finally:
            for each in members:
                each.stop()


async def _groups(members: Sequence[Member], run: str) -> None:
    """A group at each home, known at all sites."""
    for home in HOMES:
        owner = next(each for each in members if each.site == home)
        others = [
            each.user if each.site == home else f"{each.user}@{each.site}"
            for each in members
            if each is not owner
        ]
        client = Client(owner.user, device="owner")
        await client.open(owner.address, owner.secret)
        await client.request(
            {
                "type": "group_create",
                "client_id": f"{run}-{home}",
                "name": home,
                "group_id": f"g-{home}-{run}",
                "members": others,
            }
        )
        client.close()
        owner.groups.add(owner.group(home))
    for each in members:
        await _until(each.knows_all, READY_S)


async def _write(members: Sequence[Member], rate: float) -> None:
    start, number = time.monotonic(), 0
    while True:
        members[number % len(members)].say()
        number += 1
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))


async def _until_whole(members: Sequence[Member]) -> None:
    """Until everybody has as much as there is, or the deadline: the row tells what is missing."""
    deadline = time.monotonic() + HEAL_S
    while time.monotonic() < deadline:
        acked = sum(len(each.acked) for each in members)
        if not any(each.unacked for each in members) and all(
            sum(map(len, each.view.values())) >= acked for each in members
        ):
            return
        await asyncio.sleep(0.1)


def _row(
    name: str, members: Sequence[Member], duration_s: float, begin: float, healed_s: float
) -> Row:
    acked = set().union(*(each.acked for each in members))
    pending = set().union(*(each.unacked for each in members))
    again = set().union(*(each.again for each in members))
    views = [[key for home in HOMES for key in each.view[home]] for each in members]
    heard = sorted(at for each in members for at in each.heard_others if at >= begin - QUIET_S)
    return Row(
        name=name,
        duration_s=duration_s,
        sent=len(acked | pending),
        acked=len(acked),
        delivered=sum(map(len, views)),
        lost=sum(len(acked - set(view)) for view in views),
        doubled=sum(len(view) - len(set(view)) for view in views),
        disordered=sum(each.disordered for each in members)
        + sum(_overtaken(view, again) for view in views),
        differing=sum(view != views[0] for view in views),
        outage_s=max((b - a for a, b in itertools.pairwise(heard)), default=0.0),
        healed_s=healed_s,
        refused=[text for each in members for text in each.journal.refused][:5]
        + [f"{each.user}: {each.void} writes were refused" for each in members if each.void],
    )


def _overtaken(view: Sequence[Key], again: set[Key]) -> int:
    """Messages after a later one of their sender in the same chat."""
    newest: dict[tuple[str, int], int] = {}
    found = 0
    for home, sender, number in view:
        found += number < newest.get((home, sender), -1) and (home, sender, number) not in again
        newest[home, sender] = max(number, newest.get((home, sender), -1))
    return found


def table(rows: Sequence[Row]) -> Table:
    """Times in seconds."""
    made = Table("fault", title="Times in seconds", title_justify="left")
    for heading in (
        *("time", "sent", "acked", "delivered", "lost", "twice", "disordered"),
        *("views that differ", "outage", "healed after", ""),
    ):
        made.add_column(heading, justify="right")
    for row in rows:
        counts = (row.sent, row.acked, row.delivered, row.lost, row.doubled, row.disordered)
        made.add_row(
            row.name,
            f"{row.duration_s:.0f}",
            *(f"{count:,}" for count in (*counts, row.differing)),
            f"{row.outage_s:.1f}",
            f"{row.healed_s:.1f}",
            "passed" if row.passed else "FAILED",
        )
    return made


async def _run(cases: Sequence[Case], seconds: float, folder: Path, console: Console) -> bool:
    rows: list[Row] = []
    failed = 0
    async with linked(folder, SITES, without=MESSAGE_PATH) as offices:
        for case in cases:
            try:
                rows.append(await run_case(offices, case, seconds=seconds))
            except (BenchError, TimeoutError, ExceptionGroup) as error:
                failed += 1
                console.print(f"{case.name}: {error!r}", style="red", markup=False)
                continue
            console.print(str(rows[-1]), markup=False)
    console.print(table(rows))
    return not failed and all(row.passed for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Run the faults that are named, or all and random ones; 0 when all passed."""
    parser = argparse.ArgumentParser(prog="faults-federation", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="fault", help=", ".join([*CASES, "random"]))
    parser.add_argument("--quick", action="store_true", help=f"{SHORT_S:g} s each, not more")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(f"seed of the random faults: {options.seed}")
    cases = {**CASES, "random": Case(f"random, seed {options.seed}", _random(options.seed))}
    if unknown := [name for name in options.faults if name not in cases]:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(cases)}")
    chosen = [cases[name] for name in options.faults or cases]
    with tempfile.TemporaryDirectory(prefix="hikyaku-faults-") as folder:
        seconds = SHORT_S if options.quick else AWAY_S
        passed = asyncio.run(_run(chosen, seconds, Path(folder), console))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
