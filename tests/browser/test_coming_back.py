"""Reloads, lost connections, killed edges: nothing is lost or comes twice, and it is quick."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from bench.proxy import Proxy
from tests.browsers import LOST, People, Person, needs_chromium
from tests.chat import Clients, Frame, names
from tests.edges import new_edge
from tests.servers import Hikyaku, Site, token

pytestmark = [pytest.mark.anyio, needs_chromium]

BLINK_S = 8.0
"""From an edge being ready to a client that has caught up, beside what it waits between its tries:
that doubles, so it is never longer than the edge was away. A second on a machine that is free."""


@pytest.fixture
async def edge(web: Site, tmp_path: Path) -> AsyncIterator[Hikyaku]:
    """An edge of one's own, to be killed."""
    edge = new_edge(web, tmp_path / "edge", messages_per_s="2000", messages_burst="20000")
    try:
        await edge.start()
        yield edge
    finally:
        edge.process.kill()


async def installed(person: Person) -> None:
    """Wait until the page would start without a server."""
    await person.page.evaluate("navigator.serviceWorker.ready")
    await person.until("navigator.serviceWorker.controller !== null")


async def offline(person: Person) -> None:
    await expect(person.pill).not_to_have_class("pill online")


async def back(person: Person) -> None:
    """The server is there again: do not wait for the next try, which may be half a minute away."""
    await person.page.evaluate("window.dispatchEvent(new Event('online'))")
    await person.online()


async def scroll(person: Person, by: int) -> None:
    """Scroll the conversation, and wait until that has been drawn."""
    await person.page.locator("#main .scroller").evaluate(
        """async (element, by) => {
            element.scrollTop += by;
            for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
        }""",
        by,
    )


async def test_a_reload_shows_what_was_there_also_without_a_server(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    await installed(alice)
    await alice.talk_to(b)
    await alice.say("Kept on this device")
    edge.process.kill()
    await offline(alice)

    await alice.page.reload()
    await expect(alice.chat(b).locator(".preview")).to_have_text("You: Kept on this device")
    await expect(alice.message("Kept on this device")).to_be_visible()
    await offline(alice)
    await edge.start()
    await back(alice)
    assert await alice.texts() == ["Kept on this device"]


async def test_a_thread_that_could_not_be_read_is_read_later(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    await installed(alice)
    await alice.talk_to(b)
    root = await alice.say("A question")
    await alice.choose(root, "Reply in thread")
    await alice.thread.locator("textarea").fill("An answer")
    await alice.thread.locator("textarea").press("Enter")
    await expect(alice.thread.locator(".tick.sent, .tick.delivered")).to_have_count(2)
    edge.process.kill()
    await offline(alice)
    await alice.page.reload()
    await expect(alice.thread.get_by_text("Messages could not be loaded.")).to_be_visible()
    await edge.start()
    await back(alice)
    await expect(alice.thread.locator(".message").last).to_contain_text("An answer")
    await expect(alice.thread.get_by_text("Messages could not be loaded.")).to_have_count(0)


async def test_what_is_written_offline_waits_and_goes_out_once_in_order(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    await installed(alice)
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("before")
    edge.process.kill()
    await offline(alice)
    for number in range(4):
        await alice.write(f"offline {number}")
    await expect(alice.page.locator(".tick.waiting")).to_have_count(4)
    await alice.page.reload()
    await expect(alice.page.locator(".tick.waiting")).to_have_count(4)
    await alice.write("offline 4")
    await bob.open(a)
    await bob.say("Are you there?")

    await edge.start()
    await back(alice)
    await expect(alice.page.locator(".tick.waiting")).to_have_count(0)
    await expect(bob.message("offline 4")).to_be_visible()
    wanted = ["before", "Are you there?", *(f"offline {number}" for number in range(5))]
    assert await bob.texts() == await alice.texts() == wanted


async def test_an_edge_killed_is_a_blink(people: People, web: Site, edge: Hikyaku) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    bob = await people.sign_in(b, web.edges[0])
    await alice.talk_to(b)
    await alice.say("one")
    await bob.open(a)
    edge.process.kill()
    gone = time.monotonic()
    await bob.say("two, while away")
    await edge.start()
    ready = time.monotonic()
    await alice.online()
    assert time.monotonic() - ready < BLINK_S + (ready - gone)
    await expect(alice.message("two, while away")).to_be_visible()
    await alice.say("three")
    assert await bob.texts() == ["one", "two, while away", "three"]


async def test_an_answer_that_got_lost_makes_no_second_message(people: People, web: Site) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    async with Proxy(web.edges[0].port) as proxy:
        alice = await people.sign_in(a, proxy)
        bob = await people.sign_in(b, web.edges[1])
        await alice.talk_to(b)
        await alice.say("one")
        await bob.open(a)
        proxy.down.hold()
        await alice.write("two")
        await expect(bob.message("two")).to_be_visible()
        await expect(alice.message("two").locator(".tick.waiting")).to_have_count(1)
        await alice.page.evaluate("window.dispatchEvent(new Event('online'))")
        await offline(alice)  # after 3 s without any answer
        proxy.reset()
        proxy.clear()
        await alice.online()
        await expect(alice.message("two").locator(".tick.waiting")).to_have_count(0)
        await alice.say("three")
        assert await bob.texts() == await alice.texts() == ["one", "two", "three"]


async def test_away_longer_than_the_replay_reaches(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    await alice.talk_to(b)
    await alice.say("the last before")
    edge.process.kill()
    await offline(alice)
    async with Clients() as connect:
        bob = await connect(web.edges[0], b)
        for part in range(0, 1200, 400):
            await asyncio.gather(
                *(
                    bob.send("chat", to=a, content=f"m{n}", client_id=f"{b}{n}")
                    for n in range(part, part + 400)
                )
            )
            await bob.until("ack", client_id=f"{b}{part + 399}")
    await edge.start()
    await back(alice)
    await expect(alice.message("m1199")).to_be_visible()
    sent = ["the last before", *(f"m{number}" for number in range(1200))]
    texts = await alice.texts()
    while texts[0] != sent[0]:
        await scroll(alice, -700)
        texts = await alice.texts()
        first = sent.index(texts[0])
        assert texts == sent[first : first + len(texts)]


async def test_another_tab_sends_what_a_closed_one_left(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, edge)
    await installed(alice)
    second = await alice.page.context.new_page()
    await second.goto(alice.address)
    await alice.talk_to(b)
    await alice.say("one")
    edge.process.kill()
    await offline(alice)
    await alice.write("left behind")
    await expect(alice.page.locator(".tick.waiting")).to_have_count(1)
    await second.reload()
    await alice.page.close()
    await edge.start()
    async with Clients() as connect:
        bob = await connect(web.edges[0], b, cursor="")
        history: Frame = {}
        deadline = time.monotonic() + 15
        while len(history.get("messages", ())) < 2:
            assert time.monotonic() < deadline, history
            chat_id = f"dm.{min(a, b)}.{max(a, b)}"
            history = await bob.ask("history", chat_id=chat_id)
    assert [each["content"] for each in history["messages"]] == ["left behind", "one"]


async def test_a_session_that_ends_asks_to_sign_in_again(people: People, web: Site) -> None:
    # What the browser says of a request that was on its way when the token ended.
    people.allowed = ("401 (Unauthorized)",)
    (a,) = names("alice")
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/#token={token(a, ttl_s=2)}")
    await expect(page.get_by_text("Your session has ended. Sign in again.")).to_be_visible()
    assert "token" not in page.url


async def test_signing_out_forgets_everything_in_all_tabs(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    second = await alice.page.context.new_page()
    await second.goto(alice.address)
    await alice.talk_to(b)
    await alice.say("a secret")
    await alice.page.get_by_role("button", name="Settings").click()
    await alice.button("Sign out").click()
    await alice.dialog.get_by_role("button", name="Sign out").click()
    await expect(alice.page.get_by_label("Your name")).to_be_visible()
    await expect(second.get_by_text("You signed out in another tab.")).to_be_visible()
    left = await alice.page.evaluate(
        "indexedDB.databases().then(all => all.map(each => each.name))"
    )
    assert left == []
    assert a not in await alice.page.evaluate(
        "JSON.stringify({...localStorage, ...sessionStorage})"
    )


async def test_development_sign_in_by_name(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/")
    await page.get_by_label("Your name").fill(a)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    alice = Person(a, page, page.url)
    await alice.online()
    await alice.talk_to(b)
    await alice.say("Hello")
    await page.reload()
    await expect(alice.message("Hello")).to_be_visible()
    await alice.online()


async def test_without_a_connection_nobody_is_online_and_what_is_written_comes_first(
    people: People, web: Site, edge: Hikyaku
) -> None:
    people.allowed = LOST
    a, b, c = names("alice", "bob", "carol")
    await people.sign_in(b, web.edges[1])
    alice = await people.sign_in(a, edge)
    await alice.talk_to(b)
    await alice.say("to bob")
    await expect(alice.chat(b).locator(".dot.online")).to_have_count(1)
    await alice.talk_to(c)
    await alice.say("to carol")
    first = alice.page.locator("#sidebar .chat").first
    await expect(first).to_contain_text(c)

    edge.process.kill()
    await expect(alice.pill).to_have_class("pill offline")
    await expect(alice.chat(b).locator(".dot.unknown")).to_have_count(1)
    await expect(alice.page.locator("#sidebar .dot.online")).to_have_count(0)
    await alice.open(b)
    await expect(alice.page.locator("#main .bar small")).to_have_text("Status unknown")
    await alice.write("later")
    await expect(first).to_contain_text(b)
    await expect(first.locator(".preview")).to_have_text("You: later")

    await edge.start()
    await back(alice)
    await expect(alice.message("later").locator(".tick.waiting")).to_have_count(0)
    await expect(alice.chat(b).locator(".dot.online")).to_have_count(1)
    await expect(first.locator(".preview")).to_have_text("You: later")
