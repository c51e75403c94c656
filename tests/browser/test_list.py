"""The list of messages: 10,000 of them, with heights that nobody knows before they are seen."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browsers import People, needs_chromium
from tests.chat import Clients, names
from tests.websites import WebSite

pytestmark = [pytest.mark.anyio, needs_chromium]

ROWS = 10_000
FEW = 500
SLACK_MS = 4

SET_UP = """async (count) => {
    const [{ VirtualList }, { h }] = await Promise.all(
        [import('/web/app/vlist.js'), import('/web/app/dom.js')]);
    const scroller = document.createElement('div');
    scroller.className = 'scroller';
    scroller.style.cssText = 'position: fixed; inset: 0; height: 600px; width: 500px';
    document.body.replaceChildren(scroller);
    const words = (n) => 'word '.repeat(1 + (n * 7919) % 60);
    window.rows = (from, to) => Array.from({ length: to - from }, (_, at) =>
        ({ key: `k${from + at}`, text: `${from + at}: ${words(from + at)}` }));
    window.list = new VirtualList({
        scroller,
        label: () => 'rows',
        estimate: () => 30,
        render: (row) => h('div.row', null, row.text),
        moved: (near) => { window.near = near; },
    });
    window.frame = () => new Promise(requestAnimationFrame);
    window.place = (key) => list.element(key)?.getBoundingClientRect().top;
    list.set(rows(0, count));
    await frame();
}"""


@pytest.fixture
async def page(people: People, web: WebSite) -> Page:
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/")
    await expect(page.get_by_label("Your name")).to_be_visible()
    await page.evaluate(SET_UP, ROWS)
    return page


async def run(page: Page, script: str) -> Any:
    return await page.evaluate(f"async () => {{ {script} }}")


async def test_it_begins_at_the_end_and_draws_only_what_is_seen(page: Page) -> None:
    assert await run(page, "return list.window.children.length") < 120
    await expect(page.get_by_text("9999: ")).to_be_in_viewport()
    assert await run(page, "return near") == {"start": False, "end": True, "atEnd": True}


SCROLL = """const times = [], order = [];
    let drawn = 0;
    while (list.scroller.scrollTop > 0) {
        list.scroller.scrollTop -= 2500;
        const before = performance.now();
        list.scroller.dispatchEvent(new Event('scroll'));
        list.scroller.getBoundingClientRect();
        times.push(performance.now() - before);
        drawn = Math.max(drawn, list.window.children.length);
        const keys = [...list.window.children].map((each) => Number(each.dataset.key.slice(1)));
        order.push(keys.every((key, at) => !at || key === keys[at - 1] + 1));
        if (times.length % 20 === 0) await frame();
    }
    times.sort((a, b) => a - b);
    return { steps: times.length, middle: times[times.length >> 1], drawn,
             ordered: order.every(Boolean), near };"""


async def test_ten_thousand_rows_scroll_as_smoothly_as_five_hundred(page: Page) -> None:
    """How long a step takes depends on the machine; that it takes no longer does not."""
    many = await run(page, SCROLL)
    await run(page, f"list.set(rows({ROWS}, {ROWS} + {FEW})); list.toEnd(); await frame();")
    few = await run(page, SCROLL)
    assert many["steps"] > 100
    for found in (many, few):
        assert found["ordered"]
        assert found["drawn"] < 250
        assert found["near"]["start"]
    assert many["middle"] < 3 * few["middle"] + SLACK_MS


async def test_what_one_looks_at_stays_when_older_rows_come(page: Page) -> None:
    found = await run(
        page,
        """list.set(rows(5000, 6000));
        list.to('k5010', 'start');
        await frame();
        const before = place('k5010');
        list.set(rows(4000, 6000));
        await frame();
        const after = place('k5010');
        list.scroller.scrollTop -= 400; await frame(); await frame();
        return { before, after, moved: place('k5010') - after };""",
    )
    assert found["after"] == pytest.approx(found["before"], abs=1)
    assert found["moved"] == pytest.approx(400, abs=1)


async def test_the_end_is_kept_in_sight_only_by_who_is_there(page: Page) -> None:
    found = await run(
        page,
        """list.set(rows(0, 10010));
        await frame();
        const followed = place('k10009') < 600;
        list.scroller.scrollTop -= 900; await frame(); await frame();
        const key = list.window.children[8].dataset.key, before = place(key);
        list.set(rows(0, 10020));
        await frame();
        return { followed, stayed: place(key) - before, near };""",
    )
    assert found["followed"]
    assert found["stayed"] == pytest.approx(0, abs=1)
    assert not found["near"]["atEnd"]


async def test_a_row_that_grows_moves_nothing_above_it(page: Page) -> None:
    found = await run(
        page,
        """list.to('k5000', 'start'); await frame();
        const before = place('k5000');
        list.element('k4997').style.paddingTop = '300px';
        await frame(); await frame(); await frame();
        return { there: Boolean(list.element('k4997')), moved: place('k5000') - before };""",
    )
    assert found["there"]
    assert found["moved"] == pytest.approx(0, abs=1)


async def test_any_row_can_be_gone_to(page: Page) -> None:
    for key in ("k0", "k9999", "k1234", "k8765"):
        top = await run(page, f"list.to('{key}'); await frame(); return place('{key}')")
        assert 0 <= top < 600, key
    assert not await run(page, "return list.to('k-1')")


async def test_a_long_conversation_is_read_to_its_beginning(people: People, web: WebSite) -> None:
    a, b = names("alice", "bob")
    sent = [f"message {number}" + " and more" * (number % 40) for number in range(1500)]
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        for number, text in enumerate(sent):
            await bob.send("chat", to=a, content=text, client_id=f"{b}{number}")
        await bob.until("ack", client_id=f"{b}{len(sent) - 1}")
    alice = await people.sign_in(a, web.edges[0])
    await alice.open(b)
    # Messages are unread: the view begins where they do, or at the oldest that is here.
    await expect(alice.messages.first).to_be_visible()
    order = await alice.page.evaluate(
        """async () => {
            const scroller = document.querySelector('#main .scroller');
            const seen = new Map();
            let still = 0;
            while (!document.querySelector('#main .start') || still < 3) {
                scroller.scrollTop -= 1500;
                await new Promise(requestAnimationFrame);
                let before = null;
                for (const each of document.querySelectorAll('#main .message .text')) {
                    const number = Number(/message (\\d+)/.exec(each.innerText)[1]);
                    if (before !== null && number !== before + 1) return [before, number];
                    seen.set(before = number, each.innerText);
                }
                still = document.querySelector('#main .start') ? still + 1 : 0;
            }
            return { first: Math.min(...seen.keys()), text: seen.get(0) };
        }"""
    )
    assert order == {"first": 0, "text": sent[0]}
