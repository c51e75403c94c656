"""Pictures of the web client for the documentation, of a team that moves its office.

    python -m tests.screenshots

starts a site, fills it, and writes `docs/screenshots/*.png`.
"""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter
from playwright.async_api import Browser, Locator, Page, expect

from .browsers import DESKTOP, PHONE, Person, chromium
from .chat import Chat, Clients, Frame
from .filesite import Web
from .mirror import until
from .push_server import Authority
from .push_services import PushService
from .servers import token
from .websites import WebSite

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
MAX_BYTES = 150_000

MIKA, SOTA, PRIYA, JONAS, LEA = "Mika Tanaka", "Sota Ito", "Priya Nair", "Jonas Weber", "Léa Martin"
KEN = "佐藤 健"

CODE = """Both edges are on the new switch. To see it from your desk:
```
$ hikyaku doctor
nats     3 of 3, leader nats-2
mongod   primary, lag 0.0 s
edges    2 ready, 41 connections
```"""


def view_of_the_harbour() -> bytes:
    """A picture somebody took from the new office, or nearly."""
    wide, high = 960, 600
    picture = Image.new("RGB", (wide, high))
    draw = ImageDraw.Draw(picture)
    for y in range(high):
        part = y / high
        sky = (int(252 - 70 * part), int(206 - 60 * part), int(160 + 40 * part))
        sea = (int(60 + 40 * part), int(96 + 40 * part), int(130 + 20 * part))
        draw.line([(0, y), (wide, y)], fill=sky if part < 0.55 else sea)
    draw.ellipse([640, 170, 740, 270], fill=(255, 238, 200))
    hills = [(0, 330), (120, 270), (260, 300), (420, 240), (600, 310), (780, 260), (960, 320)]
    draw.polygon([*hills, (960, 332), (0, 332)], fill=(122, 112, 140))
    picture = picture.filter(ImageFilter.GaussianBlur(2))
    draw = ImageDraw.Draw(picture)
    for n in range(26):
        y = 345 + n * 9
        half = 20 + n * 5
        shift = n * 37 % 23 - 11
        draw.line([(690 - half + shift, y), (690 + half + shift, y)], fill=(236, 196, 160), width=2)
    draw.rectangle([0, 480, 960, 600], fill=(52, 50, 66))
    for n, tall in enumerate((150, 96, 190, 120, 80, 168, 110, 140, 90)):
        left = n * 112 - 20
        shade = 40 + n * 5 % 17
        draw.rectangle([left, 520 - tall, left + 92, 600], fill=(shade, shade - 2, shade + 16))
        for row in range(tall // 26):
            for column in range(4):
                if (n + row * 3 + column * 5) % 3:
                    x, y = left + 12 + column * 20, 530 - tall + row * 24
                    draw.rectangle([x, y, x + 8, y + 11], fill=(250, 214, 150))
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=88)
    return made.getvalue()


class Office:
    """The people, and what they have said so far."""

    def __init__(self, site: WebSite, connect: Clients):
        self.site = site
        self._connect = connect
        self.at: dict[str, Chat] = {}
        self.group: dict[str, Any] = {}
        self.root = ""

    async def talk(self) -> None:
        for name in (MIKA, SOTA, PRIYA, JONAS, LEA, KEN):
            self.at[name] = await self._connect(self.site.edges[1], name)
        at = self.at
        news = await at[LEA].group(MIKA, JONAS, PRIYA, name="announcements", kind="channel")
        await at[LEA].tell(news["group_id"], "The canteen is closed on Friday for the move.")
        release = await at[PRIYA].group(MIKA, SOTA, name="Release 2.4")
        await at[PRIYA].tell(release["group_id"], "Translations are in. **Tagging at noon.**")
        await at[KEN].say(MIKA, "金曜日の15時で大丈夫です。よろしくお願いします！")
        await at[JONAS].say(MIKA, "Thanks for the keys, I left them at the front desk.")
        last = await at[MIKA].say(JONAS, "Perfect, see you there")
        await self._read(last, MIKA, JONAS)
        await at[LEA].say(MIKA, "Could you look over the lease before Thursday?")
        await at[LEA].say(MIKA, "Page 4 is the one that matters.")
        await self._harbour()

    async def _harbour(self) -> None:
        at = self.at
        members = (MIKA, SOTA, PRIYA, JONAS, LEA)
        self.group = group = await at[SOTA].group(*members[:1], *members[2:], name="Harbour office")
        where, chat = group["group_id"], group["chat_id"]
        root = await at[SOTA].tell(
            where, "Who is in on *Thursday* for the last boxes? I count **34**, and one plant."
        )
        self.root = root["message_id"]
        await at[PRIYA].tell(where, "I can take the morning, until 11.")
        await at[JONAS].tell(where, "Afternoon for me. I bring the van.")
        for name, emoji in ((JONAS, "👍"), (PRIYA, "👍"), (LEA, "👍"), (MIKA, "🪴")):
            await at[name].write("react", chat_id=chat, message_id=self.root, emoji=emoji)
        async with Web(self.site.edges[0], LEA) as web:
            picture = await web.upload(chat, view_of_the_harbour(), "from-the-roof.jpg")
        view = await at[LEA].tell(
            where, "The view from the roof at seven this morning", attachments=[picture["id"]]
        )
        for name, emoji in ((MIKA, "😍"), (SOTA, "😍"), (PRIYA, "🌅")):
            await at[name].write("react", chat_id=chat, message_id=view["message_id"], emoji=emoji)
        await at[MIKA].tell(where, "I move in today.", reply_to=view["message_id"])
        for name, text in (
            (MIKA, "The plant rides with me, no discussion."),
            (JONAS, "Is there a lift for the printer?"),
            (SOTA, "There is, behind the kitchen. Ask for the key at the front desk."),
        ):
            await at[name].tell(where, text, thread=self.root)
        code = await at[JONAS].tell(where, CODE)
        await at[MIKA].write("react", chat_id=chat, message_id=code["message_id"], emoji="🎉")
        await at[PRIYA].tell(
            where, f"@{MIKA} the floor plan is at https://plan.example/harbour", mentions=[MIKA]
        )
        last = await at[MIKA].tell(where, "Got it, I will mark the desks tonight.")
        await self._read(last, *members)

    async def _read(self, last: Frame, *names: str) -> None:
        seen = {"chat_id": last["chat_id"], "last_read_msg_id": last["message_id"]}
        for name in names:
            answer = await self.at[name].ask("read_receipt", **seen)
            assert answer["type"] == "result", answer


async def save(page: Page, name: str) -> None:
    """Small enough for a repository: with fewer colours if need be."""
    await page.evaluate("document.fonts.ready")
    await page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(await page.screenshot(animations="disabled"))).convert("RGB")
    path = FOLDER / f"{name}.png"
    shot.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        fewer_colours(shot).save(path, optimize=True)
    assert path.stat().st_size < MAX_BYTES, path
    print(path.name, path.stat().st_size)


def fewer_colours(shot: Image.Image) -> Image.Image:
    """With a palette: half of it the colours that cover most, exactly, so that those of the client
    stay what they are; the other half for what is left."""
    found: list[tuple[int, tuple[int, int, int]]] = shot.getcolors(shot.width * shot.height)  # type: ignore[assignment]
    most = [colour for _, colour in sorted(found, reverse=True)[:128]]
    rest = shot.quantize(128).getpalette()
    assert rest is not None
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in most for part in colour] + rest)
    return shot.quantize(palette=palette, dither=Image.Dither.NONE)


@asynccontextmanager
async def signed_in(
    browser: Browser, site: WebSite, size: dict[str, int], **options: Any
) -> AsyncIterator[Person]:
    options = {"locale": "en-GB", "timezone_id": "Asia/Tokyo", **options}
    context = await browser.new_context(viewport=size, reduced_motion="reduce", **options)  # type: ignore[arg-type]
    page = await context.new_page()
    address = f"http://127.0.0.1:{site.edges[0].port}/"
    await page.goto(f"{address}#token={token(MIKA)}")
    person = Person(MIKA, page, address)
    await person.online()
    yield person
    await context.close()


async def in_harbour(person: Person) -> None:
    await person.chat("Harbour office").click()
    await expect(person.message("mark the desks")).to_be_visible()
    await person.until("document.querySelector('#main .image img')?.naturalWidth > 0")


async def desktop(browser: Browser, site: WebSite, office: Office) -> None:
    for scheme in ("light", "dark"):
        async with signed_in(browser, site, DESKTOP, color_scheme=scheme) as mika:
            await in_harbour(mika)
            await save(mika.page, f"conversation-{scheme}")
            if scheme == "dark":
                continue
            await mika.page.evaluate("document.querySelector('#main .scroller').scrollTop = 0")
            await mika.page.get_by_role("button", name="3 replies").click()
            await expect(mika.thread.locator(".message")).to_have_count(4)
            await save(mika.page, "thread")
            await mika.button("Close").click()
            await mika.button("Details", exact=True).click()
            await expect(mika.page.locator("#panel .people li")).to_have_count(5)
            await save(mika.page, "group")
            await mika.button("Close").click()
            await search_for(mika, "desk", hits=4)
            await hits_of(mika).filter(has_text="mark the").first.click()
            await expect(mika.message("mark the desks")).to_be_in_viewport()
            await expect(mika.page.locator("#main .flash")).to_have_count(0)
            await save(mika.page, "search")


def hits_of(person: Person) -> Locator:
    return person.page.locator("#sidebar .hit")


async def search_for(person: Person, words: str, *, hits: int) -> None:
    """Search until the index has it all."""
    field = person.page.get_by_role("searchbox")

    async def found() -> bool:
        await field.fill("")
        await field.fill(words)
        await expect(person.page.locator(".results section, .results .empty").first).to_be_visible()
        return await hits_of(person).count() >= hits

    await until(found)


async def small(browser: Browser, site: WebSite) -> None:
    phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    async with signed_in(browser, site, PHONE, **phone) as mika:
        await expect(mika.chat("Harbour office")).to_be_visible()
        await save(mika.page, "phone-list")
    async with signed_in(browser, site, PHONE, color_scheme="dark", **phone) as mika:
        await in_harbour(mika)
        await save(mika.page, "phone-conversation")


async def japanese(browser: Browser, site: WebSite) -> None:
    async with signed_in(browser, site, DESKTOP, locale="ja-JP") as mika:
        await mika.chat(KEN).click()
        await expect(mika.message("金曜日")).to_be_visible()
        await mika.say("ありがとうございます。会議室を予約しておきます。")
        await mika.page.get_by_role("button", name="詳細", exact=True).click()
        await expect(mika.page.locator("#panel h3").first).to_be_visible()
        await save(mika.page, "japanese")


async def first_screen(browser: Browser, site: WebSite) -> None:
    context = await browser.new_context(viewport=DESKTOP, locale="en-GB")  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{site.edges[0].port}/")
    await page.get_by_label("Your name").fill("Mika Tanaka")
    await save(page, "sign-in")
    await context.close()


async def main(folder: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    authority = Authority(folder / "ca")
    push = PushService(authority, folder)
    async with push, Clients() as connect:
        site = WebSite(folder, authority, push)
        try:
            await site.start()
            office = Office(site, connect)
            await office.talk()
            async with chromium() as browser:
                await first_screen(browser, site)
                await desktop(browser, site, office)
                await small(browser, site)
                await japanese(browser, site)
        finally:
            site.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(main(Path(home)))
