"""The one configuration: what can be set, its defaults, and what each process is told of it.

A value comes from the environment (`HIKYAKU_<NAME>`), else from the TOML file that `HIKYAKU_CONFIG`
names, else from here. `deploy.settings_load` reads them, `deploy.settings_check` judges them
together, `hikyaku check` shows them. See `docs/operations.md`.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta

from broker.config import BrokerConfig
from broker.following import FollowConfig
from broker.roles import EDGE, OPERATOR
from edge.config import EdgeConfig, EdgeFilesConfig, TokenConfig
from edge.frames import Limits
from search.config import SearchConfig
from store.config import ArchiveConfig, StoreConfig
from workers.config import FilesConfig, WorkerConfig

from .settings_push import PushSettings, push_config

_EDGE = EdgeConfig()
_FOLLOW = FollowConfig()
_BROKER = BrokerConfig()
_STORE = StoreConfig()
_WORKER = WorkerConfig()
_ARCHIVE = ArchiveConfig()
_SEARCH = SearchConfig()
_FILES = FilesConfig()
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


class Settings(PushSettings, frozen=True, kw_only=True):
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
    machines: Annotated[
        str,
        Meta(
            pattern=r"^\d{1,4}-\d{1,4}$",
            description="First and last machine number in ids of messages; linked sites differ.",
        ),
    ] = "0-1023"
    link_listen: Annotated[
        str, Meta(description="Address and port where linked sites connect to; empty: nowhere.")
    ] = ""
    link_address: Annotated[
        str, Meta(description="What others connect to, host:port; empty: where NATS listens.")
    ] = ""
    link_parcels_per_s: Annotated[
        float,
        Meta(
            ge=1,
            le=1_000_000,
            description="Messages and changes taken from a linked site, on average.",
        ),
    ] = _WORKER.link_parcels_per_s
    link_outbox_bytes: Annotated[
        int, Meta(ge=1024**2, description="Room for what waits for linked sites.")
    ] = _BROKER.outbox_bytes
    links: Annotated[
        str,
        Meta(description="Folder that tells NATS of linked sites; empty: `links` in the home."),
    ] = ""
    edge_host: Annotated[
        str, Meta(min_length=1, description="Address that the edges listen on.")
    ] = _EDGE.host
    edge_port: Annotated[
        Port, Meta(description="Port of the first edge; each further edge takes the next one.")
    ] = _EDGE.port
    edges: Annotated[int, Meta(ge=1, le=64, description="How many edges `hikyaku up` starts.")] = 2
    without: Annotated[
        tuple[Literal["archive", "index", "notify"], ...],
        Meta(description="Workers that `hikyaku up` leaves out; index: no own search server."),
    ] = ()
    nats_url: Annotated[
        Names,
        Meta(
            description="URLs of NATS servers; empty starts an own server.",
            extra=SECRET,
        ),
    ] = ()
    nats_password: Annotated[
        str,
        Meta(description="Password at NATS; the user is the process's role.", extra=SECRET),
    ] = ""
    nats_ca: Annotated[
        str, Meta(description="PEM file: whose certificates NATS must have; empty: no TLS.")
    ] = ""
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
    mongo_password: Annotated[
        str,
        Meta(description="Password at MongoDB; the user is the process's role.", extra=SECRET),
    ] = ""
    mongo_ca: Annotated[
        str, Meta(description="PEM file: whose certificates MongoDB must have; empty: no TLS.")
    ] = ""
    mongo_port: Annotated[
        PortOrFree, Meta(description="Port of the own MongoDB; 0 takes a free one.")
    ] = 0
    search_url: Annotated[
        str, Meta(description="URL of a Meilisearch; empty starts an own small search server.")
    ] = ""
    search_key: Annotated[
        str,
        Meta(description="Master or admin key of the search server.", extra=SECRET),
    ] = ""
    search_port: Annotated[
        PortOrFree, Meta(description="Port of the own search server; 0 takes a free one.")
    ] = 0
    search_host: Annotated[
        str, Meta(min_length=1, description="Address that `hikyaku search serve` listens on.")
    ] = "127.0.0.1"
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
    search_index: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{1,64}$",
            description="How names of indexes begin; sites that share a search server differ.",
        ),
    ] = _SEARCH.index
    search_days: Annotated[
        float,
        Meta(ge=0.001, le=36500, description="Older messages are not found; at most `hot_days`."),
    ] = _SEARCH.days
    search_locales: Annotated[
        Names,
        Meta(description="Languages without spaces between words: ISO 639-3, as jpn."),
    ] = _SEARCH.locales
    file_bytes: Annotated[
        int, Meta(ge=1024, le=16 * 1024**3, description="Largest file that a user may upload.")
    ] = _LIMITS.file_bytes
    files_url: Annotated[
        str,
        Meta(
            description="Where files are, s3://bucket/prefix or file:///folder; empty: the home's."
        ),
    ] = _FILES.url
    files_spool: Annotated[
        str, Meta(description="Folder for uploads on their way, on a disk; empty: the home's.")
    ] = _FILES.spool
    files_host: Annotated[
        str, Meta(min_length=1, description="Address that the worker `files` listens on.")
    ] = _FILES.host
    files_port: Annotated[
        PortOrFree,
        Meta(description="Port of the worker `files`; `hikyaku up` takes a free one for 0."),
    ] = _FILES.port
    files_worker_url: Annotated[
        str,
        Meta(description="Where edges find the worker `files`; empty: at its address and port."),
    ] = ""
    files_quota_bytes: Annotated[
        int, Meta(ge=0, le=2**62, description="Bytes of files that a user may have; 0: any.")
    ] = _FILES.quota_bytes
    files_pixels: Annotated[
        int, Meta(ge=10_000, le=1_000_000_000, description="Most pixels of an image.")
    ] = _FILES.pixels
    files_orphan_s: Annotated[
        float, Meta(ge=1, le=1e8, description="A file that no message has is removed after this.")
    ] = _FILES.orphan_s
    files_upload_s: Annotated[
        float,
        Meta(ge=1, le=1e8, description="An upload that does not go on is removed after this."),
    ] = _FILES.upload_s
    files_sweep_s: Annotated[
        Seconds, Meta(description="Time between two searches for files to remove.")
    ] = _FILES.sweep_s
    clamd: Annotated[
        str,
        Meta(description="Virus scanner, tcp://host:port or unix:///socket of clamd; empty: none."),
    ] = _FILES.clamd
    internal_secret: Annotated[
        str,
        Meta(description="Secret of edges and workers, 32 bytes or more.", extra=SECRET),
    ] = _FILES.secret
    log_level: Annotated[
        LogLevel, Meta(description="Least severity of what is written to the logs.")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="Lines of the logs: text for people, or an object of JSON each."),
    ] = "text"
    log_messages: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of messages whose steps are logged, by their ids."),
    ] = _FOLLOW.log_messages
    traces: Annotated[
        Literal["off", "on"],
        Meta(description="Send spans of OpenTelemetry to where OTEL_* say; needs hikyaku[otel]."),
    ] = "off"
    worker_health_port: Annotated[
        PortOrFree,
        Meta(description="Metrics port of a worker; 0 means none, for `hikyaku up` a free one."),
    ] = _WORKER.health_port
    worker_health_host: Annotated[
        str, Meta(min_length=1, description="Address of that port; metrics are for anyone there.")
    ] = _WORKER.health_host

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
        broker=broker_config(settings, EDGE),
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
        files=EdgeFilesConfig(
            url=_files_worker_url(settings),
            secret=settings.internal_secret,
        ),
        follow=follow_config(settings),
    )


def worker_config(settings: Settings, role: str = OPERATOR) -> WorkerConfig:
    """What the worker of this name is told, or the operator's commands."""
    return WorkerConfig(
        site=settings.site,
        broker=broker_config(settings, role),
        store=StoreConfig(
            url=settings.mongo_url or _STORE.url,
            database=settings.mongo_database,
            role=role,
            password=settings.mongo_password,
            ca=settings.mongo_ca,
        ),
        archive=archive_config(settings),
        archive_interval_s=settings.archive_interval_s,
        search=search_config(settings),
        files=files_config(settings),
        group_members=settings.group_members,
        presence_lease_s=settings.presence_lease_s,
        pong_timeout_s=settings.pong_timeout_s,
        link_parcels_per_s=settings.link_parcels_per_s,
        push=push_config(settings),
        health_port=settings.worker_health_port,
        health_host=settings.worker_health_host,
        follow=follow_config(settings),
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


def search_config(settings: Settings) -> SearchConfig:
    """Where the search server is, and what is kept in it."""
    return SearchConfig(
        url=settings.search_url or _SEARCH.url,
        key=settings.search_key,
        index=settings.search_index,
        days=min(settings.search_days, settings.hot_days),
        locales=settings.search_locales,
    )


def files_config(settings: Settings) -> FilesConfig:
    """What the worker `files` is told."""
    home = settings.home_path
    return FilesConfig(
        host=settings.files_host,
        port=settings.files_port,
        secret=settings.internal_secret,
        url=settings.files_url or (home / "files").as_uri(),
        spool=settings.files_spool or str(home / "spool"),
        file_bytes=settings.file_bytes,
        quota_bytes=settings.files_quota_bytes,
        pixels=settings.files_pixels,
        orphan_s=settings.files_orphan_s,
        upload_s=settings.files_upload_s,
        sweep_s=settings.files_sweep_s,
        clamd=settings.clamd,
    )


def _files_worker_url(settings: Settings) -> str:
    if settings.files_worker_url or not settings.files_port:
        return settings.files_worker_url.rstrip("/")
    host = _WILDCARDS.get(settings.files_host, settings.files_host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.files_port}"


def reachable_host(settings: Settings) -> str:
    """Where a client of this machine finds the edges."""
    return _WILDCARDS.get(settings.edge_host, settings.edge_host)


def edge_url(settings: Settings, number: int) -> str:
    """What a client of this machine connects to for edge `number`."""
    return f"ws://{_edge_address(settings, number)}/ws/chat"


def web_url(settings: Settings, number: int) -> str:
    """What a browser of this machine opens for the web client of edge `number`."""
    return f"http://{_edge_address(settings, number)}/"


def _edge_address(settings: Settings, number: int) -> str:
    host = reachable_host(settings)
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{settings.edge_port + number - 1}"


def follow_config(settings: Settings) -> FollowConfig:
    """Which messages are followed."""
    return FollowConfig(log_messages=settings.log_messages, traces=settings.traces == "on")


def broker_config(settings: Settings, role: str) -> BrokerConfig:
    """Where NATS is, who this process is there, and how the log is kept."""
    return BrokerConfig(
        urls=settings.nats_url or _BROKER.urls,
        role=role,
        password=settings.nats_password,
        ca=settings.nats_ca,
        replicas=settings.replicas,
        max_bytes=settings.stream_max_bytes,
        max_age_s=settings.stream_max_age_s,
        outbox_bytes=settings.link_outbox_bytes,
        machines=machines(settings),
    )


def links_folder(settings: Settings) -> Path:
    """Where NATS is told of linked sites."""
    return Path(settings.links) if settings.links else settings.home_path / "links"


def machines(settings: Settings) -> tuple[int, int]:
    """The first and the last machine number of this site."""
    first, last = map(int, settings.machines.split("-"))
    return first, last
