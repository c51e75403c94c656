"""`hikyaku status` for people: tables, then what is wrong and what to do."""

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import alive, relay, status

if TYPE_CHECKING:
    from .status import SiteStatus


FILE_COLUMNS = 200
"""Of what does not go to a terminal: nothing is cut."""


def show(found: "SiteStatus") -> None:
    """Print it."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    for table in (
        _servers(found),
        _edges(found.broker.edges),
        _workers(found.broker.workers),
        _consumers(found.broker.consumers),
        _streams(found.broker.streams),
        *([_links(found.links)] if found.links else []),
    ):
        console.print(table)
        console.print()
    letters = sum(found.broker.dead_letters.values())
    ago = "never" if found.archived_known else "unknown"
    if found.archived_s is not None:
        ago = f"{duration(found.archived_s)} ago"
    connections = sum(max(0, each.connections) for each in found.broker.edges)
    console.print(
        f"connections {connections:,}, machine numbers leased {found.broker.machine_leases},"
        f" dead letters {letters}, archive run {ago}"
    )
    for problem in found.problems:
        console.print(Text("problem ", "red") + Text(problem, ""))
    if found.ok:
        console.print(Text("ok ", "green") + Text(f"the site {found.site} is well", ""))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, no_wrap=True, justify="right")
    return table


def _servers(found: "SiteStatus") -> Table:
    table = _table("server", "answers in")
    for each in found.servers:
        answers = Text("does not", "red") if each.error else Text(f"{each.took_ms:.1f} ms")
        table.add_row(Text(each.name), answers)
    return table


def _edges(edges: list[alive.Edge]) -> Table:
    table = _table("edge", "host", "connections", "files at most", "machine")
    for each in edges:
        numbers = (each.connections, each.files, each.machine)
        told = ("?" if number < 0 else f"{number:,}" for number in numbers)
        table.add_row(Text(each.edge), Text(each.host or "?"), *told)
    return table


def _workers(workers: list[alive.Worker]) -> Table:
    table = _table("worker", "host", "process", "runs for")
    for each in workers:
        runs = duration(max(0.0, time.time() - each.started))
        table.add_row(each.worker, Text(each.host), str(each.pid), runs)
    return table


def _consumers(consumers: list[status.ConsumerStatus]) -> Table:
    table = _table("consumer", "events behind", "oldest")
    for each in consumers:
        if each.there:
            table.add_row(each.name, f"{each.pending:,}", duration(each.oldest_s))
        else:
            table.add_row(each.name, Text("not there", "red"), "")
    return table


def _streams(streams: list[status.StreamStatus]) -> Table:
    table = _table("stream or bucket", "messages", "bytes", "at most", "kept", "seq", "copies")
    for each in streams:
        if not each.there:
            table.add_row(each.name, Text("missing", "red"))
            continue
        table.add_row(
            each.name,
            f"{each.messages:,}",
            size(each.bytes),
            size(each.max_bytes) if each.max_bytes else "",
            duration(each.max_age_s) if each.max_age_s else "",
            "" if each.bucket or not each.messages else f"{each.first_seq:,} to {each.last_seq:,}",
            f"{each.copies}/{each.replicas}",
        )
    return table


def _links(links: list[relay.Link]) -> Table:
    table = _table("link to", "connected", "since", "parcels waiting", "oldest")
    for each in links:
        table.add_row(
            each.site,
            "yes" if each.connected else Text("no", "red"),
            "?" if each.since_s is None else duration(each.since_s),
            f"{each.waiting:,}",
            "" if each.oldest_s is None else duration(each.oldest_s),
        )
    return table


def size(count: float) -> str:
    """Bytes for people, as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people, as `3 h`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
