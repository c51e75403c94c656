"""What the client weighs, as a browser counts it, and that it begins with little."""

import pytest
from playwright.async_api import Browser

from tests import page_speed
from tests.browsers import needs_chromium
from tests.chat import names
from tests.websites import WebSite

pytestmark = [pytest.mark.anyio, needs_chromium]

MAX_BYTES = 150_000
REQUESTS = 75


async def test_the_first_view_weighs_little(browser: Browser, web: WebSite) -> None:
    address = f"http://127.0.0.1:{web.edges[0].port}/"
    found = await page_speed.first_view(browser, address, page_speed.SIGN_IN)
    assert 30_000 < found.bodies < found.with_headers < MAX_BYTES, found
    assert found.files < REQUESTS


async def test_all_that_is_ever_sent_weighs_little(browser: Browser, web: WebSite) -> None:
    """Both languages, the worker, and what it keeps: nothing is fetched a second time."""
    (alice,) = names("alice")
    found = await page_speed.everything(browser, web.edges[0].port, alice)
    assert 30_000 < found < MAX_BYTES
