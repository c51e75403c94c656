"""Search with highlights and jumps, and being told of what arrives while one looks elsewhere."""

import asyncio
import json
from typing import Any

import pytest
from playwright.async_api import CDPSession, expect

from tests.browsers import People, Person, needs_chromium
from tests.chat import Clients, names
from tests.mirror import until
from tests.servers import token
from tests.websites import WebSite

pytestmark = [pytest.mark.anyio, needs_chromium]


async def search(person: Person, words: str, hits: int) -> None:
    """Search until the index has it: a message is there within seconds of its ack."""

    async def found() -> bool:
        await person.page.get_by_role("searchbox").fill("")
        await person.page.get_by_role("searchbox").fill(words)
        await expect(person.page.locator(".results .skeleton")).to_have_count(0)
        await expect(person.page.locator(".results section, .results .empty").first).to_be_visible()
        return await person.page.locator(".hit").count() == hits

    await until(found)


async def test_search_finds_marks_and_jumps(people: People, web: WebSite) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        await bob.say(a, "the heron stood in the reeds")
        for number in range(300):
            await bob.send("chat", to=a, content=f"talk {number}", client_id=f"{b}{number}")
        await bob.until("ack", client_id=f"{b}299")
        root = await bob.say(a, "a question")
        await bob.say(a, "a heron answered", thread=root["message_id"])
    alice = await people.sign_in(a, web.edges[0])
    await search(alice, "heron", 2)
    hit = alice.page.locator(".hit").filter(has_text="reeds")
    await expect(hit.locator("mark")).to_have_text("heron")
    await hit.click()
    target = alice.message("the heron stood")
    await expect(target).to_be_focused()
    await expect(target).to_be_in_viewport()

    await alice.page.get_by_role("button", name="To the newest").click()
    await expect(alice.message("a question")).to_be_in_viewport()
    await alice.page.locator(".hit").filter(has_text="answered").click()
    await expect(alice.thread.locator(".message").last).to_contain_text("a heron answered")

    await search(alice, "nothing like this", 0)
    await expect(alice.page.get_by_text("Nothing found")).to_be_visible()
    await alice.page.get_by_role("searchbox").press("Escape")
    await expect(alice.chat(b)).to_be_visible()


async def test_search_in_one_conversation(people: People, web: WebSite) -> None:
    a, b, c = names("alice", "bob", "carol")
    async with Clients() as connect:
        for each in (b, c):
            sender = await connect(web.edges[1], each)
            await sender.say(a, f"lantern of {each}")
    alice = await people.sign_in(a, web.edges[0])
    await search(alice, "lantern", 2)
    await alice.page.get_by_role("searchbox").press("Escape")
    await alice.open(b)
    await alice.button("Search in this conversation").first.click()
    await expect(alice.page.locator(".scope")).to_have_text(b)
    await search(alice, "lantern", 1)
    await expect(alice.page.locator(".hit")).to_contain_text(f"lantern of {b}")


async def test_hits_of_a_conversation_of_two_say_with_whom(people: People, web: WebSite) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.say("a lighthouse keeper")
    await search(alice, "lighthouse", 1)
    await expect(alice.page.locator(".hit b")).to_have_text(f"{a} to {b}")


async def test_a_name_typed_finds_the_chat(people: People, web: WebSite) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        await bob.say(a, "hello")
        await bob.group(a, name="Lighthouse")
    alice = await people.sign_in(a, web.edges[0])
    await alice.page.keyboard.press("Control+k")
    await alice.page.keyboard.type("lightH")
    await expect(alice.page.locator(".results .chat")).to_have_count(1)
    await alice.page.keyboard.press("Enter")
    await expect(alice.page.locator("#main h1")).to_have_text("Lighthouse")


# --- notifications ---

SHOWN = """async () => {
    const worker = await navigator.serviceWorker.ready;
    const shown = await worker.getNotifications();
    return shown.map(({ title, body, data }) => [title, body, data.chat]);
}"""

SUBSCRIBE = """subscription => {
    // There is no push service of a browser maker here: everything after it is real.
    PushManager.prototype.subscribe = async (options) => {
        window.asked = options;
        return { toJSON: () => subscription, unsubscribe: async () => true };
    };
}"""


async def allowed(person: Person) -> None:
    """Turn notifications on, as a person who allows them."""
    await person.page.context.grant_permissions(["notifications"])
    await person.page.evaluate("navigator.serviceWorker.ready")
    await person.button("Settings").click()
    await person.dialog.get_by_label("Notifications").check()
    await person.page.keyboard.press("Escape")


async def test_a_message_is_shown_on_the_desktop(people: People, web: WebSite) -> None:
    people.allowed = ("the Push API in incognito mode",)
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await allowed(alice)
    devtools = await alice.page.context.new_cdp_session(alice.page)
    await devtools.send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    other = await alice.page.context.new_page()
    await other.bring_to_front()
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        ack = await bob.say(a, "**Lunch?**")
        await expect(alice.chat(b).locator(".badge")).to_contain_text("1")

        async def shown() -> bool:
            found = await alice.page.evaluate(SHOWN)
            return bool(found == [[b, "Lunch?", ack["chat_id"]]])

        await until(shown)


async def test_a_browser_is_registered_for_pushes_and_shows_them(
    people: People, web: WebSite
) -> None:
    a, b = names("alice", "bob")
    browser = web.push.browser(a)
    alice = await people.sign_in(a, web.edges[0])
    await alice.page.evaluate(SUBSCRIBE, browser.subscription)
    await allowed(alice)
    await alice.until("Boolean(window.asked?.applicationServerKey)")
    # Registered once the server has answered: then it can be told to forget.
    await alice.until(
        """async token => (await (await fetch('v1/devices',
            {headers: {Authorization: `Bearer ${token}`}})).json()).devices.length""",
        token(a),
    )

    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        await bob.say(a, "Hello")
        await expect(alice.chat(b)).to_be_visible()
        # Away with every page of hers; the worker lives on.
        worker = await alice.page.context.new_page()
        await worker.goto(f"{alice.address}web/manifest.json")
        await alice.page.close()

        async def away() -> bool:
            seen = await bob.ask("presence_subscribe", users=[a])
            return bool(seen["presence"][a]["status"] == "offline")

        await until(away)
        await bob.say(a, "Are you back?")

        async def pushed() -> bool:
            return bool(browser.got)

        await until(pushed)
        push = browser.got[0]
        assert push["title"] == b
        await deliver(await worker.context.new_cdp_session(worker), alice.address, push)

    async def shown() -> bool:
        found = await worker.evaluate(SHOWN)
        return bool(found == [[b, "Are you back?", push["chat_id"]]])

    await until(shown)


async def deliver(devtools: CDPSession, origin: str, push: dict[str, Any]) -> None:
    """Do what a browser does with a push that it has decrypted."""
    known: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def updated(event: dict[str, Any]) -> None:
        for each in event["registrations"]:
            if each["scopeURL"] == origin and not known.done():
                known.set_result(each["registrationId"])

    devtools.on("ServiceWorker.workerRegistrationUpdated", updated)
    await devtools.send("ServiceWorker.enable")
    async with asyncio.timeout(10):
        registration = await known
    await devtools.send(
        "ServiceWorker.deliverPushMessage",
        {"origin": origin, "registrationId": registration, "data": json.dumps(push)},
    )


async def test_muted_chats_are_quiet(people: People, web: WebSite) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        await bob.say(a, "one")
        await alice.open(b)
        await alice.button("Details", exact=True).click()
        await alice.button("Mute").click()
        await expect(alice.button("Unmute")).to_be_visible()
        await alice.talk_to(a)
        await bob.say(a, "two")
        await expect(alice.chat(b).locator(".badge.quiet")).to_contain_text("1")
        await expect(alice.page).to_have_title("Hikyaku")
    second = await people.sign_in(a, web.edges[1])
    await expect(second.chat(b).locator(".badge.quiet")).to_contain_text("1")
