"""`python -m bench.federation`: what a hop between two sites adds, and how fast a cut heals.

Two whole sites on this machine, linked through a proxy that cuts and delays.
"""

import argparse
import asyncio
import functools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from broker import subjects

from . import messages
from .client import Client
from .offices import Site, linked
from .pace import Schedule
from .proxy import Proxy
from .scenario import BenchError, latency_metrics, median, reached

RATE = 100
PAIRS = 10
WARM_S, MEASURED_S = 2, 20
BACKLOG = 10_000
BURST, BURST_S = 20, 0.01
HEAL_S = 300.0
PAGE = 200

_PROVISIONAL = b'"provisional"'
_RESULT = b'{"type":"result"'
_ACCEPTED = b'"accepted"'


class Sites(NamedTuple):
    """Two sites; `link` is between them."""

    tokyo: Site
    osaka: Site
    link: Proxy


class Person(Client):
    """Counts what comes of others, each message once it has its place; notes how long it took.

    `number` is that of its own messages, which come back too.
    """

    def __init__(self, user: str, took_ns: list[float], number: int = -1) -> None:
        super().__init__(user)
        self.number = number
        self.heard = 0
        self.accepted = 0
        self.placed = 0
        self._took_ns = took_ns

    def text(self, data: bytes, start: int, end: int) -> None:
        """Look at a frame."""
        if data.find(_PROVISIONAL, start, start + 40) >= 0:
            return
        if data.startswith(_RESULT, start):
            self.control(data[start:end])
            return
        mark = data.find(messages.MARK, start, end)
        if mark >= 0:
            if messages.sender(data, mark) == self.number:
                return
            self.heard += 1
            self._took_ns.append(time.monotonic_ns() - messages.due_ns(data, mark))
        elif data.find(messages.ACK, start, end) < 0:
            self.control(data[start:end])
        elif data.find(_ACCEPTED, start, end) >= 0:
            self.accepted += 1
        else:
            self.placed += 1


async def people(
    site: Site, names: Sequence[str], took_ns: list[float], first: int = -PAIRS
) -> list[Person]:
    """Users of a site, connected, on both edges in turn; the number of the first one's messages."""
    made = [Person(name, took_ns, first + number) for number, name in enumerate(names)]
    for number, each in enumerate(made):
        await each.open(site.target.edge(number), site.target.secret)
    return made


async def hop(sites: Sites, run: str) -> dict[str, float]:
    """Delivery within a site, to the other site, and into a chat that lives at the other site."""
    found: dict[str, float] = {}
    ways = {
        "within": (sites.tokyo, sites.tokyo, ""),
        "out": (sites.tokyo, sites.osaka, "@osaka"),
        "home": (sites.osaka, sites.tokyo, "@tokyo"),
    }
    for way, (here, there, suffix) in ways.items():
        took_ns: list[float] = []
        # Full names begin with a for whoever is at tokyo: there the conversation lives.
        first, second = ("b", "a") if here.name == "osaka" else ("a", "b")
        senders = [f"{first}-{way}{number}-{run}" for number in range(PAIRS)]
        receivers = [f"{second}-{way}{number}-{run}" for number in range(PAIRS)]
        writing = await people(here, senders, [])
        reading = await people(there, receivers, took_ns)
        templates = [
            messages.Template(run, number, to=name + suffix)
            for number, name in enumerate(receivers)
        ]

        def send(
            number: int,
            due_ns: int,
            writing: list[Person] = writing,
            templates: list[messages.Template] = templates,
        ) -> None:
            turn = number % PAIRS
            writing[turn].send(templates[turn].frame(number, due_ns))

        warm, count = RATE * WARM_S, RATE * MEASURED_S
        await Schedule(RATE, warm + count, send).run()
        await reached(took_ns.__len__, warm + count, timeout_s=60)
        found |= latency_metrics(took_ns[warm:], way)
        for each in (*writing, *reading):
            each.close()
    return found


async def heal(sites: Sites, run: str, backlog: int) -> dict[str, float]:
    """Cut, write at both sites, heal; until everybody has everything, in the same order."""
    each_way = backlog // PAIRS
    here = [f"a-{number}-{run}" for number in range(PAIRS)]
    there = [f"b-{number}-{run}" for number in range(PAIRS)]
    tokyo = await people(sites.tokyo, here, [], 0)
    osaka = await people(sites.osaka, there, [], PAIRS)
    sites.link.sever()
    for writing, others in (
        (tokyo, [f"{n}@osaka" for n in there]),
        (osaka, [f"{n}@tokyo" for n in here]),
    ):
        templates = [
            messages.Template(run, writing[0].number + n, to=to) for n, to in enumerate(others)
        ]
        for start in range(0, each_way, BURST):
            for person, template in zip(writing, templates, strict=True):
                for number in range(start, min(start + BURST, each_way)):
                    person.send(template.frame(number, time.monotonic_ns()))
            await asyncio.sleep(BURST_S * PAIRS)
    total = each_way * PAIRS
    await reached(lambda: sum(each.placed for each in tokyo), total, timeout_s=120)
    await reached(lambda: sum(each.accepted for each in osaka), total, timeout_s=120)
    if sum(each.heard for each in (*tokyo, *osaka)):
        raise BenchError("the link was not cut")
    sites.link.clear()
    begin = time.monotonic()
    waited: dict[str, float] = {}
    for name, count in (
        ("to_osaka_s", lambda: sum(each.heard for each in osaka)),
        ("to_tokyo_s", lambda: sum(each.heard for each in tokyo)),
        ("all_s", lambda: sum(each.placed for each in osaka)),
    ):
        await reached(count, total, timeout_s=HEAL_S)
        waited[name] = time.monotonic() - begin
    for one, other, name in zip(tokyo, osaka, there, strict=True):
        seen = await history(one, f"{name}@osaka"), await history(other, f"{one.user}@tokyo")
        if seen[0] != seen[1] or len(seen[0]) != 2 * each_way:
            raise BenchError(f"{one.user} and {name} do not see the same")
    for each in (*tokyo, *osaka):
        each.close()
    return waited


async def history(person: Person, other: str) -> list[str]:
    """The ids of all messages with another user, newest first."""
    ids: list[str] = []
    more = True
    while more:
        chat = subjects.dm(person.user, other)
        asked: dict[str, Any] = {"type": "history", "chat_id": chat, "limit": PAGE}
        page = await person.request(asked | ({"before": ids[-1]} if ids else {}))
        ids += [each["id"] for each in page["messages"]]
        more = page["more"]
    return ids


async def _run(runs: int, backlog: int, folder: Path) -> None:
    rows: list[dict[str, float]] = []
    async with linked(folder, ("tokyo", "osaka")) as offices:
        tokyo, osaka = offices.sites.values()
        sites = Sites(tokyo, osaka, offices.links["osaka"])
        for _ in range(runs):
            run = os.urandom(3).hex()
            rows.append({})
            for measure in (hop, functools.partial(heal, backlog=backlog)):
                rows[-1] |= await measure(sites, run)
                print({name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    print("median:", {name: round(median([row[name] for row in rows]), 3) for name in rows[0]})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=BACKLOG, help="messages each way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hikyaku-federation-") as folder:
        asyncio.run(_run(arguments.runs, arguments.backlog, Path(folder)))


if __name__ == "__main__":
    main()
