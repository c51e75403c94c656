"""The rules of WCAG 2 A and AA that axe-core can check, in every view, light and dark."""

import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browsers import PHONE, People, Person, needs_chromium
from tests.chat import Clients, names
from tests.filesite import Web
from tests.pictures import picture
from tests.servers import Site

pytestmark = [pytest.mark.anyio, needs_chromium]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def faults(page: Page) -> list[str]:
    """What axe finds, as rule, element and reason."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE)
    found: dict[str, Any] = await page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
    )
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


async def a_lively_group(web: Site, a: str, b: str) -> None:
    """A group with everything in it, and a conversation of two."""
    async with Clients() as connect:
        alice, bob = await connect(web.edges[0], a), await connect(web.edges[1], b)
        group = await bob.group(a, name="Everything")
        where = group["group_id"]
        first = await bob.tell(
            where, "# Hello **you**, `code`, https://a.example and @" + a, mentions=[a]
        )
        await bob.tell(where, "```\na block\n```\n> a quote\n- a list")
        await alice.tell(where, "an answer", reply_to=first["message_id"])
        await alice.tell(where, "in a thread", thread=first["message_id"])
        await alice.write(
            "react", chat_id=group["chat_id"], message_id=first["message_id"], emoji="🎉"
        )
        gone = await bob.tell(where, "not for long")
        await bob.write("delete", chat_id=group["chat_id"], message_id=gone["message_id"])
        for number in range(3):
            await bob.say(a, f"unread {number}")


async def a_picture(web: Site, a: str, b: str) -> None:
    """The last thing that was said to `a`: an image and a file."""
    async with Clients() as connect, Web(web.edges[1], b) as files:
        bob = await connect(web.edges[1], b)
        chat = (await bob.say(a, "a picture"))["chat_id"]
        kept = [
            await files.upload(chat, picture("PNG"), "view.png"),
            await files.upload(chat, b"words", "notes.txt"),
        ]
        await bob.say(a, "look", attachments=[each["id"] for each in kept])


async def views(person: Person) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    """The views, each with the way to it from the one before."""
    page = person.page

    async def escape() -> None:
        await page.keyboard.press("Escape")

    async def hover() -> None:
        await person.message("Hello you").hover()

    async def search() -> None:
        await page.keyboard.press("Control+k")
        await page.keyboard.type("nothing like it")

    async def settings() -> None:
        await page.locator(".me").click()
        await expect(person.dialog).to_be_visible()

    async def people_form() -> None:
        await person.button("New conversation").first.click()
        await person.dialog.get_by_role("tab", name="Group").click()

    return [
        ("list", lambda: expect(person.chat("Everything")).to_be_visible()),
        ("conversation", lambda: person.open("Everything")),
        ("tools", hover),
        ("details", lambda: person.button("Details", exact=True).click()),
        ("thread", lambda: person.page.get_by_role("button", name="1 reply").click()),
        ("menu", lambda: person.choose(person.message("Hello you").first, "More")),
        (
            "emoji",
            lambda: escape_then(page, person.choose(person.message("Hello you").first, "React")),
        ),
        ("settings", lambda: escape_then(page, settings())),
        ("new group", lambda: escape_then(page, people_form())),
        ("search", lambda: escape_then(page, search())),
    ]


async def escape_then(page: Page, act: Awaitable[Any]) -> None:
    await page.keyboard.press("Escape")
    await act


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_view_breaks_a_rule(people: People, web: Site, scheme: str) -> None:
    a, b = names("alice", "bob")
    await a_lively_group(web, a, b)
    alice = await people.sign_in(a, web.edges[0], color_scheme=scheme, reduced_motion="reduce")
    for name, go in await views(alice):
        await go()
        assert await faults(alice.page) == [], name


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_files_keys_and_facts_break_no_rule(people: People, web: Site, scheme: str) -> None:
    a, b = names("alice", "bob")
    await a_picture(web, a, b)
    alice = await people.sign_in(a, web.edges[0], color_scheme=scheme, reduced_motion="reduce")
    page = alice.page
    await alice.open(b)
    await alice.until("document.querySelector('#main .image img')?.naturalWidth > 0")
    assert await faults(page) == [], "files"
    await page.get_by_role("button", name="Open image view.png").click()
    await alice.until("document.querySelector('.lightbox img')?.naturalWidth > 0")
    assert await faults(page) == [], "image"
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+/")
    await expect(alice.dialog).to_be_visible()
    assert await faults(page) == [], "keys"
    await page.keyboard.press("Escape")
    await alice.choose(alice.message("look"), "More")
    await page.get_by_role("menuitem", name="Message details").click()
    await expect(alice.dialog).to_be_visible()
    assert await faults(page) == [], "facts"
    await page.keyboard.press("Escape")
    await alice.choose(alice.message("look"), "Reply")
    await alice.text.press_sequentially("See @")
    await expect(page.get_by_role("option")).to_have_count(1)
    assert await faults(page) == [], "reply and completion"


def brightness(colour: str) -> float:
    """The relative luminance of WCAG of a colour as `rgb(1, 2, 3)` in a computed style."""
    found = re.search(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, colour
    parts = [int(each) / 255 for each in found.groups()]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_is_chosen_stands_out(people: People, web: Site, scheme: str) -> None:
    (a,) = names("alice")
    alice = await people.sign_in(a, web.edges[0], color_scheme=scheme)
    await alice.button("Settings").click()
    style = "(element, name) => getComputedStyle(element)[name]"
    ground = await alice.dialog.evaluate(style, "backgroundColor")
    chosen = alice.dialog.locator(".segments :checked + span").first
    track = await alice.dialog.locator(".segments").first.evaluate(style, "backgroundColor")
    assert contrast(await chosen.evaluate(style, "boxShadow"), track) >= 3
    await alice.page.keyboard.press("Escape")
    await alice.button("New conversation").first.click()
    await alice.dialog.get_by_role("tab", name="Group").click()
    box = alice.dialog.get_by_role("checkbox")
    assert contrast(await box.evaluate(style, "borderTopColor"), ground) >= 3
    assert await box.evaluate(style, "backgroundColor") == "rgba(0, 0, 0, 0)"
    await box.check()
    assert contrast(await box.evaluate(style, "backgroundColor"), ground) >= 3


async def test_no_view_breaks_a_rule_in_japanese(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    await a_lively_group(web, a, b)
    alice = await people.sign_in(a, web.edges[0], locale="ja-JP", reduced_motion="reduce")
    page = alice.page
    await alice.open("Everything")
    assert await faults(page) == [], "conversation"
    await page.get_by_role("button", name="詳細", exact=True).click()
    await expect(page.locator("#panel .people li")).to_have_count(2)
    assert await faults(page) == [], "details"
    await page.locator("#main .replies").click()
    await expect(alice.thread.locator(".message")).to_have_count(2)
    assert await faults(page) == [], "thread"
    await page.locator(".me").click()
    await expect(alice.dialog).to_be_visible()
    assert await faults(page) == [], "settings"
    await page.keyboard.press("Escape")
    await page.locator("#sidebar .new").click()
    await expect(alice.dialog).to_be_visible()
    assert await faults(page) == [], "new conversation"
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("nothing like it")
    assert await faults(page) == [], "search"


async def test_the_first_screen_and_a_phone(people: People, web: Site) -> None:
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/")
    await expect(page.get_by_label("Your name")).to_be_visible()
    assert await faults(page) == []
    a, b = names("alice", "bob")
    await a_lively_group(web, a, b)
    alice = await people.sign_in(a, web.edges[0], size=PHONE, is_mobile=True, has_touch=True)
    await expect(alice.chat("Everything")).to_be_visible()
    assert await faults(alice.page) == []
    await alice.chat("Everything").tap()
    await expect(alice.message("Hello you")).to_be_visible()
    assert await faults(alice.page) == []


async def test_what_arrives_is_read_out(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("Hello")
    await bob.open(a)
    await bob.write("**Good** morning")
    await expect(alice.page.locator("#live")).to_have_text(f"{b}: Good morning")
