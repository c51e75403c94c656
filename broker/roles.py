"""Who may do what on the bus: one table, from which the servers' configuration is made.

A role is a user of the site's account at NATS. It may publish and subscribe to what stands here and
to nothing else; `deploy.nats_accounts` writes it down for the server. Replies come to an inbox of
the role, which no other role but the operator may read.

Only `directory` and `persist` make streams. Nobody but the operator deletes one, or purges one that
it may not write anyway.
"""

from msgspec import Struct

from . import lease, links, machine, outbox, pointers, presence, sites
from .alive import PING
from .config import BrokerConfig
from .declared import declared
from .log import STREAM
from .subjects import CHAT_SUBJECTS, EPHEMERAL, LIVE, SERVICE, inbox, service

ACCOUNT = "SITE"
"""The account of the site's own processes; a linked site gets one of its own."""

FEDERATION = "FED"
"""The account in which sites speak to each other. What is said here, no other account hears."""

EDGE = "edge"
RELAY = "relay"
POSTMAN = "federation"
"""The relay's user in the account `FEDERATION`; it has the relay's password."""
OPERATOR = "operator"
SYSTEM = "SYS"
"""The account in which servers answer about themselves."""
ADMIN = "admin"
"""The operator's user in the account `SYSTEM`, with the operator's password."""
EVERYTHING = (">",)

_API = "$JS.API."


class Role(Struct, frozen=True):
    """What a user of this name may publish and subscribe to.

    With `answers` it may also publish one reply to each message that asked it for one.
    """

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def _reads(*streams: str) -> tuple[str, ...]:
    verbs = ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")
    return tuple(f"{_API}{verb}.{stream}" for stream in streams for verb in verbs)


def _reads_buckets(*buckets: str) -> tuple[str, ...]:
    return _reads(*(f"KV_{each}" for each in buckets))


def _writes_buckets(*buckets: str) -> tuple[str, ...]:
    return tuple(f"$KV.{each}.>" for each in buckets)


def _how_far(consumer: str) -> str:
    return f"{_API}CONSUMER.INFO.{STREAM}.{consumer}"


def _consumes(name: str) -> tuple[str, ...]:
    """All that a reader of the log needs: its consumer, and a place for what it cannot handle."""
    of = f"{STREAM}.{name}"
    return (
        f"{_API}CONSUMER.CREATE.{of}",
        f"{_API}CONSUMER.MSG.NEXT.{of}",
        _how_far(name),
        f"$JS.ACK.{of}.>",
        f"$JS.ACK.*.*.{of}.>",  # as servers name it with the feature flag js_ack_fc_v2
        f"dead.{name}",
    )


def _pinged(worker: str) -> str:
    return service(worker, PING)


def _makes_streams() -> tuple[str, ...]:
    """The purge moves a new log to where it begins (`broker.making`)."""
    verbs = ("CREATE", "UPDATE", "INFO")
    streams = [each.name for each in declared(BrokerConfig())]
    made = tuple(f"{_API}STREAM.{verb}.{stream}" for stream in streams for verb in verbs)
    return (*made, f"{_API}STREAM.PURGE.{STREAM}")


_DM, _GROUP, _USER = CHAT_SUBJECTS


def _role(name: str, *publish: str, subscribe: tuple[str, ...] = (), answers: bool = False) -> Role:
    """With what every process does: it looks which streams there are, and reads the log."""
    allowed = tuple(dict.fromkeys((f"{_API}STREAM.NAMES", *_reads(STREAM), *publish)))
    return Role(name, allowed, (f"{inbox(name)}>", *subscribe), answers)


ROLES = (
    _role(
        EDGE,
        _DM,
        _GROUP,
        f"{EPHEMERAL}>",
        *(f"{SERVICE}{each}.*" for each in ("directory", "files", "notify", "query", "relay")),
        outbox.submissions("*"),
        *_reads(outbox.SUBMITTED),
        *_reads_buckets(lease.BUCKET, machine.BUCKET, presence.BUCKET, sites.BUCKET),
        *_writes_buckets(lease.BUCKET, machine.BUCKET, presence.BUCKET),
        f"{_API}STREAM.PURGE.KV_{presence.BUCKET}",  # its janitor's: of edges that died
        subscribe=(
            *(f"{LIVE}{each}" for each in CHAT_SUBJECTS),
            f"{LIVE}{presence.BUCKET}.>",
            f"{LIVE}{lease.BUCKET}.*",
            f"{LIVE}{sites.BUCKET}.*",
            f"{LIVE}{outbox.submissions('*')}",
            f"{EPHEMERAL}>",
        ),
    ),
    _role(
        "directory",
        _GROUP,
        _USER,
        _how_far("persist"),
        *_makes_streams(),
        f"{_API}CONSUMER.CREATE.{STREAM}.persist",
        subscribe=(f"{SERVICE}directory.*",),
        answers=True,
    ),
    _role(
        "persist",
        *_consumes("persist"),
        *_makes_streams(),
        subscribe=(_pinged("persist"),),
        answers=True,
    ),
    _role(
        "query",
        _USER,
        f"{EPHEMERAL}>",
        _how_far("persist"),
        *_reads_buckets(pointers.BUCKET, pointers.DELIVERED),
        *_writes_buckets(pointers.BUCKET, pointers.DELIVERED),
        subscribe=(f"{SERVICE}query.*",),
        answers=True,
    ),
    _role(
        "index",
        *_consumes("index"),
        _how_far("persist"),
        subscribe=(_pinged("index"),),
        answers=True,
    ),
    _role(
        "notify",
        *_consumes("notify"),
        _how_far("persist"),
        *_reads_buckets(lease.BUCKET, pointers.BUCKET, pointers.DELIVERED, presence.BUCKET),
        subscribe=(
            f"{SERVICE}notify.*",
            f"{LIVE}{lease.BUCKET}.*",
            f"{LIVE}{presence.BUCKET}.*.{presence.LOST}.*",
        ),
        answers=True,
    ),
    _role(
        "files",
        service("relay", "file"),
        _how_far("persist"),
        *_reads(outbox.SUBMITTED),
        subscribe=(f"{SERVICE}files.*",),
        answers=True,
    ),
    _role(
        RELAY,
        _DM,
        _GROUP,
        _USER,
        f"{EPHEMERAL}>",
        outbox.told("*"),
        *(f"{SERVICE}{each}.*" for each in ("directory", "query")),
        service("files", "piece"),
        *_reads(outbox.STREAM, outbox.SUBMITTED),
        f"{_API}STREAM.PURGE.{outbox.STREAM}",
        f"{_API}STREAM.PURGE.{outbox.SUBMITTED}",
        f"{_API}STREAM.MSG.DELETE.{outbox.SUBMITTED}",
        *_reads_buckets(lease.BUCKET, links.BUCKET, presence.BUCKET, sites.BUCKET),
        *_writes_buckets(lease.BUCKET, links.BUCKET, presence.BUCKET),
        subscribe=(
            *(f"{LIVE}{each}" for each in CHAT_SUBJECTS),
            f"{LIVE}{presence.BUCKET}.>",
            f"{LIVE}{lease.BUCKET}.*",
            f"{LIVE}{sites.BUCKET}.*",
            *(f"{LIVE}{outbox.waiting('*', box)}" for box in outbox.BOXES),
            f"{EPHEMERAL}>",
            f"{SERVICE}relay.*",
        ),
        answers=True,
    ),
    # For a person at a terminal: `hikyaku dead`, `erase`, what looks and what restores.
    Role(OPERATOR, EVERYTHING, EVERYTHING),
)
"""All roles. The worker `archive` is none: it does not speak to NATS."""
