"""What the web client weighs and how quick it is, in headless Chromium on this machine.

    python -m tests.page_speed

prints the figures of `docs/web.md`. Times are of the clock, which other work on the machine makes
longer, and of the processor, for the page's main thread alone, which it hardly does. Tests hold the
weight, which does not depend on the machine.
"""

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import Browser, CDPSession, Page, expect

from bench.proxy import Direction, Proxy

from .browsers import DESKTOP, Person, chromium
from .chat import Clients, names
from .servers import Site, token

TIMES = 7
MESSAGES = 10_000
STEPS = 300
SIGN_IN = "#app[data-signin] input"

WATCH = """(wanted) => {
    const look = () => {
        if (document.querySelector(wanted)) {
            // The frame after this one is on the screen.
            requestAnimationFrame(() => requestAnimationFrame(() => {
                window.useful = performance.now();
            }));
        } else {
            requestAnimationFrame(look);
        }
    };
    requestAnimationFrame(look);
}"""

PAINTED = """() => {
    const first = performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
    return first && window.useful && { first, useful: window.useful };
}"""

SCROLL = """async ([steps, by]) => {
    const scroller = document.querySelector('#main .scroller');
    const frame = () => new Promise(requestAnimationFrame);
    const long = [];
    const observer = new PerformanceObserver((list) => {
        for (const each of list.getEntries()) long.push(each.duration);
    });
    observer.observe({ type: 'longtask' });
    const frames = [], work = [];
    let nodes = 0;
    let before = await frame();
    for (let step = 0; step < steps; step++) {
        const start = performance.now();
        scroller.scrollTop += by;
        scroller.dispatchEvent(new Event('scroll'));
        scroller.getBoundingClientRect();
        work.push(performance.now() - start);
        const now = await frame();
        frames.push(now - before);
        before = now;
        nodes = Math.max(nodes, scroller.querySelectorAll('*').length);
    }
    observer.disconnect();
    return { frames, work, long, nodes };
}"""


class Weight(NamedTuple):
    """Bytes that came over the network."""

    files: int
    bodies: int
    with_headers: int


class Counted(Direction):
    """Counts what passes through a proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_bytes = 0

    async def pass_on(self, chunk: bytes) -> bytes:
        self.passed_bytes += len(chunk)
        return await super().pass_on(chunk)


async def first_view(browser: Browser, address: str, seen: str) -> Weight:
    """Open a page with nothing cached, and count what comes until `seen` is there.

    `bodies` are the files as they are sent, `with_headers` also the lines before them.
    """
    page = await opened(browser, service_workers="block")
    devtools = await page.context.new_cdp_session(page)
    headers: dict[str, int] = {}
    whole: dict[str, int] = {}

    def received(event: dict[str, Any]) -> None:
        headers[event["requestId"]] = int(event["response"]["encodedDataLength"])

    def finished(event: dict[str, Any]) -> None:
        whole[event["requestId"]] = int(event["encodedDataLength"])

    devtools.on("Network.responseReceived", received)
    devtools.on("Network.loadingFinished", finished)
    await devtools.send("Network.enable")
    await page.goto(address, wait_until="networkidle")
    await expect(page.locator(seen).first).to_be_visible()
    await page.context.close()
    bodies = sum(size - headers.get(request, 0) for request, size in whole.items())
    return Weight(len(whole), bodies, sum(whole.values()))


async def everything(browser: Browser, port: int, user: str) -> int:
    """Bytes that a server sends to a new browser until it needs no server to start.

    All of them: files, headers, answers, what goes over the WebSocket.
    """
    async with Proxy(port) as proxy:
        proxy.down = counted = Counted()
        page = await opened(browser)
        await page.goto(f"http://127.0.0.1:{proxy.port}/#token={token(user)}")
        await Person(user, page, page.url).online()
        await page.evaluate("navigator.serviceWorker.ready")
        found = counted.passed_bytes
        await page.context.close()
    return found


async def processor(page: Page) -> CDPSession:
    """Asked by `worked`, it tells how long the page's main thread has had the processor."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    return devtools


async def worked(devtools: CDPSession) -> float:
    """Milliseconds."""
    metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
    (tasks,) = (each["value"] for each in metrics if each["name"] == "TaskDuration")
    return float(tasks) * 1000


async def paint(page: Page, address: str, seen: str) -> dict[str, float]:
    """Milliseconds from the navigation to the first paint and to one with `seen` in it."""
    devtools = await processor(page)
    await page.add_init_script(f"({WATCH})({seen!r})")
    await page.goto(address)
    for _ in range(1500):
        if found := await page.evaluate(PAINTED):
            times: dict[str, float] = {**found, "processor": await worked(devtools)}
            return times
        await asyncio.sleep(0.02)
    raise AssertionError(f"{seen} was not there within 30 s")


async def opened(browser: Browser, **options: Any) -> Page:
    context = await browser.new_context(viewport=DESKTOP, locale="en-GB", **options)  # type: ignore[arg-type]
    return await context.new_page()


def said(name: str, times: list[dict[str, float]]) -> str:
    parts = [
        f"{what} {statistics.median(values):.0f} ms (to {max(values):.0f})"
        for what in ("first", "useful", "processor")
        if (values := [each[what] for each in times])
    ]
    return f"{name}: {', '.join(parts)}, {len(times)} times"


async def cold(browser: Browser, address: str) -> str:
    times = []
    for _ in range(TIMES):
        page = await opened(browser)
        times.append(await paint(page, address, SIGN_IN))
        await page.context.close()
    return said("cold, sign-in", times)


async def cold_chat(browser: Browser, address: str, user: str) -> str:
    """With a token in the address: what comes has to be asked of the server."""
    times = []
    for _ in range(TIMES):
        page = await opened(browser)
        times.append(await paint(page, f"{address}#token={token(user)}", "#sidebar .chat"))
        await page.context.close()
    return said("cold, list from the server", times)


async def warm(browser: Browser, address: str, user: str, chat: str) -> str:
    """Opened before: files from the service worker, chats and messages from IndexedDB."""
    page = await opened(browser)
    await page.goto(f"{address}#token={token(user)}")
    person = Person(user, page, address)
    await person.online()
    await page.evaluate("navigator.serviceWorker.ready")
    await person.open(chat)
    await expect(person.messages.first).to_be_visible()
    await page.evaluate("window.dispatchEvent(new Event('pagehide'))")
    times = []
    for _ in range(TIMES):
        again = await page.context.new_page()
        times.append(await paint(again, page.url, "#main .message"))
        await again.close()
    await page.context.close()
    return said("warm, conversation", times)


async def scrolled(browser: Browser, address: str, user: str, chat: str) -> list[str]:
    """All messages are read back to the first one; then it is scrolled through."""
    page = await opened(browser)
    await page.goto(f"{address}#token={token(user)}")
    person = Person(user, page, address)
    await person.online()
    await person.open(chat)
    await page.evaluate(
        """async () => {
            const scroller = document.querySelector('#main .scroller');
            while (!document.querySelector('#main .start')) {
                scroller.scrollTop = 0;
                await new Promise((done) => setTimeout(done, 10));
            }
        }"""
    )
    rows = await page.locator("#main [aria-setsize]").first.get_attribute("aria-setsize")
    lines = [f"{rows} rows"]
    devtools = await processor(page)
    for by in (80, 2500):
        before = await worked(devtools)
        found = await page.evaluate(SCROLL, [STEPS, by])
        share = (await worked(devtools) - before) / STEPS
        frames, work = sorted(found["frames"]), sorted(found["work"])
        lines.append(
            f"{by} px a frame: frame {_of(frames)}, own work {_of(work)}, "
            f"processor {share:.1f} ms a frame, "
            f"{len(found['long'])} of {STEPS} over 50 ms, at most {found['nodes']} elements"
        )
    await page.context.close()
    return lines


def _of(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ms (95 %: {values[len(values) * 95 // 100]:.1f})"


async def fill(site: Site, a: str, b: str, count: int) -> None:
    """Of what b writes to a, the last is on disk."""
    async with Clients() as connect:
        bob = await connect(site.edges[1], b)
        for number in range(count):
            text = f"message {number} " + "and more of it " * (number * 7919 % 25)
            await bob.send("chat", to=a, content=text, client_id=f"{a}{number}")
            if number % 500 == 499 or number == count - 1:
                await bob.until("ack", client_id=f"{a}{number}")


async def measure(folder: Path) -> None:
    site = Site(folder, HIKYAKU_MESSAGES_PER_S="5000", HIKYAKU_MESSAGES_BURST="20000")
    a, b, dora = names("alice", "bob", "dora")
    try:
        await site.start()
        await fill(site, dora, b, 40)
        address = f"http://127.0.0.1:{site.edges[0].port}/"
        async with chromium() as browser:
            print("first view:", await first_view(browser, address, SIGN_IN))
            print("everything:", await everything(browser, site.edges[0].port, *names("carol")))
            print(await cold(browser, address))
            print(await cold_chat(browser, address, b))
            await fill(site, a, b, MESSAGES)
            print(await warm(browser, address, a, b))
            print(*await scrolled(browser, address, a, b), sep="\n")
    finally:
        site.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(measure(Path(home)))
