"""What a message holds does nothing but be read; the page may load and do nothing else."""

import re
import urllib.request

import pytest
from playwright.async_api import expect

from tests.browsers import People, needs_chromium
from tests.chat import Clients, names
from tests.servers import Site

pytestmark = [pytest.mark.anyio, needs_chromium]

HOSTILE = [
    "<img src=x onerror=window.hit=1>",
    "<script>window.hit=1</script>",
    "[click](javascript:window.hit=1)",
    "[click](JaVaScRiPt:window.hit=1) [b](data:text/html,<script>window.hit=1</script>)",
    "javascript:window.hit=1",
    '[x](https://a.example/"onmouseover="window.hit=1)',
    "[x](https://a.example/'onclick='window.hit=1)",
    "`<img src=x onerror=window.hit=1>`",
    "```\n</code></pre><img src=x onerror=window.hit=1>\n```",
    "> <svg onload=window.hit=1>",
    "**<b onclick=window.hit=1>**",
    "https://a.example/<img src=x onerror=window.hit=1>",
    "![image](https://a.example/track.png)",
    "&lt;img src=x onerror=window.hit=1&gt;",
    "{{constructor.constructor('window.hit=1')()}}",
    "\u202egnp.exe\u202c",
    "*" * 3000,
    "[" * 2000 + "](" * 2000,
    "> " * 2000 + "deep",
    "**a " * 2000,
    "_" * 2000 + "~~" * 2000,
]


async def test_hostile_messages_do_nothing(people: People, web: Site) -> None:
    (a,) = names("alice")
    b = "<img src=x onerror=window.hit=1>"
    alice = await people.sign_in(a, web.edges[0])
    requests: list[str] = []
    alice.page.on("request", lambda request: requests.append(request.url))
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        for text in HOSTILE:
            await bob.say(a, text, mentions=[a, b])
        group = await bob.group(a, name="<script>window.hit=1</script>")
        await bob.tell(group["group_id"], "x")
    await alice.chat(b).click()
    await expect(alice.messages.last).to_be_visible()
    scroller = alice.page.locator("#main .scroller")
    for _ in range(10):
        await scroller.evaluate("element => element.scrollTop -= 500")
        links = alice.page.locator("#main .text a")
        for address in await links.evaluate_all("all => all.map(each => each.href)"):
            assert re.match(r"https?://", address), address
    await expect(alice.message("<script>window.hit=1</script>").first).to_have_count(1)
    assert await alice.page.evaluate("window.hit") is None
    assert await alice.page.locator("#main .text :is(img, svg, script, iframe)").count() == 0
    assert not [each for each in requests if "example" in each]


async def test_a_link_shows_where_it_leads(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.write(
        "[bank.example](https://thief.example/) and [the report](https://b.example/r)"
    )
    links = alice.page.locator("#main .text a")
    await expect(links.nth(0)).to_have_text("bank.example (https://thief.example/)")
    await expect(links.nth(1)).to_have_text("the report")
    for number in range(2):
        await expect(links.nth(number)).to_have_attribute("rel", "noopener noreferrer nofollow")


async def test_the_page_can_load_and_frame_nothing_else(people: People, web: Site) -> None:
    (a,) = names("alice")
    people.allowed = ("Content Security Policy", "requires 'Trusted")
    alice = await people.sign_in(a, web.edges[0])
    tried = await alice.page.evaluate(
        """async () => {
            const found = {};
            try { document.body.innerHTML = '<b>x</b>'; found.html = 'written'; }
            catch (error) { found.html = error.name; }
            const script = document.createElement('script');
            try { script.textContent = 'window.hit = 1'; document.head.append(script); }
            catch (error) { found.script = error.name; }
            try { await fetch('https://elsewhere.example/'); found.fetch = 'sent'; }
            catch (error) { found.fetch = error.name; }
            found.hit = 'hit' in window;
            return found;
        }"""
    )
    assert tried == dict.fromkeys(("html", "script", "fetch"), "TypeError") | {"hit": False}


def test_headers(web: Site) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{web.edges[0].port}/", timeout=5) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "camera=()" in headers["Permissions-Policy"]
