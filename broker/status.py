"""How a site is, as far as NATS knows: streams, buckets, consumers, edges, workers, dead letters.

All of it is asked of the JetStream API, so it needs no other port than that of NATS.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from . import alive, dead, lease, machine
from .api_error import ApiError, api_error
from .bus import Bus
from .config import BrokerConfig
from .consumer import lag
from .declared import declared
from .errors import Refused
from .log import NO_STREAM, Log
from .streams import API_TIMEOUT_S, Consumer

BUCKET = "KV_"
_NO_CONSUMER = 10014


class StreamStatus(Struct, kw_only=True):
    """A stream or bucket. Limits are bytes and seconds, 0 if there is none.

    `copies` are those that have all of it now, out of `replicas`; `leader` is empty without a
    cluster.
    """

    name: str
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    max_bytes: int = 0
    max_age_s: float = 0.0
    replicas: int = 0
    copies: int = 0
    leader: str = ""
    there: bool = True

    @property
    def bucket(self) -> bool:
        """Whether it is a key-value bucket."""
        return self.name.startswith(BUCKET)


class ConsumerStatus(Struct, kw_only=True):
    """A worker's place in the log: how many events it has not done, and how old the oldest is."""

    name: str
    pending: int = 0
    oldest_s: float = 0.0
    there: bool = True


class BrokerStatus(Struct, kw_only=True):
    """What NATS knows of a site. `dead_letters` are counted by worker."""

    address: str
    streams: list[StreamStatus]
    consumers: list[ConsumerStatus]
    edges: list[alive.Edge]
    workers: list[alive.Worker]
    machine_leases: int
    dead_letters: dict[str, int]


async def status(
    bus: Bus, config: BrokerConfig, consumers: Sequence[Consumer], workers: Sequence[str]
) -> BrokerStatus:
    """How the site is now. Raises `Unavailable` when NATS or JetStream does not answer."""
    streams = [await _stream(bus, each.name) for each in declared(config)]
    there = {each.name for each in streams if each.there}
    letters = await _subjects(bus, dead.NAME, "dead.*") if dead.NAME in there else {}
    leases, edges = 0, []
    if f"{BUCKET}{machine.BUCKET}" in there:
        held = await Log(bus, stream=f"{BUCKET}{machine.BUCKET}").last([f"$KV.{machine.BUCKET}.*"])
        leases = sum(bool(each.data) for each in held)
    if f"{BUCKET}{lease.BUCKET}" in there:
        edges = await alive.edges(bus)
    return BrokerStatus(
        address=bus.address,
        streams=streams,
        consumers=[await _consumer(bus, each) for each in consumers],
        edges=edges,
        workers=await alive.workers(bus, workers),
        machine_leases=leases,
        dead_letters={name.removeprefix("dead."): count for name, count in letters.items()},
    )


class _Peer(Struct):
    current: bool = False
    offline: bool = False


class _Cluster(Struct):
    leader: str = ""
    replicas: list[_Peer] | None = None


class _Config(Struct):
    max_bytes: int = -1
    max_age: int = 0
    num_replicas: int = 1


class _State(Struct):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class _Info(Struct):
    config: _Config = msgspec.field(default_factory=_Config)
    state: _State = msgspec.field(default_factory=_State)
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)
    error: ApiError | None = None


async def _info(bus: Bus, name: str, **request: Any) -> _Info:
    payload = msgspec.json.encode(request) if request else b""
    reply = await bus.request(f"$JS.API.STREAM.INFO.{name}", payload, timeout_s=API_TIMEOUT_S)
    info = msgspec.json.decode(reply.data, type=_Info)
    if info.error is not None:
        raise api_error(info.error)
    return info


async def _stream(bus: Bus, name: str) -> StreamStatus:
    try:
        info = await _info(bus, name)
    except Refused as refused:
        if refused.err_code != NO_STREAM:
            raise
        return StreamStatus(name=name, there=False)
    config, state, cluster = info.config, info.state, info.cluster
    others = cluster.replicas or []
    leading = config.num_replicas == 1 or bool(cluster.leader)
    return StreamStatus(
        name=name,
        messages=state.messages,
        bytes=state.bytes,
        first_seq=state.first_seq,
        last_seq=state.last_seq,
        max_bytes=max(0, config.max_bytes),
        max_age_s=config.max_age / 1e9,
        replicas=config.num_replicas,
        copies=leading + sum(each.current and not each.offline for each in others),
        leader=cluster.leader,
    )


async def _consumer(bus: Bus, consumer: Consumer) -> ConsumerStatus:
    try:
        found = await lag(bus, consumer)
    except Refused as refused:
        if refused.err_code not in (NO_STREAM, _NO_CONSUMER):
            raise
        return ConsumerStatus(name=consumer.name, there=False)
    return ConsumerStatus(name=consumer.name, pending=found.behind, oldest_s=found.oldest_s)


async def _subjects(bus: Bus, name: str, subject: str) -> dict[str, int]:
    return (await _info(bus, name, subjects_filter=subject)).state.subjects or {}
