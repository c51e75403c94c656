"""Two people talk: messages, changes of messages, what each sees of the other."""

import pytest
from playwright.async_api import expect

from tests.browsers import People, needs_chromium
from tests.chat import names
from tests.servers import Site

pytestmark = [pytest.mark.anyio, needs_chromium]


async def test_two_people_on_two_edges(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("Are you there?")

    await expect(bob.chat(a).locator(".badge")).to_contain_text("1")
    await expect(bob.chat(a).locator(".preview")).to_have_text("Are you there?")
    await expect(bob.page).to_have_title("(1) Hikyaku")
    await bob.open(a)
    await expect(bob.message("Are you there?")).to_be_visible()
    await expect(bob.chat(a).locator(".badge")).to_have_count(0)
    await expect(bob.page).to_have_title("Hikyaku")
    await expect(alice.message("Are you there?").locator(".tick.read")).to_have_count(1)

    await bob.text.press_sequentially("Yes")
    await expect(alice.page.locator("#main .typing")).to_have_text("typing …")
    await bob.text.press("Enter")
    await expect(alice.message("Yes")).to_be_visible()
    await expect(alice.page.locator("#main .typing")).to_have_text("")
    assert await alice.texts() == await bob.texts() == ["Are you there?", "Yes"]
    await expect(alice.page.locator("#main .bar small")).to_have_text("Online")


async def test_edit_delete_and_react(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    row = await alice.say("The frist draft")
    await bob.open(a)

    await alice.choose(row, "Edit")
    await expect(alice.text).to_have_value("The frist draft")
    await alice.write("The first draft")
    await expect(bob.message("The first draft")).to_contain_text("(edited)")
    await expect(bob.chat(a).locator(".preview")).to_have_text("The first draft")

    await bob.choose(bob.message("The first draft"), "React")
    await bob.page.get_by_role("button", name="thumbsup").click()
    reaction = alice.message("The first draft").locator(".reactions button").first
    await expect(reaction).to_have_text("👍1")
    await expect(reaction).to_have_attribute("aria-pressed", "false")
    await reaction.click()
    await expect(bob.message("The first draft").locator(".reactions button").first).to_have_text(
        "👍2"
    )
    await reaction.click()
    await expect(bob.message("The first draft").locator(".reactions button").first).to_have_text(
        "👍1"
    )

    await alice.choose(alice.message("The first draft"), "More")
    await alice.page.get_by_role("menuitem", name="Delete").click()
    await alice.dialog.get_by_role("button", name="Delete").click()
    await expect(bob.page.locator("#main .gone")).to_have_text("This message was deleted")
    await expect(bob.chat(a).locator(".preview")).to_have_text("This message was deleted")

    await bob.page.reload()
    await bob.online()
    await expect(bob.page.locator("#main .gone")).to_have_count(1)


async def test_nobody_edits_what_another_one_wrote(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("Mine")
    await bob.open(a)
    row = bob.message("Mine")
    await row.hover()
    await expect(row.locator(".tools button")).to_have_count(4)
    await expect(row.locator(".tools").get_by_role("button", name="Edit")).to_have_count(0)
    await bob.choose(row, "More")
    await expect(bob.page.get_by_role("menuitem", name="Copy text")).to_be_visible()
    await expect(bob.page.get_by_role("menuitem", name="Delete")).to_have_count(0)


async def test_replies_and_threads(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    root = await alice.say("Where shall we meet?")
    await bob.open(a)

    await bob.choose(bob.message("Where shall"), "Reply")
    await expect(bob.page.locator(".composer .context")).to_contain_text(f"Replying to {a}")
    await bob.write("At the bridge")
    answer = alice.message("At the bridge")
    await expect(answer.locator(".quote")).to_contain_text("Where shall we meet?")
    await answer.locator(".quote").click()
    await expect(root).to_be_focused()

    await bob.choose(bob.message("Where shall").first, "Reply in thread")
    writing = bob.thread.locator("textarea")
    await expect(writing).to_be_focused()
    await writing.fill("Or at the station?")
    await writing.press("Enter")
    await expect(bob.thread.locator(".message")).to_have_count(2)
    # A thread hangs from the top, and what one writes has room.
    top = await bob.thread.locator(".message").first.bounding_box()
    assert top is not None
    assert top["y"] < 150
    room = await writing.bounding_box()
    assert room is not None
    assert room["height"] > 30
    replies = alice.page.get_by_role("button", name="1 reply")
    await expect(replies).to_be_visible()
    await expect(alice.messages).to_have_count(2)
    await replies.click()
    await expect(alice.thread.locator(".message").last).to_contain_text("Or at the station?")
    await alice.thread.locator("textarea").fill("Station it is")
    await alice.thread.locator("textarea").press("Enter")
    await expect(bob.thread.locator(".message").last).to_contain_text("Station it is")
    await expect(bob.page.get_by_role("button", name="2 replies")).to_be_visible()

    await bob.page.reload()
    await bob.online()
    await expect(bob.thread.locator(".message")).to_have_count(3)
    await bob.page.keyboard.press("Escape")
    await expect(bob.thread).to_have_count(0)


async def test_what_is_new_is_marked_and_read_on_all_devices(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    phone = await people.sign_in(b, web.edges[0])
    await bob.talk_to(a)
    await bob.say("Hello")
    await bob.page.get_by_role("button", name="New conversation").click()  # looks elsewhere
    await bob.dialog.get_by_label("Name of the person").fill(b)
    await bob.dialog.get_by_label("Name of the person").press("Enter")
    await alice.open(b)
    for number in range(1, 41):
        await alice.write(f"News {number}")
    await expect(alice.message("News 40").locator(".tick.waiting")).to_have_count(0)

    await expect(bob.chat(a).locator(".badge")).to_contain_text("40")
    await expect(phone.chat(a).locator(".badge")).to_contain_text("40")
    await bob.chat(a).click()
    await expect(bob.page.locator("#main .day.new")).to_be_in_viewport()
    await expect(bob.message("News 40")).not_to_be_in_viewport()
    await expect(bob.chat(a).locator(".badge")).to_contain_text("40")
    await bob.page.get_by_role("button", name="40 new messages").click()
    await expect(bob.message("News 40")).to_be_in_viewport()
    await expect(bob.chat(a).locator(".badge")).to_have_count(0)
    await expect(phone.chat(a).locator(".badge")).to_have_count(0)
    await expect(alice.message("News 40").locator(".tick.read")).to_have_count(1)


async def test_status_and_last_seen(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("Hello")
    head = alice.page.locator("#main .bar small")
    await expect(head).to_have_text("Online")

    await bob.page.get_by_role("button", name="Settings").click()
    await bob.dialog.get_by_label("Status text").fill("At lunch")
    await bob.dialog.get_by_label("Status text").press("Enter")
    await expect(head).to_have_text("At lunch")
    await bob.dialog.get_by_text("Do not disturb").click()
    await expect(alice.page.locator("#main .bar .dot.dnd")).to_be_visible()
    await bob.dialog.get_by_text("Invisible").click()
    await expect(alice.page.locator("#main .bar .dot")).to_have_count(0)
    await expect(bob.page.locator(".me .dot.invisible")).to_have_count(1)
