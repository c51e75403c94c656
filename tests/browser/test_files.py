"""Files: chosen, dropped, pasted; how far they are; images inline, others to be saved."""

import io
from base64 import b64encode
from typing import Any

import pytest
from playwright.async_api import FilePayload, Locator, expect

from tests.browsers import LOST, People, Person, needs_chromium
from tests.chat import names
from tests.pictures import halves
from tests.websites import WebSite

pytestmark = [pytest.mark.anyio, needs_chromium]

GIVE = """(element, [event, name, type, data]) => {
    const given = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    given.items.add(new File([bytes], name, { type }));
    const way = event === 'paste' ? 'clipboardData' : 'dataTransfer';
    const Kind = event === 'paste' ? ClipboardEvent : DragEvent;
    element.dispatchEvent(
        new Kind(event, { [way]: given, bubbles: true, cancelable: true }));
}"""


def png(width: int = 800, height: int = 600) -> bytes:
    made = io.BytesIO()
    halves(width, height).save(made, "PNG")
    return made.getvalue()


def file(name: str, content_type: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": content_type, "buffer": data}


def item(person: Person, name: str) -> Locator:
    """A file that is about to go with a message."""
    return person.page.locator("#main .tray .item").filter(has_text=name)


async def give(where: Locator, event: str, name: str, content_type: str, data: bytes) -> None:
    await where.evaluate(GIVE, [event, name, content_type, b64encode(data).decode()])


async def choose(person: Person, *chosen: FilePayload) -> None:
    async with person.page.expect_file_chooser() as choosing:
        await person.button("Attach files").click()
    await (await choosing.value).set_files(list(chosen))


async def two(people: People, web: WebSite) -> tuple[Person, Person]:
    """Two people who look at their conversation."""
    a, b = names("alice", "bob")
    alice = await people.sign_in(a, web.edges[0])
    bob = await people.sign_in(b, web.edges[1])
    await alice.talk_to(b)
    await alice.say("Here it is")
    await bob.open(a)
    return alice, bob


async def test_an_image_is_seen_and_a_file_is_saved(people: People, web: WebSite) -> None:
    alice, bob = await two(people, web)
    notes = b"what was said\n" * 100
    await choose(
        alice, file("bridge.png", "image/png", png()), file("notes.txt", "text/plain", notes)
    )
    await expect(item(alice, "bridge.png").locator("img")).to_be_visible()
    await expect(alice.page.locator("#main .tray .item.done")).to_have_count(2)
    await alice.say("The bridge and the notes")

    await expect(alice.page.locator("#main .tray")).to_have_count(0)
    row = bob.message("The bridge")
    picture = row.get_by_role("button", name="Open image bridge.png")
    await bob.until("document.querySelector('#main .image img')?.naturalWidth > 0")
    shown = await picture.bounding_box()
    assert shown is not None
    assert shown["width"] / shown["height"] == pytest.approx(800 / 600, rel=0.02)
    # What is shown is the thumbnail, which has fewer pixels.
    wide = await picture.locator("img").evaluate("image => image.naturalWidth")
    assert wide < 800

    await picture.click()
    await bob.until("document.querySelector('.lightbox img')?.naturalWidth === 800")
    await bob.page.keyboard.press("Escape")
    await expect(bob.page.get_by_role("dialog")).to_have_count(0)

    async with bob.page.expect_download() as downloading:
        await row.get_by_role("button", name="notes.txt").click()
    download = await downloading.value
    assert download.suggested_filename == "notes.txt"
    path = await download.path()
    assert path.read_bytes() == notes
    await expect(bob.chat(alice.name).locator(".preview")).to_have_text("The bridge and the notes")

    await bob.page.reload()
    await bob.online()
    await bob.until("document.querySelector('#main .image img')?.naturalWidth > 0")


async def test_dropped_and_pasted(people: People, web: WebSite) -> None:
    alice, bob = await two(people, web)
    main = alice.page.locator("#main")
    await give(main, "dragenter", "map.png", "image/png", png())
    await expect(alice.page.locator("#main[data-drop]")).to_have_count(1)
    await give(main, "drop", "map.png", "image/png", png())
    await expect(alice.page.locator("#main[data-drop]")).to_have_count(0)
    await expect(item(alice, "map.png")).to_have_class("item done")
    await expect(alice.text).to_be_focused()
    await give(alice.text, "paste", "image.png", "image/png", png(300, 200))
    await expect(item(alice, "image.png")).to_have_class("item done")
    # Without a word, too.
    await alice.text.press("Enter")
    await expect(bob.page.locator("#main .image img")).to_have_count(2)
    await expect(alice.page.locator("#main .message .tick.waiting")).to_have_count(0)
    await expect(bob.chat(alice.name).locator(".preview")).to_have_text("File")


async def test_a_large_file_says_how_far_it_is_and_goes_on_after_a_cut(
    people: People, web: WebSite
) -> None:
    """Sent in two parts, the first of which is cut off once."""
    people.allowed = LOST
    alice, bob = await two(people, web)
    cut = 0

    async def parts(route: Any) -> None:
        nonlocal cut
        cut += 1
        if cut == 1:
            await route.abort()
        else:
            await route.continue_()

    # How far it is, as it is shown: every value, since it is quick here.
    await alice.page.evaluate(
        """() => {
            window.shown = new Set();
            const look = () => {
                const bar = document.querySelector('#main .tray progress');
                if (bar) shown.add(bar.value);
            };
            new MutationObserver(look).observe(
                document.querySelector('#main .composer'),
                { subtree: true, childList: true, attributes: true });
            const { prototype } = HTMLProgressElement;
            const { get, set } = Object.getOwnPropertyDescriptor(prototype, 'value');
            Object.defineProperty(prototype, 'value',
                { get, set(value) { shown.add(value); set.call(this, value); } });
        }"""
    )
    await alice.page.route("**/v1/files/tus/*", parts)
    data = bytes(range(256)) * 20_000  # 5 MB
    await choose(alice, file("recording.bin", "application/octet-stream", data))
    await expect(item(alice, "recording.bin").get_by_role("progressbar")).to_be_visible()
    await expect(alice.button("Send")).to_be_disabled()
    await expect(item(alice, "recording.bin")).to_have_class("item done")
    assert cut > 2
    shown = await alice.page.evaluate("[...shown]")
    assert all(0 <= each <= 1 for each in shown)
    assert len(shown) > 2
    assert max(shown) == 1
    await alice.text.press("Enter")
    card = bob.page.locator("#main .file")
    await expect(card).to_contain_text("recording.bin")
    async with bob.page.expect_download() as downloading:
        await card.click()
    path = await (await downloading.value).path()
    assert path.read_bytes() == data


async def test_a_file_can_be_taken_out_and_one_that_is_too_large_says_so(
    people: People, web: WebSite
) -> None:
    alice, bob = await two(people, web)
    await alice.page.evaluate(
        """() => {
            const { get } = Object.getOwnPropertyDescriptor(Blob.prototype, 'size');
            Object.defineProperty(Blob.prototype, 'size',
                { get() { return this.name === 'huge.bin' ? 1e15 : get.call(this); } });
        }"""
    )
    await choose(
        alice,
        file("huge.bin", "application/octet-stream", b"x"),
        file("one.txt", "text/plain", b"one"),
        file("two.txt", "text/plain", b"two"),
    )
    await expect(item(alice, "huge.bin")).to_contain_text("This is too large.")
    await item(alice, "huge.bin").get_by_role("button", name="Remove huge.bin").click()
    await item(alice, "one.txt").get_by_role("button", name="Remove one.txt").click()
    await expect(item(alice, "two.txt")).to_have_class("item done")
    await alice.write("Only one")
    await expect(bob.message("Only one").locator(".file")).to_have_count(1)
    await expect(bob.message("Only one").locator(".file")).to_contain_text("two.txt")
