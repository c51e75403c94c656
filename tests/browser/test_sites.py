"""Conversations with people of another site, while the link holds and while it is cut."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from tests.browsers import People, needs_chromium
from tests.chat import Clients, names
from tests.filesite import Web
from tests.offices import Company
from tests.pictures import picture

pytestmark = [pytest.mark.anyio, needs_chromium]

NO_PUSHES = ("503 (Service Unavailable)",)
"""What the browser itself says when the page asks whether there are any."""


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(tmp_path_factory.mktemp("company"), ["tokyo", "osaka"])
    async with company.running():
        for office in company.offices.values():
            await office.files.start()
        yield company


async def test_a_conversation_over_a_cut(people: People, company: Company) -> None:
    """It lives in Tokyo; what Bob writes in Osaka meanwhile waits, for all to see who are there."""
    people.allowed = NO_PUSHES
    a, b = names("alice", "bob")
    far = f"{a}@tokyo"
    alice = await people.sign_in(a, company["tokyo"].edges[0])
    bob = await people.sign_in(b, company["osaka"].edges[0])
    await bob.talk_to(far)
    await bob.say("Hello Tokyo")
    await alice.open(f"{b}@osaka")
    await alice.say("Hello Osaka")
    await expect(bob.message("Hello Osaka")).to_be_visible()
    await expect(alice.message("Hello Osaka").locator(".tick.read")).to_have_count(1)

    link = company["osaka"].link
    link.up.hold()
    await bob.write("Is the line down?")
    waiting = bob.message("Is the line down?").locator(".tick.waiting")
    await expect(waiting).to_have_count(1)
    phone = await people.sign_in(b, company["osaka"].edges[1])
    await phone.open(far)
    await expect(phone.message("Is the line down?").locator(".tick.waiting")).to_have_count(1)
    await bob.page.reload()
    await bob.online()
    await expect(waiting).to_have_count(1)
    assert await alice.texts() == ["Hello Tokyo", "Hello Osaka"]

    link.up.release()
    await expect(alice.message("Is the line down?")).to_be_visible()
    for each in (bob, phone):
        await expect(each.page.locator("#main .tick.waiting")).to_have_count(0)
    wanted = ["Hello Tokyo", "Hello Osaka", "Is the line down?"]
    assert await alice.texts() == await bob.texts() == await phone.texts() == wanted


async def test_what_another_site_does_not_take_is_said(people: People, company: Company) -> None:
    """Osaka does not know yet that Bob is no member any more."""
    people.allowed = NO_PUSHES
    a, b = names("alice", "bob")
    async with Clients() as connect:
        alice = await connect(company["tokyo"].edges[0], a)
        group = await alice.group(f"{b}@osaka", name="Over both")
        bob = await people.sign_in(b, company["osaka"].edges[0])
        await bob.open("Over both")
        await bob.say("I am here")
        company["osaka"].link.down.hold()
        removed = {"group_id": group["group_id"], "users": [f"{b}@osaka"]}
        assert (await alice.ask("group_remove", **removed))["group"]
        await bob.write("Too late")
        await expect(bob.message("Too late").locator(".tick.waiting")).to_have_count(1)
        company["osaka"].link.clear()
        said = bob.page.locator("#toasts")
        await expect(said).to_contain_text("You are not a member of this conversation.")
        await expect(bob.chat("Over both")).to_have_count(0)


async def test_an_image_of_another_site_shows_as_soon_as_it_can(
    people: People, company: Company
) -> None:
    people.allowed = (*NO_PUSHES, "503 ()")
    a, b = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        bob = await connect(osaka.edges[0], b)
        first = await bob.say(f"{a}@tokyo", "See what I see")
        async with Web(osaka.edges[0], b) as web:
            file = await web.upload(first["chat_id"], picture("PNG"), "view.png")
        sent = await bob.say(f"{a}@tokyo", "The harbour", attachments=[file["id"]])
        await bob.until("ack", status="sent", client_id=sent["client_id"])
        osaka.link.sever()
        alice = await people.sign_in(a, tokyo.edges[0])
        await alice.open(f"{b}@osaka")
        image = alice.message("The harbour").locator(".files img")
        await expect(image).to_have_count(1)
        await expect(image).not_to_have_attribute("src", re.compile("."))
        osaka.link.clear()
        await expect(image).to_have_js_property("naturalWidth", 512)
