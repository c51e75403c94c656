"""`hikyaku.js` by itself, as another page would use it: without a network, then with one."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browsers import LOST, People, needs_chromium
from tests.chat import Clients, names
from tests.edges import extra_edge
from tests.servers import Site, token

pytestmark = [pytest.mark.anyio, needs_chromium]


@pytest.fixture
async def page(people: People, web: Site) -> Page:
    """A page of the server on which nothing is connected."""
    page = await people.page()
    await page.goto(f"http://127.0.0.1:{web.edges[0].port}/")
    return page


async def run(page: Page, script: str, /, **values: Any) -> Any:
    """Run the body of a function that may import, and give what it returns."""
    return await page.evaluate(
        f"async ({{{', '.join(values)}}}) => {{ const load = (name) => import(`/web/${{name}}`);"
        f" {script} }}",
        values,
    )


async def test_ids_are_encoded_as_the_server_does(page: Page) -> None:
    ids = ["alice", "a.b", "佐藤 花子", "x=y", "*>", "🚀"]
    found = await run(
        page,
        """const { encodeId, decodeId, dmChatId, addressee, groupChatId } =
            await load('hikyaku.js');
        return {
            encoded: ids.map(encodeId),
            decoded: ids.map(encodeId).map(decodeId),
            dm: [dmChatId('b', 'a'), dmChatId('a', 'b'), dmChatId('Z', 'a.b')],
            to: [addressee(dmChatId('me', 'a b'), 'me'), addressee(groupChatId('g 1'), 'me')],
        };""",
        ids=ids,
    )
    assert found["encoded"][:3] == ["alice", "a=2Eb", "=E4=BD=90=E8=97=A4=20=E8=8A=B1=E5=AD=90"]
    assert found["decoded"] == ids
    assert found["dm"] == ["dm.a.b", "dm.a.b", "dm.Z.a=2Eb"]
    assert found["to"] == [{"to": "a b"}, {"group_id": "g 1"}]


@pytest.mark.parametrize(
    ("code", "failures", "refusals", "renews", "expected"),
    [
        (4003, 1, 0, True, None),
        (4009, 1, 0, True, None),
        (4001, 1, 1, False, None),
        (4001, 1, 1, True, (0, True)),
        (4002, 2, 2, True, (500, True)),
        (4001, 5, 4, True, None),
        (4200, 1, 0, False, (0, False)),
        (4208, 3, 0, False, (1000, False)),
        (4101, 1, 0, False, (500, False)),
        (4101, 3, 0, False, (2000, False)),
        (4101, 30, 0, False, (15_000, False)),
        (1006, 1, 0, False, (250, False)),
        (1012, 2, 0, False, (500, False)),
        (1006, 30, 0, False, (15_000, False)),
        (4129, 1, 0, False, (5500, False)),
    ],
)
async def test_what_follows_a_close(
    page: Page,
    code: int,
    failures: int,
    refusals: int,
    renews: bool,
    expected: tuple[int, bool] | None,
) -> None:
    found = await run(
        page,
        """const { afterClose } = await load('hikyaku/policy.js');
        return afterClose({ code, reason: '{"retry_after_ms":5000}' },
                          { failures, refusals, canRenew, chance: 0.5 });""",
        code=code,
        failures=failures,
        refusals=refusals,
        canRenew=renews,
    )
    if expected is None:
        assert found == {"stop": True}
    else:
        assert found == {"stop": False, "delayMs": expected[0], "newToken": expected[1]}


async def test_the_outbox_keeps_each_chat_in_order(page: Page) -> None:
    found = await run(
        page,
        """const { Outbox } = await load('hikyaku/outbox.js');
        const outbox = new Outbox(), steps = [];
        const add = (key, lane) => outbox.add(
            { key, lane, frame: { client_id: key }, order: outbox.entries.size, durable: true });
        const due = (now) => steps.push(outbox.takeDue(now).map((entry) => entry.key));
        add('a1', 'a'); add('a2', 'a'); add('b1', 'b');
        due(0); due(0);
        outbox.refused({ client_id: 'a1', code: 'unavailable', retry_after_ms: 100 }, 0);
        due(50); due(100);
        outbox.answered('a1'); due(100);
        outbox.disconnected(); due(100);
        outbox.refused({ client_id: 'a2', code: 'too_large' }, 100);
        add('a3', 'a'); due(100);
        outbox.answered('b1'); outbox.answered('a3');
        outbox.again('a2', 99); due(100);
        outbox.refused({ client_id: 'a2', code: 'rate_limited', retry_after_ms: 1000 }, 100);
        add('c1', 'c'); due(500); due(1100); due(1100); due(1160);
        return steps;""",
    )
    assert found == [
        ["a1", "b1"],
        [],
        [],
        ["a1"],
        ["a2"],
        ["a2", "b1"],
        ["a3"],
        ["a2"],
        [],
        ["c1"],
        [],
        ["a2"],
    ]


async def test_only_some_questions_are_open_at_once(page: Page) -> None:
    found = await run(
        page,
        """const { Outbox } = await load('hikyaku/outbox.js');
        const outbox = new Outbox();
        for (let n = 0; n < 12; n++) {
            outbox.add({ key: `q${n}`, lane: `q${n}`, frame: {}, order: n, deadline: 1000 });
        }
        const first = outbox.takeDue(0).length;
        outbox.answered('q0'); outbox.answered('q1');
        const then = outbox.takeDue(0).map((entry) => entry.key);
        return { first, then, over: outbox.expired(1000).length, left: outbox.entries.size };""",
    )
    assert found == {"first": 8, "then": ["q8", "q9"], "over": 10, "left": 0}


async def test_the_tracker_resumes_where_a_catch_up_began(page: Page) -> None:
    found = await run(
        page,
        """const { Tracker } = await load('hikyaku/tracker.js');
        const tracker = new Tracker('e:10'), seen = [];
        const chat = (seq, id = seq, client = seq) =>
            ({ type: 'chat', seq, id: `${id}`, client_id: `c${client}`, from: 'a' });
        const step = (value) => seen.push(value);
        step(tracker.welcome({ epoch: 'e', cursor: 'e:30' }));
        step(tracker.admit(chat(11))); step(tracker.admit(chat(12)));
        step(tracker.cursor);                     // the catch-up has not ended
        tracker.ended();
        tracker.welcome({ epoch: 'e', cursor: 'e:40' });
        step(tracker.admit(chat(12)));            // it begins anew
        step(tracker.admit(chat(13, 13, 11)));    // stored twice by the server
        step(tracker.admit({ type: 'typing' }));
        step(tracker.caughtUp({ cursor: 'e:40', recovered: true }).recovered);
        step(tracker.cursor);
        step(tracker.admit(chat(41))); step(tracker.cursor);
        tracker.ended();
        tracker.welcome({ epoch: 'f', cursor: 'f:5' });
        step(tracker.admit(chat(3, 99)));         // another log
        step(tracker.caughtUp({ cursor: 'f:5', recovered: true }).recovered);
        step(tracker.cursor);
        return seen;""",
    )
    assert found == [
        *(True, True, True, "e:10", False, False, True, True, "e:40"),
        *(True, "e:41", True, False, "f:5"),
    ]


async def test_a_catch_up_that_never_gets_further_is_given_up(page: Page) -> None:
    found = await run(
        page,
        """const { Tracker } = await load('hikyaku/tracker.js');
        const tracker = new Tracker('e:10'), cursors = [];
        for (let n = 0; n < 5; n++) {
            tracker.welcome({ epoch: 'e', cursor: 'e:30' });
            tracker.admit({ type: 'reaction', seq: 11 });
            tracker.ended();
            cursors.push(tracker.cursor);
        }
        tracker.welcome({ epoch: 'e', cursor: 'e:30' });
        return [cursors, tracker.caughtUp({ cursor: 'e:30', recovered: true }).recovered];""",
    )
    assert found == [["e:10", "e:10", "e:10", "e:11", "e:11"], False]


async def test_another_page_talks_with_a_few_lines(page: Page, web: Site) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        bob = await connect(web.edges[1], b)
        asked = run(
            page,
            """const { Client } = await load('hikyaku.js');
            const client = new Client({ url: '/', token: async () => jwt });
            const states = [];
            client.on('state', ({ phase }) => states.push(phase));
            await client.start();
            const sent = client.send({ to: b, content: 'from a page' });
            const ack = await client.acked(sent);
            const answer = await new Promise((resolve) => client.on('chat', (message) => {
                if (message.from === b) resolve(message);
            }));
            const { messages } = await client.request('history', { chat_id: ack.chat_id });
            const refused = await client.request('history', { chat_id: 'group.x' })
                .catch((error) => [error.name, error.code, error.retryable]);
            const late = client.request('chats', {}, { deadlineMs: 0 }).catch(({ code }) => code);
            client.stop();
            return { states, answer: answer.content, refused, late: await late,
                     history: messages.map((message) => message.content) };""",
            b=b,
            jwt=token(a),
        )
        asking = asyncio.ensure_future(asked)
        await bob.until("chat", content="from a page")
        await bob.say(a, "from a terminal")
        found = await asking
    assert found == {
        "states": ["connecting", "online", "closed"],
        "answer": "from a terminal",
        "refused": ["HikyakuError", "not_member", False],
        "late": "no_answer",
        "history": ["from a terminal", "from a page"],
    }


class Blank(http.server.BaseHTTPRequestHandler):
    """Somebody else's page."""

    def do_GET(self) -> None:
        body = b"<!doctype html><link rel=icon href='data:,'><title>elsewhere</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a page of another origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join(5)


async def test_a_page_of_another_origin_imports_it(
    people: People, web: Site, elsewhere: str, tmp_path: Path
) -> None:
    (a,) = names("alice")
    people.allowed = LOST
    page = await people.page()
    await page.goto(elsewhere)
    talk = """async ({ server, jwt }) => {
        const { Client } = await import(`${server}web/hikyaku.js`);
        const client = new Client({ url: server, token: jwt });
        const last = new Promise((resolve) => client.on('state', ({ phase, code }) => {
            if (phase === 'online' || phase === 'stopped') resolve([phase, code]);
        }));
        await client.start();
        const found = await last;
        client.stop();
        return found;
    }"""
    here = {"server": f"http://127.0.0.1:{web.edges[0].port}/", "jwt": token(a)}
    assert await page.evaluate(talk, here) == ["stopped", 4003]
    async with extra_edge(web, tmp_path / "edge", origins=elsewhere.rstrip("/")) as edge:
        there = {"server": f"http://127.0.0.1:{edge.port}/", "jwt": token(a)}
        assert await page.evaluate(talk, there) == ["online", None]


async def test_it_needs_no_page(people: People, web: Site, elsewhere: str) -> None:
    """Imported by a worker, which has neither `window` nor `document`."""
    page = await people.page()
    await page.goto(elsewhere)
    found = await page.evaluate(
        """async (server) => {
            const source = `
                const loading = import(${JSON.stringify(server + 'web/hikyaku.js')});
                loading.then(({ Client, dmChatId }) => {
                    const client = new Client({ url: 'https://chat.example.org/', token: 'x' });
                    const sent = client.send({ to: 'bob', content: 'kept' });
                    const types = [typeof document, typeof window, sent.state];
                    postMessage([...types, dmChatId('alice', 'bob')]);
                }, (error) => postMessage(String(error)));`;
            const blob = new Blob([source], { type: 'text/javascript' });
            const worker = new Worker(URL.createObjectURL(blob), { type: 'module' });
            return await new Promise((resolve) => {
                worker.onmessage = ({ data }) => resolve(data);
            });
        }""",
        f"http://127.0.0.1:{web.edges[0].port}/",
    )
    assert found == ["undefined", "undefined", "waiting", "dm.alice.bob"]


async def test_who_is_mentioned(page: Page) -> None:
    found = await run(
        page,
        """const { mentioned } = await load('app/markdown.js');
        const names = ['anna', 'anna-maria', 'bob', '太郎'];
        return ['@anna-maria and @bob', '@anna, @anna-maria', 'anna@bob', '@太郎さん', 'nobody']
            .map((text) => mentioned(text, names).sort());""",
    )
    assert found == [["anna-maria", "bob"], ["anna", "anna-maria"], ["bob"], ["太郎"], []]
