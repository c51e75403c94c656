"""Groups and channels: made, talked in, and looked after in the browser."""

import pytest
from playwright.async_api import expect

from tests.browsers import People, Person, needs_chromium
from tests.chat import Clients, names
from tests.servers import Site

pytestmark = [pytest.mark.anyio, needs_chromium]


async def create(person: Person, name: str, *members: str, channel: bool = False) -> None:
    await person.button("New conversation").first.click()
    await person.dialog.get_by_role("tab", name="Group").click()
    await person.dialog.get_by_label("Name of the group").fill(name)
    field = person.dialog.get_by_role("textbox", name="Members")
    for member in members:
        await field.fill(member)
        await field.press("Enter")
        await expect(field).to_have_value("")
    if channel:
        await person.dialog.get_by_label("Make it a channel").check()
    await person.dialog.get_by_role("button", name="Create").click()
    await expect(person.page.locator("#main h1")).to_contain_text(name)


async def test_a_group_talks(people: People, web: Site) -> None:
    a, b, c = names("alice", "bob", "carol")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await create(alice, "Bridge builders", b, c)
    await expect(alice.page.locator("#main .bar small")).to_have_text("3 members")
    await expect(alice.page.locator("#main .notice")).to_have_text(
        f"{a} made the group and added {b} and {c}"
    )
    await bob.open("Bridge builders")
    await expect(bob.page.locator("#main .notice")).to_have_text(f"{a} added {b}")

    await alice.text.press_sequentially("Stones please, @")
    await expect(alice.page.get_by_role("option")).to_have_count(2)
    await alice.text.press_sequentially(b[:6])
    await alice.text.press("Tab")
    await expect(alice.text).to_have_value(f"Stones please, @{b} ")
    await alice.text.press("Enter")
    mention = bob.message("Stones please").locator(".mention.self")
    await expect(mention).to_have_text(f"@{b}")
    await bob.say("On their way")
    await expect(alice.message("On their way").locator(".meta b")).to_have_text(b)
    await expect(alice.message("Stones").locator(".tick.readby")).to_have_attribute(
        "aria-label", "Read by 1 of 2"
    )
    assert await alice.texts() == await bob.texts()


async def test_members_roles_name_and_leaving(people: People, web: Site) -> None:
    a, b, c = names("alice", "bob", "carol")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await create(alice, "Before", b)
    await bob.open("Before")
    await alice.button("Details", exact=True).click()
    panel = alice.page.locator("#panel")
    await expect(panel.get_by_role("listitem")).to_have_count(2)

    await panel.get_by_role("button", name="Rename").click()
    await alice.dialog.get_by_label("Name of the group").fill("After")
    await alice.dialog.get_by_role("button", name="Save").click()
    await expect(bob.page.locator("#main h1")).to_have_text("After")
    await expect(bob.page.locator("#main .notice").last).to_have_text(
        f"{a} named the group “After”"
    )

    await panel.get_by_role("button", name="Add people").click()
    await alice.dialog.get_by_role("textbox", name="Members").fill(c)
    await alice.dialog.get_by_role("button", name="Add people").click()
    await expect(panel.get_by_role("listitem")).to_have_count(3)

    await bob.button("Details", exact=True).click()
    theirs = bob.page.locator("#panel")
    await expect(theirs.get_by_role("listitem")).to_have_count(3)
    await expect(theirs.get_by_role("button", name="Rename")).to_have_count(0)
    await panel.get_by_role("button", name=f"More about {b}").click()
    await alice.page.get_by_role("menuitem", name="Make admin").click()
    await expect(theirs.get_by_role("button", name="Rename")).to_be_visible()
    await expect(bob.page.locator("#main .notice").last).to_have_text(f"{a} made {b} an admin")
    await expect(theirs.locator("li").filter(has_text=b).locator(".role")).to_have_text("Admin")

    await theirs.get_by_role("button", name=f"More about {c}").click()
    await bob.page.get_by_role("menuitem", name="Remove from group").click()
    await bob.dialog.get_by_role("button", name="Remove from group").click()
    await expect(panel.get_by_role("listitem")).to_have_count(2)

    await theirs.get_by_role("button", name="Mute").click()
    await expect(theirs.get_by_role("button", name="Unmute")).to_be_visible()
    await theirs.get_by_role("button", name="Leave").click()
    await bob.dialog.get_by_role("button", name="Leave").click()
    await expect(bob.chat("After")).to_have_count(0)
    await expect(bob.page.locator("#main h2")).to_have_text("Welcome")
    await expect(alice.page.locator("#main .notice").last).to_have_text(f"{b} left")


async def test_a_channel_is_joined_by_its_id(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await create(alice, "news", channel=True)
    await alice.say("Welcome")
    await alice.button("Details", exact=True).click()
    channel = await alice.page.locator("#panel .id code").inner_text()
    await bob.button("New conversation").first.click()
    await bob.dialog.get_by_role("tab", name="Join").click()
    await bob.dialog.get_by_label("Id of the channel").fill(channel)
    await bob.dialog.get_by_role("button", name="Join channel").click()
    await expect(bob.message("Welcome")).to_be_visible()
    await bob.say("Hello")
    await expect(alice.message("Hello")).to_be_visible()


async def test_what_is_refused_is_said(people: People, web: Site) -> None:
    (a,) = names("alice")
    alice = await people.sign_in(a, web.edges[0])
    await alice.button("New conversation").first.click()
    await alice.dialog.get_by_role("tab", name="Join").click()
    await alice.dialog.get_by_label("Id of the channel").fill("there-is-none")
    await alice.dialog.get_by_role("button", name="Join channel").click()
    await expect(alice.dialog.get_by_role("alert")).to_have_text("It does not exist, or no longer.")
    await alice.page.keyboard.press("Escape")
    await alice.page.goto(f"{alice.address}#/group.somewhere-else")
    await expect(
        alice.page.get_by_text("You are not a member of this conversation.")
    ).to_be_visible()


async def test_a_name_that_cannot_be_is_said_by_name(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await alice.button("New conversation").first.click()
    long = "a-name-that-nobody-has-" + "x" * 60
    await alice.dialog.get_by_label("Name of the person").fill(long)
    await alice.dialog.get_by_label("Name of the person").press("Enter")
    wrong = "“a-name-that-nobody-has-x…” is too long: at most 64 bytes, and this is 83."
    await expect(alice.dialog.get_by_role("alert")).to_have_text(wrong)

    await alice.dialog.get_by_role("tab", name="Group").click()
    await alice.dialog.get_by_label("Name of the group").fill("Odd names")
    field = alice.dialog.get_by_role("textbox", name="Members")
    await field.fill(f"{b}, {long},")
    await alice.dialog.get_by_role("button", name="Create").click()
    await expect(alice.dialog.get_by_role("alert")).to_have_text(wrong)
    await field.press("Backspace")
    await field.fill("tab\there")
    await alice.dialog.get_by_role("button", name="Create").click()
    await expect(alice.dialog.get_by_role("alert")).to_have_text(
        "“tab�here” has a character that names cannot have."
    )
    await field.fill("")
    await alice.dialog.get_by_role("button", name="Create").click()
    await expect(alice.page.locator("#main h1")).to_have_text("Odd names")


async def test_a_mention_in_full_leaves_the_enter_to_the_message(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    await create(alice, "Mentions", b, f"{b}-too")
    await alice.button("Details", exact=True).click()
    await expect(alice.page.locator("#panel").get_by_role("listitem")).to_have_count(3)
    await alice.text.press_sequentially(f"Hello @{b}")
    await expect(alice.page.get_by_role("option").first.locator("b")).to_have_text(b)
    await alice.text.press("Enter")
    await expect(alice.message("Hello").locator(".mention")).to_have_text(f"@{b}")
    await expect(alice.text).to_have_value("")


async def test_a_large_channel_is_followed_while_it_is_open(people: People, web: Site) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        owner = await connect(web.edges[0], b)
        members = [a, *names(*["m"] * 520)]
        group = await owner.group(*members, name="crowd", kind="channel")
        alice = await people.sign_in(a, web.edges[1])
        await alice.open("crowd")
        await owner.tell(group["group_id"], "seen live")
        await expect(alice.message("seen live")).to_be_visible()
        await alice.say("from one of many")
        await alice.talk_to(b)
        await owner.tell(group["group_id"], "while closed")
        await expect(alice.chat("crowd").locator(".badge")).to_contain_text("1")
        await alice.open("crowd")
        await expect(alice.message("while closed")).to_be_visible()
        assert await alice.texts() == ["seen live", "from one of many", "while closed"]
