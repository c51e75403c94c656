"""`hikyaku capacity`: what a number of users needs, by arithmetic from measured figures.

`plan` is a pure function of what is assumed (`Load`) and of `capacity_figures`. See
`docs/capacity.md`.
"""

from collections.abc import Iterator
from math import ceil
from typing import Annotated, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta, Struct

from .capacity_figures import FIGURES, value
from .errors import UserError

DAY_S = 86_400
YEAR_DAYS = 365
DUPLICATE_WINDOW_S = 120
MONGO_COPIES = 3
PING_BYTES = 80
"""A ping, its pong and their TCP headers, near enough."""


class Load(Struct, frozen=True, kw_only=True):
    """What is assumed."""

    dau: Annotated[int, Meta(ge=1, le=10**11, description="Users of a day.")] = 1_000_000
    messages_per_day: Annotated[
        float, Meta(ge=0, le=1e6, description="Messages that each of them sends.")
    ] = 40.0
    online: Annotated[
        float, Meta(ge=0, le=1, description="Share of them connected at the busiest time.")
    ] = 0.1
    devices: Annotated[
        float, Meta(ge=1, le=10, description="Connections of a user who is connected.")
    ] = 1.2
    peak: Annotated[
        float, Meta(ge=1, le=100, description="The busiest second, over the average.")
    ] = 3.0
    deliveries: Annotated[
        float, Meta(ge=0, le=1e5, description="Connections that get a message, on average.")
    ] = 4.0
    connects_per_day: Annotated[
        float, Meta(ge=0, le=1e4, description="Times that a device connects.")
    ] = 10.0
    text_bytes: Annotated[int, Meta(ge=1, le=16_384, description="Text of a message.")] = 120
    file_share: Annotated[float, Meta(ge=0, le=1, description="Share of messages with a file.")] = (
        0.05
    )
    file_bytes: Annotated[float, Meta(ge=0, le=1e10, description="Size of a file.")] = 300_000.0
    log_days: Annotated[float, Meta(ge=0.01, le=3650, description="Days in the log.")] = 7.0
    hot_days: Annotated[float, Meta(ge=0.01, le=3650, description="Days in MongoDB.")] = 30.0
    search_days: Annotated[
        float, Meta(ge=0, le=3650, description="Days that the search finds.")
    ] = 30.0
    replicas: Annotated[int, Meta(ge=1, le=5, description="Copies of the log.")] = 3
    site_connections: Annotated[
        int, Meta(ge=1, le=10**7, description="Connections that one site shall have.")
    ] = 100_000
    server_cores: Annotated[int, Meta(ge=1, le=1024, description="Cores of a server.")] = 8
    busy: Annotated[
        float, Meta(ge=0.05, le=1, description="How busy a core may be at the busiest time.")
    ] = 0.5


class Option(NamedTuple):
    """An assumption as an option of the command."""

    name: str
    option: str
    kind: type
    what: str


def _options() -> Iterator[Option]:
    for name, hint in get_type_hints(Load, include_extras=True).items():
        kind, (meta,) = hint.__origin__, hint.__metadata__
        yield Option(name, "--" + name.replace("_", "-"), kind, meta.description.removesuffix("."))


OPTIONS = tuple(_options())


def assumed(given: dict[str, int | float]) -> Load:
    """What is assumed, with what was given in place of defaults. Raises `UserError`."""
    try:
        return msgspec.convert(given, Load)
    except msgspec.ValidationError as error:
        raise UserError(f"{error}: see `hikyaku capacity --help`") from None


class Plan(Struct, frozen=True, kw_only=True):
    """What it needs. Rates are a second, sizes bytes; all sites together unless it says `site`."""

    messages_a_day: float
    messages_average: float
    messages_peak: float
    deliveries_peak: float
    connections: int
    connects_peak: float
    inward_bits: float
    outward_bits: float
    log_day: float
    log_held: float
    mongo_day: float
    mongo_held: float
    search_day: float
    search_held: float
    archive_year: float
    files_day: float
    files_year: float
    sites: int
    site_messages_peak: float
    site_edges: int
    site_edge_memory: float
    site_nats_memory: float
    site_edge_cores: float
    site_nats_cores: float
    site_mongod_cores: float
    site_worker_cores: float
    site_nats_servers: int
    site_mongod_servers: int
    site_servers: int
    servers: int


def plan(load: Load) -> Plan:
    """Work it out. Raises `UserError` when one edge cannot even read what its site says."""
    a_day = load.dau * load.messages_per_day
    average = a_day / DAY_S
    peak = average * load.peak
    connections = ceil(load.dau * load.online * load.devices)
    connects = load.dau * load.devices * load.connects_per_day / DAY_S * load.peak
    frame = load.text_bytes + value("frame_bytes")
    pings = connections / 30 * PING_BYTES
    deliveries = peak * load.deliveries
    files_day = a_day * load.file_share * load.file_bytes
    files_peak = files_day / DAY_S * load.peak
    log_day = a_day * (load.text_bytes + value("log_bytes")) * load.replicas
    mongo_day = a_day * (load.text_bytes + value("mongo_bytes")) * MONGO_COPIES
    search_day = a_day * value("search_bytes")

    by_connections = ceil(connections / load.site_connections)
    by_messages = ceil(peak / (value("site_messages") * load.busy))
    sites = max(1, by_connections, by_messages)
    site_peak, site_connections = peak / sites, ceil(connections / sites)
    edge = _edges(load, site_peak, deliveries / sites, connects / sites)
    nats = site_peak * value("nats_us") / 1e6 / load.busy
    mongod = site_peak * value("mongod_us") / 1e6 / load.busy
    beside = value("whole_us") - value("message_us")
    workers = site_peak * (value("persist_us") + beside) / 1e6 / load.busy
    # Of NATS and MongoDB each member does all the work.
    cores = edge.number + nats * load.replicas + mongod * MONGO_COPIES + workers
    servers = max(load.replicas, MONGO_COPIES, ceil(cores / load.server_cores))
    return Plan(
        messages_a_day=a_day,
        messages_average=average,
        messages_peak=peak,
        deliveries_peak=deliveries,
        connections=connections,
        connects_peak=connects,
        inward_bits=8 * (peak * frame + pings / 2 + files_peak),
        outward_bits=8 * (deliveries * frame + pings / 2 + files_peak * load.deliveries),
        log_day=log_day,
        log_held=log_day * load.log_days,
        mongo_day=mongo_day,
        mongo_held=mongo_day * load.hot_days,
        search_day=search_day,
        search_held=search_day * load.search_days,
        archive_year=a_day * value("archive_bytes") * YEAR_DAYS,
        files_day=files_day,
        files_year=files_day * YEAR_DAYS,
        sites=sites,
        site_messages_peak=site_peak,
        site_edges=edge.number,
        site_edge_memory=site_connections * value("connection_kb") * 1000,
        site_nats_memory=site_peak * DUPLICATE_WINDOW_S * value("dedupe_bytes"),
        site_edge_cores=edge.cores,
        site_nats_cores=nats,
        site_mongod_cores=mongod,
        site_worker_cores=workers,
        site_nats_servers=load.replicas,
        site_mongod_servers=MONGO_COPIES,
        site_servers=servers,
        servers=servers * sites,
    )


class _Edges(NamedTuple):
    number: int
    cores: float


def _edges(load: Load, messages: float, deliveries: float, connects: float) -> _Edges:
    """Edges of a site, each a process of one core; every one reads all that the site says."""
    reading = messages * value("parse_us") / 1e6
    if reading >= load.busy:
        most = load.busy / value("parse_us") * 1e6
        raise UserError(
            f"a site would have {messages:.0f} messages a second, and an edge that reads all of"
            f" them manages {most:.0f}: make sites smaller with --site-connections"
        )
    further = max(0.0, deliveries - messages)
    work = messages * value("edge_us") + further * value("delivery_us")
    shared = work / 1e6 + connects * value("connect_ms") / 1e3
    count = max(2, ceil(shared / (load.busy - reading)))
    return _Edges(count, (shared + count * reading) / load.busy)


# --- showing ------------------------------------------------------------------------------------


def capacity(load: Load, *, json: bool) -> int:
    """Print the plan, with all that it rests on."""
    found = plan(load)
    if json:
        told = {
            "assumptions": msgspec.to_builtins(load),
            "figures": {name: each._asdict() for name, each in FIGURES.items()},
            "plan": msgspec.to_builtins(found),
        }
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
        return 0
    for line in _lines(load, found):
        print(line)
    return 0


def _lines(load: Load, found: Plan) -> Iterator[str]:
    yield "Assumed (change with the option of that name)"
    for each in OPTIONS:
        yield f"  {each.option:22}{getattr(load, each.name):>14,}  {each.what}"
    yield ""
    for title, rows in _table(load, found):
        yield title
        for name, text in rows:
            yield f"  {name:44}{text:>16}"
        yield ""
    yield "Measured (2 cores with everything on them; a site of your own may differ)"
    for figure in FIGURES.values():
        yield f"  {figure.value:>8,} {figure.unit:3} {figure.what} ({figure.where})"


def _table(load: Load, found: Plan) -> list[tuple[str, list[tuple[str, str]]]]:
    copies = f"{load.replicas} copies"
    return [
        (
            "Load",
            [
                ("messages a day", _count(found.messages_a_day)),
                ("messages a second, average", _count(found.messages_average)),
                ("messages a second, at the peak", _count(found.messages_peak)),
                ("deliveries a second, at the peak", _count(found.deliveries_peak)),
                ("connections at once", _count(found.connections)),
                ("connects a second, at the peak", _count(found.connects_peak)),
                ("bandwidth from clients, at the peak", _bits(found.inward_bits)),
                ("bandwidth to clients, at the peak", _bits(found.outward_bits)),
            ],
        ),
        (
            "Storage",
            [
                (f"log, a day ({copies})", _size(found.log_day)),
                (f"log, {load.log_days:g} days", _size(found.log_held)),
                (f"MongoDB, a day ({MONGO_COPIES} copies)", _size(found.mongo_day)),
                (f"MongoDB, {load.hot_days:g} days", _size(found.mongo_held)),
                ("search, a day", _size(found.search_day)),
                (f"search, {load.search_days:g} days", _size(found.search_held)),
                ("archive, a year (as the object store counts)", _size(found.archive_year)),
                ("files, a day", _size(found.files_day)),
                ("files, a year", _size(found.files_year)),
            ],
        ),
        (
            f"Sites: {found.sites:,}, and each has",
            [
                ("messages a second, at the peak", _count(found.site_messages_peak)),
                ("edges", _count(found.site_edges)),
                ("memory of edges for connections", _size(found.site_edge_memory)),
                ("memory of NATS for ids of two minutes", _size(found.site_nats_memory)),
                ("cores for edges", f"{found.site_edge_cores:.1f}"),
                ("cores for each NATS server", f"{found.site_nats_cores:.1f}"),
                ("cores for each MongoDB server", f"{found.site_mongod_cores:.1f}"),
                ("cores for workers and search", f"{found.site_worker_cores:.1f}"),
                ("NATS servers", _count(found.site_nats_servers)),
                ("MongoDB servers", _count(found.site_mongod_servers)),
                (f"machines of {load.server_cores} cores", _count(found.site_servers)),
            ],
        ),
        ("All sites", [(f"machines of {load.server_cores} cores", _count(found.servers))]),
    ]


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"


def _scaled(number: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} {units[-1]}"


def _size(number: float) -> str:
    return _scaled(number, ("B", "kB", "MB", "GB", "TB", "PB"))


def _bits(number: float) -> str:
    return _scaled(number, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"))
