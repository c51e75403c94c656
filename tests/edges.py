"""Edges with settings of their own, beside those of a site."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .ports import free_port
from .servers import SECRET, Hikyaku, Site

TROUBLE = ("Traceback", " ERROR ", " CRITICAL ")


def new_edge(site: Site, folder: Path, **settings: str) -> Hikyaku:
    """An edge of the site, not started; `settings` are `HIKYAKU_<NAME>` without the prefix."""
    port = free_port([each.port for each in site.edges])
    env = {
        "HOME": str(folder / "home"),
        "NATS_URL": site.nats.url,
        "MONGO_URL": site.mongo.url,
        "JWT_SECRET": SECRET,
        "EDGE_PORT": str(port),
        **{name.upper(): value for name, value in settings.items()},
    }
    named = {f"HIKYAKU_{name}": value for name, value in env.items()}
    return Hikyaku(folder, ["edge"], named, port)


@asynccontextmanager
async def extra_edge(site: Site, folder: Path, **settings: str) -> AsyncIterator[Hikyaku]:
    """A running edge of the site; afterwards its log must show no trouble."""
    edge = new_edge(site, folder, **settings)
    try:
        await edge.start()
        yield edge
        assert edge.process.running
        assert trouble(edge) == []
    finally:
        edge.process.end(9)


def trouble(server: Hikyaku) -> list[str]:
    """Lines of a server's log that tell of something unexpected."""
    lines = server.process.log.read_text(errors="replace").splitlines()
    return [line for line in lines if any(each in line for each in TROUBLE)]
