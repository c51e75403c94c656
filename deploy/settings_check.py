"""What settings must satisfy together: plain functions from settings to sentences."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Set
from importlib.util import find_spec
from urllib.parse import urlsplit

from broker.snowflake import MACHINES

from .settings import Settings, machines
from .settings_push_check import PUSH_NAMES, push_problems

MIN_SECRET_BYTES = 32
MAX_PORT = 65535
EXPORTER = "opentelemetry.exporter.otlp.proto.http"

Problem = tuple[str, str]
"""The setting that is wrong, and a sentence."""

_Check = Callable[[Settings], Iterator[Problem]]


def problems_of(settings: Settings, *, wrong: Set[str] = frozenset()) -> list[Problem]:
    """Everything that does not fit together, with the name of the setting.

    Checks that read a setting in `wrong` (already reported, replaced by its default) are left out.
    """
    return [
        problem
        for needs, check in _CHECKS
        if wrong.isdisjoint(needs)
        for problem in check(settings)
    ]


def _keys(settings: Settings) -> Iterator[Problem]:
    secret, key, jwks = settings.jwt_secret, settings.jwt_public_key, settings.jwt_jwks
    production = settings.mode == "production"
    if production and not (secret or key or jwks):
        others = "HIKYAKU_JWT_PUBLIC_KEY or HIKYAKU_JWT_JWKS"
        yield "jwt_secret", f"production needs a key for tokens: set this, {others}"
    if secret and len(secret.encode("utf-8", "surrogateescape")) < MIN_SECRET_BYTES:
        least = f"the least that HS256 allows is {MIN_SECRET_BYTES}"
        yield "jwt_secret", f"it is too short: {least} bytes (`openssl rand -hex 32` makes one)"
    if key and not os.path.isfile(key):
        yield "jwt_public_key", f"there is no file {key!r}; expected the path of a PEM file"
    if "://" not in jwks:
        if jwks and not os.path.isfile(jwks):
            yield "jwt_jwks", f"there is no file {jwks!r}"
    elif not jwks.startswith("https://") and (production or not jwks.startswith("http://")):
        yield "jwt_jwks", f"{jwks!r} does not fit: expected a file or an https URL"


def _internal_secret(settings: Settings) -> Iterator[Problem]:
    secret = settings.internal_secret
    if settings.mode == "production" and not secret:
        yield "internal_secret", "production needs it: `openssl rand -hex 32` makes one"
    if secret and len(secret.encode("utf-8", "surrogateescape")) < MIN_SECRET_BYTES:
        yield "internal_secret", f"it is too short: the least is {MIN_SECRET_BYTES} bytes"


def _machines(settings: Settings) -> Iterator[Problem]:
    first, last = machines(settings)
    if not first <= last < MACHINES:
        yield "machines", f"{settings.machines!r} is no range within 0-{MACHINES - 1}"


def _ports(settings: Settings) -> Iterator[Problem]:
    first, last = settings.edge_port, settings.edge_port + settings.edges - 1
    if last > MAX_PORT:
        edges = f"{settings.edges} edges from port {first} on"
        yield "edge_port", f"{edges} would need port {last}; the highest is {MAX_PORT}"
    own: list[str] = ["worker_health_port", "files_port"]
    if not settings.nats_url:
        own += ["nats_port", "nats_monitor_port"]
    if not settings.mongo_url:
        own += ["mongo_port"]
    if not settings.search_url:
        own += ["search_port"]
    seen: dict[int, str] = {}
    for name in own:
        port = getattr(settings, name)
        if not port:
            continue
        if first <= port <= last:
            yield name, f"{port} is already the port of edge {port - first + 1}"
        elif port in seen:
            yield name, f"{port} is already HIKYAKU_{seen[port].upper()}"
        seen[port] = name


def _sizes(settings: Settings) -> Iterator[Problem]:
    frame = f"HIKYAKU_FRAME_BYTES={settings.frame_bytes}"
    if settings.content_bytes > settings.frame_bytes:
        yield "content_bytes", f"{settings.content_bytes} does not fit into a frame of {frame}"
    if settings.outbox_bytes < 2 * settings.frame_bytes:
        yield "outbox_bytes", f"{settings.outbox_bytes} is less than two frames of {frame}"


def _times(settings: Settings) -> Iterator[Problem]:
    if settings.pong_timeout_s <= settings.ping_interval_s:
        interval = f"HIKYAKU_PING_INTERVAL_S={settings.ping_interval_s:g}"
        yield "pong_timeout_s", f"{settings.pong_timeout_s:g} must be more than {interval}"


def _replicas(settings: Settings) -> Iterator[Problem]:
    if settings.replicas > 1 and not settings.nats_url:
        why = "the own NATS is one server; set HIKYAKU_NATS_URL to a cluster's, or this to 1"
        yield "replicas", f"{settings.replicas} copies need three servers: {why}"


def _archive(settings: Settings) -> Iterator[Problem]:
    if settings.hot_days * 86_400 <= settings.stream_max_age_s:
        log = f"HIKYAKU_STREAM_MAX_AGE_S={settings.stream_max_age_s:g}"
        yield "hot_days", f"{settings.hot_days:g} days must be more than the log has, {log}"


def _objects(settings: Settings) -> Iterator[Problem]:
    for name in ("objects_url", "files_url"):
        url = getattr(settings, name)
        local = url.startswith("file:///") and len(url) > len("file:///")
        if url and not local and not _is_url(url, ("s3",)):
            expected = "expected s3://bucket/prefix or file:///folder"
            yield name, f"{masked(url)!r} does not fit: {expected}"
    if settings.files_url and settings.files_url == settings.objects_url:
        yield "files_url", "it is HIKYAKU_OBJECTS_URL; files need a place of their own"


def _files(settings: Settings) -> Iterator[Problem]:
    url, clamd = settings.files_worker_url, settings.clamd
    if url and not _is_url(url, ("http", "https")):
        yield "files_worker_url", f"{masked(url)!r} does not fit: expected http://host:port"
    local = clamd.startswith("unix:///") and len(clamd) > len("unix:///")
    if clamd and not local and not _is_url(clamd, ("tcp",)):
        yield "clamd", f"{clamd!r} does not fit: expected tcp://host:port or unix:///socket"
    if 0 < settings.files_quota_bytes < settings.file_bytes:
        file = f"HIKYAKU_FILE_BYTES={settings.file_bytes}"
        yield "files_quota_bytes", f"{settings.files_quota_bytes} is less than one file, {file}"


def _urls(settings: Settings) -> Iterator[Problem]:
    for url in settings.nats_url:
        if not _is_url(url, ("nats", "tls")):
            yield "nats_url", f"{masked(url)!r} does not fit: expected nats://host:port or tls://…"
    if settings.mongo_url and not settings.mongo_url.startswith(("mongodb://", "mongodb+srv://")):
        yield (
            "mongo_url",
            "its value does not fit: expected mongodb://host:port/ or mongodb+srv://…",
        )


def _authorities(settings: Settings) -> Iterator[Problem]:
    for name in ("nats_ca", "mongo_ca"):
        path = getattr(settings, name)
        if path and not os.path.isfile(path):
            yield name, f"there is no file {path!r}; `hikyaku init --add` makes it for compose.yaml"


def _search(settings: Settings) -> Iterator[Problem]:
    url = settings.search_url
    if url and not _is_url(url, ("http", "https")):
        yield "search_url", f"{masked(url)!r} does not fit: expected http://host:port or https://…"
    if url and not settings.search_key and settings.mode == "production":
        yield "search_key", "production needs the key of the search server: set this"


def _locales(settings: Settings) -> Iterator[Problem]:
    for locale in settings.search_locales:
        if not re.fullmatch("[a-z]{3}", locale):
            yield "search_locales", f"{locale!r} is no language code of ISO 639-3, as jpn"


def _origins(settings: Settings) -> Iterator[Problem]:
    for origin in settings.origins:
        if not _is_url(origin, ("http", "https")) or origin.count("/") != 2:
            yield "origins", f"{origin!r} does not fit: expected https://host or https://host:port"


def _traces(settings: Settings) -> Iterator[Problem]:
    if settings.traces == "on" and not _installed(EXPORTER):
        yield "traces", "the packages for it are missing: pip install 'hikyaku[otel]'"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def masked(url: str) -> str:
    """The URL without user, password and query."""
    return re.sub(r"\?.*", "?…", re.sub(r"^(\w+://)?.*@", r"\1…@", url, flags=re.DOTALL))


def _is_url(url: str, schemes: Iterable[str]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_CHECKS: tuple[tuple[Set[str], _Check], ...] = (
    ({"mode", "jwt_secret", "jwt_public_key", "jwt_jwks"}, _keys),
    ({"edge_port", "edges"}, _ports),
    ({"frame_bytes", "content_bytes", "outbox_bytes"}, _sizes),
    ({"ping_interval_s", "pong_timeout_s"}, _times),
    ({"replicas", "nats_url"}, _replicas),
    ({"nats_url", "mongo_url"}, _urls),
    ({"nats_ca", "mongo_ca"}, _authorities),
    ({"search_url", "search_key", "mode"}, _search),
    ({"search_locales"}, _locales),
    ({"origins"}, _origins),
    ({"hot_days", "stream_max_age_s"}, _archive),
    (PUSH_NAMES, push_problems),
    ({"objects_url", "files_url"}, _objects),
    ({"mode", "internal_secret"}, _internal_secret),
    ({"traces"}, _traces),
    ({"files_worker_url", "clamd", "files_quota_bytes", "file_bytes"}, _files),
)
