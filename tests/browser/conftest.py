"""One browser and one site for all tests of this folder that run in one process."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browsers import People, chromium
from tests.edges import trouble
from tests.push_server import Authority
from tests.push_services import PushService
from tests.websites import WebSite


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebSite]:
    """A site for people; use names of your own."""
    folder = tmp_path_factory.mktemp("web")
    authority = Authority(folder / "ca")
    push = PushService(authority, folder)
    async with push:
        site = WebSite(folder, authority, push)
        try:
            await site.start()
            yield site
        finally:
            site.stop()
    assert [line for edge in site.edges for line in trouble(edge)] == []


@pytest.fixture
async def people(browser: Browser) -> AsyncIterator[People]:
    people = People(browser)
    try:
        yield people
    finally:
        await people.close()
    assert people.complaints == []
