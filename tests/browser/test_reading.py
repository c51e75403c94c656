"""Messages as they are read: long ones, those from right to left, what can be done with them."""

import pytest
from playwright.async_api import FloatRect, Locator, expect

from tests.browsers import People, needs_chromium
from tests.chat import Clients, names
from tests.filesite import Web
from tests.pictures import noise, picture
from tests.servers import Site

pytestmark = [pytest.mark.anyio, needs_chromium]

LINES = "\n".join(f"line {number} of many" for number in range(500))

RANGE = """element => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const { x, y, width, height } = range.getBoundingClientRect();
    return { x, y, width, height };
}"""


async def box(where: Locator) -> FloatRect:
    found = await where.bounding_box()
    assert found is not None
    return found


async def test_a_long_message_is_folded_and_its_tools_stay_in_sight(
    people: People, web: Site
) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        await bob.say(a, "before")
        await bob.say(a, LINES)
        alice = await people.sign_in(a, web.edges[0])
        await alice.open(b)
        row = alice.message("line 0 of many")
        await expect(row).to_contain_text("line 39 of many")
        await expect(row).not_to_contain_text("line 40 of many")
        await expect(alice.message("before")).to_have_count(1)

        last = alice.page.locator("#main .text p").last
        await row.get_by_role("button", name="Show all").scroll_into_view_if_needed()
        before = await box(last)
        await row.get_by_role("button", name="Show all").click()
        await expect(row).to_contain_text("line 499 of many")
        await expect(row).to_be_focused()
        after = await box(last)
        # It grows below; what was read stays where it is.
        assert after["y"] == pytest.approx(before["y"], abs=2)
        assert after["height"] > 5 * before["height"]

        scroller = alice.page.locator("#main .scroller")
        await scroller.evaluate("element => element.scrollTop += 4000")
        await alice.page.mouse.move(700, 400)
        await expect(row.get_by_role("button", name="More")).to_be_in_viewport(ratio=1)
        await alice.choose(row, "Reply")
        await expect(alice.page.locator(".composer .context")).to_contain_text("line 0")

        await alice.button("To the newest").click()
        await bob.say(a, "after")
        await expect(alice.message("after")).to_be_in_viewport()


async def test_tools_do_not_cover_what_is_written_from_the_right(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        for text in ("שלום", "שלום עולם", "مرحبا hello 123", "from the left"):
            await bob.say(a, text)
    alice = await people.sign_in(a, web.edges[0])
    await alice.open(b)
    for text in ("שלום", "שלום עולם", "مرحبا hello 123", "from the left"):
        row = alice.message(text).last
        await row.hover()
        tools = await box(row.locator(".tools"))
        words: FloatRect = await row.locator(".text p").evaluate(RANGE)
        assert (
            tools["x"] + tools["width"] <= words["x"]
            or words["x"] + words["width"] <= tools["x"]
            or tools["y"] + tools["height"] <= words["y"]
        ), text


async def test_only_the_message_below_the_pointer_shows_its_tools(
    people: People, web: Site
) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    one, two = await alice.say("first"), await alice.say("second")
    await alice.page.keyboard.press("Control+ArrowUp")
    await expect(two).to_be_focused()
    await expect(two.locator(".tools")).to_have_css("opacity", "1")
    await one.hover()
    await expect(one.locator(".tools")).to_have_css("opacity", "1")
    await expect(two.locator(".tools")).to_have_css("opacity", "0")


async def test_lists_keep_their_levels_and_an_edit_is_said_beside_the_text(
    people: People, web: Site
) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.write("- one\n  - deep\n    1. deeper\n- two\n1. first\n\nafter it")
    row = alice.message("deeper")
    await expect(row.locator(".tick.sent, .tick.delivered")).to_have_count(1)
    text = row.locator(".text")
    await expect(text.locator(":scope > ul > li")).to_have_count(2)
    await expect(text.locator(":scope > ul > li > ul > li > ol > li")).to_have_text("deeper")
    await expect(text.locator(":scope > ol > li")).to_have_text("first")
    above, below = await box(text.locator(":scope > ol")), await box(text.locator(":scope > p"))
    assert below["y"] - above["y"] - above["height"] >= 6

    await alice.text.press("ArrowUp")
    await alice.write("short")
    await expect(alice.message("short").locator("p .edited")).to_have_text("(edited)")


async def test_a_thread_has_a_line_below_its_root(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        root = (await bob.say(a, "the root"))["message_id"]
        await bob.say(a, "an answer", thread=root)
    alice = await people.sign_in(a, web.edges[0])
    await alice.open(b)
    await alice.button("1 reply").click()
    rows = alice.thread.locator(".vlist-window > *")
    await expect(rows).to_have_count(4)  # with the day
    await expect(rows.nth(2)).to_have_text("1 reply")
    await expect(rows.nth(3).locator(".meta b")).to_have_text(b)


async def test_thin_pictures_can_be_hit_and_files_stand_at_their_height(
    people: People, web: Site
) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect, Web(web.edges[1], b) as files:
        bob = await connect(web.edges[1], b)
        chat = (await bob.say(a, "pictures"))["chat_id"]
        kept = [
            await files.upload(chat, picture("PNG", noise(60, 1500)), "tall.png"),
            await files.upload(chat, picture("PNG", noise(1500, 30)), "flat.png"),
            await files.upload(chat, b"words", "notes.txt"),
        ]
        await bob.say(a, "look", attachments=[each["id"] for each in kept])
    alice = await people.sign_in(a, web.edges[0])
    await alice.open(b)
    tall = await box(alice.button("Open image tall.png"))
    flat = await box(alice.button("Open image flat.png"))
    card = await box(alice.page.locator("#main .file"))
    assert min(tall["width"], flat["height"]) >= 60
    assert tall["height"] <= 290
    assert max(flat["height"], card["height"]) < 100
