"""Streams, buckets and consumers, declared as data, and `ensure`, which makes the server match.

`ensure` is idempotent and safe to run from every process at start: it creates what is missing and
updates what differs. What it never changes is where the log begins, and its epoch, a random name
given at creation that tells clients whether their cursor belongs to this log.

Each stream carries in its metadata the layout that it has (`LAYOUT`, raised with every change of
what is declared) and the least layout that a version must know to use it (`LEAST`, raised with a
change that older versions cannot live with). An older stream is updated. A newer one is left as it
is, so that during an upgrade two versions do not undo each other's work, or refused.
"""

import os
from typing import Any

import msgspec
from msgspec import Struct

from .api_error import ApiError, api_error
from .bus import Bus
from .config import BrokerConfig
from .errors import HalfMade, NewerLayout, Refused
from .log import BEGINS, NO_STREAM, STREAM
from .subjects import CHAT_SUBJECTS, LIVE

API_TIMEOUT_S = 10.0
NANOSECOND = 1_000_000_000
DUPLICATE_WINDOW_S = 120
MAX_EVENT_BYTES = 256 * 1024
MAX_CONSUMERS = 64

LAYOUT = 1
LEAST = 1

_NAME_IN_USE = 10058


class Stream(Struct, frozen=True):
    """A stream: its name and JetStream configuration."""

    name: str
    config: dict[str, Any]


class Consumer(Struct, frozen=True):
    """A durable pull consumer: its stream, name and JetStream configuration."""

    stream: str
    name: str
    config: dict[str, Any]


def chat_stream(config: BrokerConfig) -> Stream:
    """The log. When it is full it refuses (`discard: new`); it never drops what is stored.

    Where it begins is not said here: see `broker.making`.
    """
    return Stream(
        STREAM,
        {
            "subjects": list(CHAT_SUBJECTS),
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_age": int(config.max_age_s * NANOSECOND),
            "max_bytes": config.max_bytes,
            "max_msg_size": MAX_EVENT_BYTES,
            "max_consumers": MAX_CONSUMERS,
            "num_replicas": config.replicas,
            "duplicate_window": DUPLICATE_WINDOW_S * NANOSECOND,
            "allow_direct": True,
            "allow_atomic": True,
            "republish": {"src": ">", "dest": f"{LIVE}>"},
            "metadata": {"epoch": new_epoch()},
        },
    )


def new_epoch() -> str:
    """A name for a log that no other one has."""
    return os.urandom(6).hex()


def layout_of(metadata: dict[str, str]) -> tuple[int, int]:
    """The layout of a stream and the least that must be known to use it; 0: from before layouts."""
    return int(metadata.get("layout", "0")), int(metadata.get("layout_least", "0"))


def bucket(name: str, config: BrokerConfig) -> Stream:
    """A key-value bucket (ADR-8) with history 1, direct reads and TTLs by key."""
    return Stream(
        f"KV_{name}",
        {
            "subjects": [f"$KV.{name}.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_msgs_per_subject": 1,
            "num_replicas": config.replicas,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        },
    )


def followed_bucket(name: str, config: BrokerConfig, *, expiries: bool = False) -> Stream:
    """A bucket whose every change, with `expiries` those too, is told on `live.<name>.<key>`."""
    plain = bucket(name, config)
    followed = {"republish": {"src": f"$KV.{name}.>", "dest": f"{LIVE}{name}.>"}}
    markers = {"subject_delete_marker_ttl": NANOSECOND} if expiries else {}
    return Stream(plain.name, {**plain.config, **followed, **markers})


async def ensure(bus: Bus, streams: list[Stream], consumers: list[Consumer] | None = None) -> None:
    """Create what is missing and update what differs.

    Raises `Unavailable` when JetStream does not answer, `Refused` when a change is not possible,
    `NewerLayout` when a stream belongs to a later version, `HalfMade` while a log is being made.
    """
    for stream in streams:
        await _ensure_stream(bus, stream)
    for consumer in consumers or []:
        wanted = {"ack_policy": "explicit", **consumer.config, "durable_name": consumer.name}
        await call(
            bus,
            f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}",
            {"stream_name": consumer.stream, "config": wanted, "action": ""},
        )


async def create(bus: Bus, stream: Stream) -> bool:
    """Create a stream if it is not there; whether it was created. Raises as `ensure` does."""
    config = {"name": stream.name, **stream.config, "metadata": _metadata(stream, {})}
    try:
        await call(bus, f"STREAM.CREATE.{stream.name}", config)
        return True
    except Refused as refused:
        if refused.err_code != _NAME_IN_USE:
            raise
        return False


async def update(bus: Bus, stream: Stream) -> bool:
    """Update a stream if it is there; whether it is. Raises as `ensure` does."""
    try:
        await _update_stream(bus, stream)
        return True
    except Refused as refused:
        if refused.err_code != NO_STREAM:
            raise
        return False


async def finish(bus: Bus, stream: Stream, metadata: dict[str, str]) -> None:
    """Give a stream its whole configuration, and this metadata instead of what it has.

    Raises as `ensure` does.
    """
    present = (await call(bus, f"STREAM.INFO.{stream.name}"))["config"]
    wanted = {"name": stream.name, **stream.config, "metadata": _metadata(stream, metadata)}
    await call(bus, f"STREAM.UPDATE.{stream.name}", {**present, **wanted})


async def purge(bus: Bus, stream: str, subject: str, *, before: int) -> None:
    """Remove what a stream has on a subject before a sequence. Raises as `ensure` does."""
    await call(bus, f"STREAM.PURGE.{stream}", {"filter": subject, "seq": before})


async def delete(bus: Bus, stream: str, seq: int) -> None:
    """Remove one message. Raises as `ensure` does; `Refused` if it is not there."""
    await call(bus, f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})


async def names(bus: Bus) -> set[str]:
    """The streams that there are. Raises `Unavailable` when JetStream does not answer."""
    found: set[str] = set()
    while True:
        answer = await call(bus, "STREAM.NAMES", {"offset": len(found)})
        page = answer.get("streams") or []
        found.update(page)
        if not page or len(found) >= answer["total"]:
            return found


async def _ensure_stream(bus: Bus, stream: Stream) -> None:
    if not await create(bus, stream):
        await _update_stream(bus, stream)


async def _update_stream(bus: Bus, stream: Stream) -> None:
    present = (await call(bus, f"STREAM.INFO.{stream.name}"))["config"]
    layout = _usable(stream.name, present)
    if layout > LAYOUT:
        return
    has: dict[str, str] = present.get("metadata") or {}
    wanted = {"name": stream.name, **stream.config, "metadata": _metadata(stream, has)}
    if any(present.get(key) != value for key, value in wanted.items()):
        await call(bus, f"STREAM.UPDATE.{stream.name}", {**present, **wanted})


async def check_usable(bus: Bus, stream: str) -> None:
    """For those who make no streams.

    Raises `NewerLayout`, `HalfMade`, and `Refused` while it is restored.
    """
    _usable(stream, (await call(bus, f"STREAM.INFO.{stream}"))["config"])


def _usable(name: str, present: dict[str, Any]) -> int:
    """The layout of a stream that this version can use."""
    layout, least = layout_of(present.get("metadata") or {})
    if least > LAYOUT:
        raise NewerLayout(name, layout, least, LAYOUT)
    if BEGINS in (present.get("metadata") or {}):
        raise HalfMade
    if "mirror" in present:
        raise Refused(
            0,
            f"{name} is being restored from a backup; if no `hikyaku restore` runs any more,"
            " empty NATS and MongoDB and begin again",
        )
    return layout


def _metadata(stream: Stream, present: dict[str, str]) -> dict[str, str]:
    """What is there stays, as the epoch; the layout is ours."""
    ours = {"layout": str(LAYOUT), "layout_least": str(LEAST)}
    return {**stream.config.get("metadata", {}), **present, **ours}


async def call(bus: Bus, verb: str, request: Any = None) -> dict[str, Any]:
    """Ask the JetStream API. Raises `Refused`, `Unavailable` or `Overloaded`."""
    payload = b"" if request is None else msgspec.json.encode(request)
    reply = await bus.request(f"$JS.API.{verb}", payload, timeout_s=API_TIMEOUT_S)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    if "error" in answer:
        raise api_error(msgspec.convert(answer["error"], ApiError))
    return answer
