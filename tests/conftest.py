"""Fixtures shared by all tests. Async tests run on asyncio with uvloop, by anyio's plugin."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from .servers import Mongo, Nats, Site

# Machines are shared: how long one example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command that was run in this process may have made our logs more quiet."""
    yield
    logging.getLogger("hikyaku").setLevel(logging.NOTSET)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Nats]:
    """A fresh nats-server for one test."""
    server = Nats(tmp_path / "nats")
    try:
        await server.start()
        yield server
    finally:
        server.process.end(9)


@pytest.fixture(scope="module")
async def mongo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mongo]:
    """A mongod, shared by the tests of a module."""
    server = Mongo(tmp_path_factory.mktemp("mongo"))
    try:
        await server.start()
        yield server
    finally:
        server.process.end(9)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A whole site, shared by the tests of a module; use user and group ids of your own."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        await site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def fresh_site(tmp_path: Path) -> Iterator[Site]:
    """A site of one's own, not started yet; for tests that break it."""
    site = Site(tmp_path)
    yield site
    site.stop()
