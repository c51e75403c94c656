"""The one configuration: what can be set, its defaults, and what each process is told of it.

A value comes from the environment (`HIKYAKU_<NAME>`), else from the TOML file that `HIKYAKU_CONFIG`
names, else from here. `deploy.settings_load` reads them, `deploy.settings_check` judges them
together, `hikyaku check` shows them. See `docs/operations.md`.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta, Struct

from broker.config import BrokerConfig
from edge.config import EdgeConfig, TokenConfig
from edge.frames import Limits
from store.config import ArchiveConfig, StoreConfig
from workers.config import WorkerConfig

_EDGE = EdgeConfig()
_BROKER = BrokerConfig()
_STORE = StoreConfig()
_WORKER = WorkerConfig()
_ARCHIVE = ArchiveConfig()
_DAY_S = 86_400
_LIMITS = Limits()
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_AUTO: Literal["auto"] = "auto"

SECRET = {"secret": True}
"""Marks a setting that is never shown."""

Names = tuple[str, ...]
Replicas = Literal[1, 3]
LogLevel = Literal["debug", "info", "warning", "error"]
Port = Annotated[int, Meta(ge=1, le=65535)]
PortOrFree = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0.1, le=86400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. Durations are seconds, sizes bytes."""

    home: Annotated[
        str, Meta(min_length=1, description="Folder of the local stack: data, logs, secret.")
    ] = ".hikyaku"
    mode: Annotated[
        Literal["development", "production"],
        Meta(description="Development makes tokens for anyone; production needs real keys."),
    ] = _EDGE.mode
    site: Annotated[
        str,
        Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="Name of this site in the federation."),
    ] = _EDGE.site
    edge_host: Annotated[
        str, Meta(min_length=1, description="Address that the edges listen on.")
    ] = _EDGE.host
    edge_port: Annotated[
        Port, Meta(description="Port of the first edge; each further edge takes the next one.")
    ] = _EDGE.port
    edges: Annotated[int, Meta(ge=1, le=64, description="How many edges `hikyaku up` starts.")] = 2
    nats_url: Annotated[
        Names,
        Meta(
            description="URLs of NATS servers; empty starts an own server.",
            extra=SECRET,
        ),
    ] = ()
    nats_port: Annotated[
        PortOrFree, Meta(description="Port of the own NATS server; 0 takes a free one.")
    ] = 0
    nats_monitor_port: Annotated[
        PortOrFree, Meta(description="Monitoring port of the own NATS server; 0 takes a free one.")
    ] = 0
    mongo_url: Annotated[
        str,
        Meta(description="URL of a MongoDB replica set; empty starts an own server.", extra=SECRET),
    ] = ""
    mongo_port: Annotated[
        PortOrFree, Meta(description="Port of the own MongoDB; 0 takes a free one.")
    ] = 0
    mongo_database: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_-]{1,38}$", description="Name of the database in MongoDB.")
    ] = _STORE.database
    jwt_secret: Annotated[
        str,
        Meta(description="Shared secret of HS256 tokens, 32 bytes or more.", extra=SECRET),
    ] = ""
    jwt_public_key: Annotated[
        str, Meta(description="PEM file with the public key of RS256, ES256 or EdDSA tokens.")
    ] = ""
    jwt_jwks: Annotated[str, Meta(description="File or https URL of a JSON Web Key Set.")] = ""
    jwt_audience: Annotated[str, Meta(description="`aud` that every token must have.")] = ""
    jwt_issuer: Annotated[str, Meta(description="`iss` that every token must have.")] = ""
    origins: Annotated[
        Names, Meta(description="Web origins that may connect; empty allows the same host.")
    ] = _EDGE.origins
    url_token: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="Accept `?token=` in the URL; auto means in development only."),
    ] = _AUTO
    frame_bytes: Annotated[
        int, Meta(ge=1024, le=192 * 1024, description="Largest frame of a client.")
    ] = _LIMITS.frame_bytes
    content_bytes: Annotated[
        int, Meta(ge=1, le=192 * 1024, description="Largest content of a message.")
    ] = _LIMITS.content_bytes
    group_members: Annotated[
        int, Meta(ge=2, le=10_000, description="Most members of a group; channels have no limit.")
    ] = _LIMITS.group_members
    messages_per_s: Annotated[
        float, Meta(ge=0.01, le=1e6, description="Messages that a user may send in a second.")
    ] = _LIMITS.messages_per_s
    messages_burst: Annotated[
        Count, Meta(description="Messages that a user may send at once after a rest.")
    ] = _LIMITS.messages_burst
    typing_interval_s: Annotated[
        float, Meta(ge=0, le=3600, description="Least time between two `typing` in one chat.")
    ] = _LIMITS.typing_interval_s
    connections_per_user: Annotated[
        Count, Meta(description="Connections that a user may hold at once.")
    ] = _LIMITS.connections_per_user
    history_page: Annotated[
        int, Meta(ge=1, le=1000, description="Most messages in one answer of `history`.")
    ] = _LIMITS.history_page
    ping_interval_s: Annotated[Seconds, Meta(description="Time between two pings to a client.")] = (
        _EDGE.ping_interval_s
    )
    pong_timeout_s: Annotated[
        Seconds, Meta(description="A client silent for this long is cut.")
    ] = _EDGE.pong_timeout_s
    first_frame_s: Annotated[
        Seconds, Meta(description="Time that a new client has for its `connect` frame.")
    ] = _EDGE.first_frame_s
    outbox_bytes: Annotated[
        int, Meta(ge=64 * 1024, le=1024**3, description="Unsent bytes at which a client is cut.")
    ] = _EDGE.outbox_bytes
    request_timeout_s: Annotated[
        Seconds, Meta(description="Time that an edge waits for a worker's answer.")
    ] = _EDGE.request_timeout_s
    drain_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="Time over which a stopping edge sends clients away."),
    ] = _EDGE.drain_s
    presence_lease_s: Annotated[
        int, Meta(ge=2, le=3600, description="Users of an edge that died are offline after this.")
    ] = _EDGE.presence_lease_s
    replicas: Annotated[
        Replicas, Meta(description="Copies of the log: 1, or 3 in a cluster of NATS servers.")
    ] = cast(Replicas, _BROKER.replicas)
    stream_max_bytes: Annotated[
        int, Meta(ge=1024**2, le=2**62, description="Size at which the full log refuses messages.")
    ] = _BROKER.max_bytes
    stream_max_age_s: Annotated[
        float,
        Meta(ge=120, le=1e9, description="How long a client may be away and still be resumed."),
    ] = _BROKER.max_age_s
    hot_days: Annotated[
        float, Meta(ge=0.001, le=36500, description="Messages older than this are archived.")
    ] = _ARCHIVE.hot_days
    retention_days: Annotated[
        float,
        Meta(ge=0, le=36500, description="Messages older than this are removed; 0 keeps them."),
    ] = _ARCHIVE.retention_days
    objects_url: Annotated[
        str,
        Meta(description="Object store, s3://bucket/prefix or file:///folder; empty: the home's."),
    ] = _ARCHIVE.url
    archive_interval_s: Annotated[
        float, Meta(ge=1, le=1e7, description="Time between two runs of the archive.")
    ] = _WORKER.archive_interval_s
    archive_buckets: Annotated[
        int, Meta(ge=1, le=9999, description="Groups of chats with archive files of their own.")
    ] = _ARCHIVE.buckets
    log_level: Annotated[
        LogLevel, Meta(description="Least severity of what is written to the logs.")
    ] = cast(LogLevel, _EDGE.log_level)
    worker_health_port: Annotated[
        PortOrFree,
        Meta(description="Metrics port of a worker; 0 means none, for `hikyaku up` a free one."),
    ] = _WORKER.health_port

    @property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return Path(os.path.expanduser(self.home)).absolute()


def edge_config(settings: Settings, number: int) -> EdgeConfig:
    """What edge `number` (the first is 1) is told."""
    return EdgeConfig(
        name=f"edge-{number}",
        site=settings.site,
        mode=settings.mode,
        host=settings.edge_host,
        port=settings.edge_port + number - 1,
        broker=broker_config(settings),
        tokens=TokenConfig(
            secret=settings.jwt_secret or None,
            public_key=settings.jwt_public_key or None,
            jwks=settings.jwt_jwks or None,
            audience=settings.jwt_audience or None,
            issuer=settings.jwt_issuer or None,
        ),
        limits=Limits(**{name: getattr(settings, name) for name in Limits.__struct_fields__}),
        origins=settings.origins,
        url_token={"on": True, "off": False}.get(
            settings.url_token, settings.mode == "development"
        ),
        ping_interval_s=settings.ping_interval_s,
        pong_timeout_s=settings.pong_timeout_s,
        first_frame_s=settings.first_frame_s,
        outbox_bytes=settings.outbox_bytes,
        request_timeout_s=settings.request_timeout_s,
        drain_s=settings.drain_s,
        presence_lease_s=settings.presence_lease_s,
        log_level=settings.log_level,
    )


def worker_config(settings: Settings) -> WorkerConfig:
    """What every worker is told."""
    return WorkerConfig(
        site=settings.site,
        broker=broker_config(settings),
        store=StoreConfig(
            url=settings.mongo_url or _STORE.url,
            database=settings.mongo_database,
        ),
        archive=archive_config(settings),
        archive_interval_s=settings.archive_interval_s,
        group_members=settings.group_members,
        health_port=settings.worker_health_port,
        log_level=settings.log_level,
    )


def archive_config(settings: Settings) -> ArchiveConfig:
    """Where old messages go, and when."""
    return ArchiveConfig(
        url=settings.objects_url or (settings.home_path / "objects").as_uri(),
        hot_days=settings.hot_days,
        retention_days=settings.retention_days,
        log_days=settings.stream_max_age_s / _DAY_S,
        buckets=settings.archive_buckets,
    )


def reachable_host(settings: Settings) -> str:
    """Where a client of this machine finds the edges."""
    return _WILDCARDS.get(settings.edge_host, settings.edge_host)


def edge_url(settings: Settings, number: int) -> str:
    """What a client of this machine connects to for edge `number`."""
    host = reachable_host(settings)
    host = f"[{host}]" if ":" in host else host
    return f"ws://{host}:{settings.edge_port + number - 1}/ws/chat"


def broker_config(settings: Settings) -> BrokerConfig:
    """Where NATS is and how the log is kept."""
    return BrokerConfig(
        urls=settings.nats_url or _BROKER.urls,
        replicas=settings.replicas,
        max_bytes=settings.stream_max_bytes,
        max_age_s=settings.stream_max_age_s,
    )
