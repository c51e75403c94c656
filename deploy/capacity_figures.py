"""What `hikyaku capacity` counts with: measured figures, each with where it stands.

A figure that is measured anew is changed here and there; a test compares the two.
"""

from typing import NamedTuple

BENCH = "docs/bench.md"
HERE = "docs/capacity.md"


class Figure(NamedTuple):
    """A measured value; `quote` is how the page `where` says it."""

    value: float
    unit: str
    what: str
    where: str
    quote: str


FIGURES: dict[str, Figure] = {
    "edge_us": Figure(
        34, "us", "CPU of edges for a message and its first delivery", BENCH, "edges 34, nats 27"
    ),
    "nats_us": Figure(27, "us", "CPU of NATS for a message", BENCH, "edges 34, nats 27"),
    "mongod_us": Figure(27, "us", "CPU of MongoDB for a message", BENCH, "mongod 27, persist 18"),
    "persist_us": Figure(18, "us", "CPU of `persist` for a message", BENCH, "persist 18 us"),
    "whole_us": Figure(
        187, "us", "CPU of everything for a message, with search and pushes", BENCH, "0.187 ms"
    ),
    "message_us": Figure(107, "us", "the same without search and pushes", BENCH, "0.107 ms"),
    "delivery_us": Figure(
        4.8, "us", "CPU for each further delivery (group of 50)", BENCH, "4.8 us each"
    ),
    "parse_us": Figure(5, "us", "CPU of an edge for a message of nobody there", HERE, "5 us"),
    "connect_ms": Figure(0.77, "ms", "CPU of everything for a connect", BENCH, "0.77 ms"),
    "connection_kb": Figure(
        13.4, "kB", "memory of an edge for an idle connection", BENCH, "13.4 kB"
    ),
    "site_messages": Figure(
        9_800, "/s", "messages with search and pushes, on 2 cores", BENCH, "9,800 delivered/s"
    ),
    "log_bytes": Figure(
        380, "B", "log, for each message, beside its text", HERE, "500 B in the log"
    ),
    "mongo_bytes": Figure(
        280, "B", "MongoDB, for each message, beside its text", HERE, "400 B in MongoDB"
    ),
    "search_bytes": Figure(
        670, "B", "search index, for each message", HERE, "670 B in the search index"
    ),
    "archive_bytes": Figure(75, "B", "archive, for each message", HERE, "75 B in the archive"),
    "dedupe_bytes": Figure(
        258, "B", "memory of NATS for an id in the duplicate window", HERE, "258 B"
    ),
    "frame_bytes": Figure(
        220, "B", "frame of a message, beside its text", HERE, "340 B as a frame"
    ),
}


def value(name: str) -> float:
    """A figure's value."""
    return FIGURES[name].value
