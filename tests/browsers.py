"""People at real browsers: the web client in headless Chromium, against real edges.

    async def test_it(people: People, web: Site) -> None:
        alice = await people.sign_in("alice", web.edges[0])
        await alice.talk_to("bob")
        await alice.write("hello")

What a page writes to its console is collected; at the end of a test it must be nothing.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    async_playwright,
    expect,
)

from .servers import token

WITHIN_MS = 30_000
expect.set_options(timeout=WITHIN_MS)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium; on Debian: apt-get install chromium"
)

DESKTOP = {"width": 1280, "height": 800}
TABLET = {"width": 820, "height": 1180}
PHONE = {"width": 390, "height": 844}

LOST = ("WebSocket connection to", "net::ERR_")
"""What a browser itself says when a connection is refused or cut: for tests that do that."""

MACHINE = ("net::ERR_NETWORK_CHANGED",)
"""Somebody else on this machine made or removed a network interface; pages have to bear that."""


class Served(Protocol):
    """Whatever a page can be opened from: an edge, or a proxy before one."""

    port: int


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One browser process; each person has a profile of their own in it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Where tests run as root there is no sandbox; pages come from this machine only.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Person:
    """One user before one page."""

    def __init__(self, name: str, page: Page, address: str):
        self.name = name
        self.page = page
        self.address = address

    # --- finding things ---

    def button(self, name: str, **more: Any) -> Locator:
        return self.page.get_by_role("button", name=name, **more)

    @property
    def pill(self) -> Locator:
        return self.page.locator(".pill")

    @property
    def messages(self) -> Locator:
        return self.page.locator("#main .message")

    def message(self, text: str) -> Locator:
        """A message of the open conversation that contains this text."""
        return self.messages.filter(has=self.page.locator(".text", has_text=text))

    def chat(self, name: str) -> Locator:
        """A chat in the list."""
        named = self.page.locator(".top b", has_text=name)
        return self.page.locator("#sidebar .chat").filter(has=named)

    @property
    def text(self) -> Locator:
        """Where one writes."""
        return self.page.locator("#main .composer textarea")

    @property
    def thread(self) -> Locator:
        return self.page.locator("#panel .thread")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog").last

    # --- doing things ---

    async def until(self, script: str, argument: Any = None) -> None:
        """Poll until a script gives something true; the policy forbids `wait_for_function`."""
        deadline = time.monotonic() + WITHIN_MS / 1000
        while not await self.page.evaluate(script, argument):
            assert time.monotonic() < deadline, script

    async def online(self) -> None:
        await expect(self.pill).to_have_class("pill online")

    async def talk_to(self, name: str) -> None:
        """Open the conversation with a user, new or not."""
        await self.button("New conversation").first.click()
        await self.dialog.get_by_label("Name of the person").fill(name)
        await self.dialog.get_by_label("Name of the person").press("Enter")
        await expect(self.page.locator("#main h1")).to_have_text(name)

    async def open(self, name: str) -> None:
        """Open a chat of the list."""
        await self.chat(name).click()
        await expect(self.page.locator("#main h1")).to_contain_text(name)

    async def write(self, text: str) -> None:
        await self.text.fill(text)
        await self.text.press("Enter")
        await expect(self.text).to_have_value("")

    async def say(self, text: str) -> Locator:
        """Write, and wait until the server has it."""
        await self.write(text)
        row = self.message(text).last
        await expect(row.locator(".tick.waiting")).to_have_count(0)
        await expect(row.locator(".tick")).to_have_count(1)
        return row

    async def choose(self, row: Locator, what: str) -> None:
        """One of the buttons of a message."""
        await row.hover()
        await row.locator(".tools").get_by_role("button", name=what, exact=True).click()

    async def texts(self) -> list[str]:
        """The texts of the open conversation, in the order of the screen."""
        return await self.page.locator("#main .message .text").all_inner_texts()


class People:
    """Signs people in, and sees to it that no page complained."""

    def __init__(self, browser: Browser):
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.allowed: tuple[str, ...] = ()
        self.complaints: list[str] = []

    def _listen(self, context: BrowserContext, name: str) -> None:
        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not self._is_allowed(message.text):
                self.complaints.append(f"{name}: {message.type}: {message.text}")

        context.on("console", said)
        context.on("weberror", lambda error: self.complaints.append(f"{name}: {error.error}"))

    def _is_allowed(self, text: str) -> bool:
        return any(each in text for each in (*MACHINE, *self.allowed))

    async def page(
        self, name: str = "somebody", *, size: dict[str, int] = DESKTOP, **options: Any
    ) -> Page:
        """A page in a new profile, nothing opened yet."""
        options = {"locale": "en-GB", "timezone_id": "UTC", **options}
        context = await self._browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        context.set_default_timeout(WITHIN_MS)
        self._contexts.append(context)
        self._listen(context, name)
        return await context.new_page()

    async def sign_in(self, name: str, server: Served, **options: Any) -> Person:
        """Signed in by a token in the address, and caught up."""
        page = await self.page(name, **options)
        address = f"http://127.0.0.1:{server.port}/"
        await page.goto(f"{address}#token={token(name)}")
        person = Person(name, page, address)
        await person.online()
        return person

    async def close(self) -> None:
        await asyncio.gather(*(context.close() for context in self._contexts))
