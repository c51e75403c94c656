"""Narrow and wide screens, keyboard alone, languages and appearance, and how it begins."""

import pytest
from playwright.async_api import Page, expect

from tests.browsers import PHONE, TABLET, People, needs_chromium
from tests.chat import Clients, names
from tests.servers import Site, token

pytestmark = [pytest.mark.anyio, needs_chromium]


async def focused(page: Page) -> str:
    """What has the focus, in the words of a screen reader."""
    found: str = await page.evaluate(
        "document.activeElement.ariaLabel || document.activeElement.innerText"
    )
    return found


async def test_a_phone_shows_one_thing_at_a_time(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0], size=PHONE, is_mobile=True, has_touch=True)
    bob = await people.sign_in(b, web.edges[1])
    await bob.talk_to(a)
    await bob.say("Hello")
    main, side = alice.page.locator("#main"), alice.page.locator("#sidebar")
    await expect(main).to_be_hidden()
    await alice.chat(b).tap()
    await expect(alice.message("Hello")).to_be_visible()
    await expect(side).to_be_hidden()
    await expect(alice.text).not_to_be_focused()  # or the keyboard would cover half of it

    await alice.text.fill("line one")
    await alice.text.press("Enter")
    await alice.text.press_sequentially("line two")
    await alice.button("Send").tap()
    await expect(bob.message("line one")).to_have_count(1)
    assert (await bob.texts())[-1] == "line one\nline two"

    await alice.message("Hello").tap()
    await alice.message("Hello").get_by_role("button", name="Reply in thread").tap()
    await expect(alice.thread).to_be_visible()
    await alice.page.go_back()
    await expect(alice.thread).to_have_count(0)
    await alice.button("Details", exact=True).tap()
    await expect(alice.page.locator("#panel h3")).to_have_text(b)
    await alice.button("Close").tap()
    await alice.button("Back").tap()
    await expect(side).to_be_visible()
    await expect(main).to_be_hidden()
    wide = await alice.page.evaluate("document.documentElement.scrollWidth")
    assert wide == PHONE["width"]


async def test_a_tablet_shows_list_and_conversation(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0], size=TABLET, reduced_motion="reduce")
    await alice.talk_to(b)
    await alice.say("Hello")
    await expect(alice.chat(b)).to_be_visible()
    await expect(alice.message("Hello")).to_be_visible()
    await alice.button("Details", exact=True).click()
    await expect(alice.page.locator("#panel h3")).to_have_text(b)
    panel = await alice.page.locator("#panel").bounding_box()
    assert panel is not None
    assert round(panel["x"] + panel["width"]) == TABLET["width"]


async def test_everything_by_keyboard(people: People, web: Site) -> None:
    a, b, c = names("alice", "bob", "carol")
    async with Clients() as connect:
        for each in (b, c):
            sender = await connect(web.edges[1], each)
            await sender.say(a, f"Hello from {each}")
    alice = await people.sign_in(a, web.edges[0])
    press, page = alice.page.keyboard.press, alice.page
    await expect(alice.chat(b)).to_be_visible()

    await press("Control+k")
    await page.keyboard.type(c[:8])
    await press("Enter")
    await expect(page.locator("#main h1")).to_have_text(c)
    await expect(alice.text).to_be_focused()
    await press("Alt+ArrowDown")
    await expect(page.locator("#main h1")).to_have_text(b)
    await press("Alt+ArrowUp")
    await expect(page.locator("#main h1")).to_have_text(c)

    await page.keyboard.type("Frist")
    await press("Enter")
    await expect(alice.message("Frist")).to_be_visible()
    await expect(alice.page.locator(".tick.sent, .tick.delivered")).to_have_count(1)
    await press("ArrowUp")
    await expect(alice.text).to_have_value("Frist")
    await press("Control+a")
    await page.keyboard.type("First")
    await press("Enter")
    await expect(alice.message("First")).to_contain_text("(edited)")

    await press("Control+ArrowUp")
    await expect(alice.message("First")).to_be_focused()
    await press("ArrowUp")
    await expect(alice.message("Hello from")).to_be_focused()
    await press("+")
    await expect(page.get_by_label("Search emoji")).to_be_focused()
    await page.keyboard.type("tada")
    await press("ArrowDown")
    await press("Enter")
    await expect(alice.message("Hello from").locator(".reactions button").first).to_have_text("🎉1")
    await expect(alice.message("Hello from")).to_be_focused()
    await press("r")
    await expect(alice.text).to_be_focused()
    await expect(page.locator(".composer .context")).to_contain_text(f"Replying to {c}")
    await press("Escape")
    await expect(page.locator(".composer .context")).to_have_count(0)
    await press("Control+ArrowUp")
    await press("t")
    await expect(page.locator("#panel textarea")).to_be_focused()
    await press("Escape")
    await expect(page.locator("#panel")).to_be_hidden()

    await press("Control+ArrowUp")
    await press("m")
    await expect(page.get_by_role("menuitem").first).to_be_focused()
    await press("ArrowDown")
    assert await focused(page) == "Reply in thread"
    await press("Escape")
    await expect(page.get_by_role("menu")).to_have_count(0)
    await press("Delete")
    await expect(alice.dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await press("Tab")
    await press("Enter")
    await expect(page.locator("#main .gone")).to_have_count(1)
    await press("Control+/")
    await expect(alice.dialog.get_by_role("heading")).to_have_text("Keyboard shortcuts")
    await press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_japanese(people: People, web: Site) -> None:
    a, b = names("花子", "太郎")
    hanako = await people.sign_in(a, web.edges[0], locale="ja-JP")
    await expect(hanako.pill).to_have_text("最新")
    await expect(hanako.page.locator("html")).to_have_attribute("lang", "ja")
    await hanako.button("新しい会話").first.click()
    await hanako.dialog.get_by_label("相手の名前").fill(b)
    await hanako.dialog.get_by_label("相手の名前").press("Enter")
    await hanako.say("こんにちは")
    # An Enter that ends a conversion belongs to the input method.
    await hanako.text.fill("へんかんちゅう")
    await hanako.text.evaluate(
        """element => element.dispatchEvent(new KeyboardEvent('keydown',
            {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"""
    )
    await expect(hanako.text).to_have_value("へんかんちゅう")
    await expect(hanako.messages).to_have_count(1)
    await expect(hanako.chat(b).locator(".preview")).to_have_text("自分: こんにちは")
    await hanako.button("設定").click()
    await hanako.dialog.get_by_text("English").click()
    await expect(hanako.pill).to_have_text("Caught up")
    await hanako.page.reload()
    await expect(hanako.pill).to_have_text("Caught up")


async def test_the_appearance_is_chosen_and_kept(people: People, web: Site) -> None:
    (a,) = names("alice")
    alice = await people.sign_in(a, web.edges[0], color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = await alice.page.evaluate(ground)
    await alice.button("Settings").click()
    await alice.dialog.get_by_text("Dark").click()
    dark = await alice.page.evaluate(ground)
    assert dark != light
    await alice.page.reload()
    assert await alice.page.evaluate(ground) == dark
    await alice.online()
    await alice.button("Settings").click()
    await alice.dialog.get_by_text("System").click()
    assert await alice.page.evaluate(ground) == light


async def test_drafts_stay(people: People, web: Site) -> None:
    a, b, c = names("alice", "bob", "carol")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.say("Hello")
    await alice.text.press_sequentially("half a thou")
    await alice.talk_to(c)
    await expect(alice.chat(b).locator(".preview")).to_have_text("Draft: half a thou")
    await expect(alice.text).to_have_value("")
    await alice.until(
        """async name => (await new Promise(done => {
            indexedDB.open(name).onsuccess = ({target: {result}}) => {
                result.transaction('records').objectStore('records').getAll().onsuccess =
                    event => { result.close(); done(event.target.result); };
            };
        })).some(each => each.draft === 'half a thou')""",
        f"hikyaku/{a}",
    )
    await alice.page.reload()
    await alice.open(b)
    await expect(alice.text).to_have_value("half a thou")


async def test_the_first_screen_says_what_to_do(people: People, web: Site) -> None:
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/")
    await expect(page.get_by_label("Your name")).to_be_focused()
    await page.get_by_role("button", name="Sign in with a token").click()
    await page.get_by_label("Token").fill("rubbish")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("alert")).to_have_text(
        "This is not a token. It has three parts with dots between them."
    )
    (a,) = names("alice")
    await page.get_by_label("Token").fill(token(a))
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.locator(".pill")).to_have_text("Caught up")
    await expect(page.get_by_text("No conversations yet")).to_be_visible()


async def test_names_and_links_that_cannot_be_are_said(people: People, web: Site) -> None:
    page = await people.page()
    address = f"http://127.0.0.1:{web.edges[0].port}/"
    await page.goto(f"{address}#token=abc.def.ghi")
    alert = page.get_by_role("alert")
    await expect(alert).to_have_text("The token of the link cannot be read. Ask for a new link.")
    for name, size in (("x" * 65, 65), ("あ" * 22, 66)):
        await page.get_by_label("Your name").fill(name)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await expect(alert).to_contain_text(f"is too long: at most 64 bytes, and this is {size}.")
    (a,) = names("alice")
    await page.get_by_label("Your name").fill(a)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.locator(".pill")).to_have_text("Caught up")
    # One who is signed in stays so.
    await page.goto(f"{address}?again#token=abc.def.ghi")
    await expect(page.locator("#toasts")).to_contain_text("cannot be read")
    await expect(page.locator(".pill")).to_have_text("Caught up")


async def test_one_who_is_new_is_offered_one_thing(people: People, web: Site) -> None:
    (a,) = names("alice")
    alice = await people.sign_in(a, web.edges[0])
    await expect(alice.page.get_by_text("No conversations yet")).to_be_visible()
    await expect(alice.page.locator(".button.primary")).to_have_count(1)
    await expect(alice.page.locator("#main h2")).to_have_text("Welcome")
    await alice.talk_to(a)
    await alice.say("a note")
    await alice.page.goto(f"{alice.address}#/")
    await expect(alice.page.locator("#main h2")).to_have_text("Choose a conversation")
    await expect(alice.page.locator(".button.primary")).to_have_count(0)


async def test_what_is_said_stands_above_dialogs_and_in_the_language(
    people: People, web: Site
) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.say("Hello")
    await alice.button("Settings").click()
    await alice.dialog.get_by_role("button", name="Save").click()
    toast = alice.page.locator(".toast")
    await expect(toast).to_have_text("Saved")
    on_top = "element => element.closest('#toasts').matches(':popover-open')"
    assert await toast.evaluate(on_top)
    await alice.dialog.get_by_text("日本語").click()
    await expect(toast).to_have_count(0)
    await expect(alice.page.locator("#main .vlist")).to_have_attribute("aria-label", "メッセージ")


async def test_emoji_by_their_exact_name_come_first(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.talk_to(b)
    await alice.button("Emoji").click()
    await alice.page.get_by_label("Search emoji").fill("heart")
    await expect(alice.page.locator(".emoji .grid button").first).to_have_text("❤️")
    await alice.page.get_by_label("Search emoji").press("Enter")
    await expect(alice.text).to_have_value("❤️")
