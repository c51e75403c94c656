"""Streams, buckets and consumers, declared as data, and `ensure`, which makes the server match.

`ensure` is idempotent and safe to run from every process at start: it creates what is missing and
updates what differs. What it never changes is the log's epoch, a random name given at creation
that tells clients whether their cursor belongs to this log.
"""

import os
from typing import Any

import msgspec
from msgspec import Struct

from .bus import Bus
from .config import BrokerConfig
from .errors import Refused
from .log import STREAM, ApiError, api_error
from .subjects import CHAT_SUBJECTS, LIVE

API_TIMEOUT_S = 10.0
NANOSECOND = 1_000_000_000
DUPLICATE_WINDOW_S = 120
MAX_EVENT_BYTES = 256 * 1024
MAX_CONSUMERS = 64

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
    """The log. When it is full it refuses (`discard: new`); it never drops what is stored."""
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
            "metadata": {"epoch": os.urandom(6).hex()},
        },
    )


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
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        },
    )


def followed_bucket(name: str, config: BrokerConfig, *, expiries: bool = False) -> Stream:
    """A bucket whose every change, with `expiries` those too, is told on `live.<name>.<key>`."""
    plain = bucket(name, config)
    followed = {
        "allow_atomic": True,
        "republish": {"src": f"$KV.{name}.>", "dest": f"{LIVE}{name}.>"},
    }
    markers = {"subject_delete_marker_ttl": NANOSECOND} if expiries else {}
    return Stream(plain.name, {**plain.config, **followed, **markers})


async def ensure(bus: Bus, streams: list[Stream], consumers: list[Consumer] | None = None) -> None:
    """Create what is missing and update what differs.

    Raises `Unavailable` when JetStream does not answer, `Refused` when a change is not possible.
    """
    for stream in streams:
        await _ensure_stream(bus, stream)
    for consumer in consumers or []:
        wanted = {"ack_policy": "explicit", **consumer.config, "durable_name": consumer.name}
        await _call(
            bus,
            f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}",
            {"stream_name": consumer.stream, "config": wanted, "action": ""},
        )


async def _ensure_stream(bus: Bus, stream: Stream) -> None:
    wanted = {"name": stream.name, **stream.config}
    try:
        await _call(bus, f"STREAM.CREATE.{stream.name}", wanted)
        return
    except Refused as refused:
        if refused.err_code != _NAME_IN_USE:
            raise
    present = (await _call(bus, f"STREAM.INFO.{stream.name}", None))["config"]
    if "metadata" in wanted:
        wanted["metadata"] = present.get("metadata", {})
    if any(present.get(key) != value for key, value in wanted.items()):
        await _call(bus, f"STREAM.UPDATE.{stream.name}", {**present, **wanted})


async def _call(bus: Bus, verb: str, request: Any) -> dict[str, Any]:
    payload = b"" if request is None else msgspec.json.encode(request)
    reply = await bus.request(f"$JS.API.{verb}", payload, timeout_s=API_TIMEOUT_S)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    if "error" in answer:
        raise api_error(msgspec.convert(answer["error"], ApiError))
    return answer
