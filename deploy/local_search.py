"""The own search server: a small one that speaks a part of Meilisearch's API."""

from collections.abc import Mapping

from search.embedded.config import SearchServerConfig

from .home import search_key
from .probes import http_ok
from .service import Service
from .settings import Settings

NAME = "search"
HOST = "127.0.0.1"
PORT = 7700
"""Of `hikyaku search serve` by itself; Meilisearch's own."""


def service(hikyaku: tuple[str, ...], *, port: int, env: Mapping[str, str]) -> Service:
    """Declare the service; `env` says where its data is and which key it has."""

    async def probe() -> None:
        await http_ok(HOST, port, "/health")

    return Service(
        name=NAME,
        command=(*hikyaku, "search", "serve"),
        probe=probe,
        env=env,
        address=url(port),
        ready_s=120.0,
        stop_s=2.5,
    )


def url(port: int) -> str:
    """What a client of this server is told."""
    return f"http://{HOST}:{port}"


def config(settings: Settings) -> SearchServerConfig:
    """What `hikyaku search serve` is told."""
    return SearchServerConfig(
        folder=settings.home_path / "search",
        host=settings.search_host,
        port=settings.search_port or PORT,
        master_key=settings.search_key or search_key(settings.home_path),
    )
