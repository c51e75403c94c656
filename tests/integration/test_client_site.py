"""The client against a real site: what it promises, over real edges."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from client import Ack, CaughtUp, ChatEvent, Client, GroupChatEvent, MemoryCursorStore, errors
from client.terminal.app import ChatApp
from tests.servers import Hikyaku, Nats, Site, eventually, token

pytestmark = pytest.mark.anyio


async def contents(client: Client, count: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            event = await anext(client)
            if isinstance(event, ChatEvent | GroupChatEvent):
                found.append(event.content)
    return found


async def test_two_users_on_two_edges(site: Site) -> None:
    one, two = site.edges
    async with (
        Client(one.url, token("sdk-a"), user="sdk-a") as alice,
        Client(two.url, token("sdk-b"), user="sdk-b") as bob,
    ):
        ack = await alice.send("sdk-b", "hello")
        assert await contents(bob, 1) == ["hello"]
        again = await alice.send("sdk-b", "hello", client_id=ack.client_id)
        assert (again.seq, again.message_id, again.duplicate) == (ack.seq, ack.message_id, True)
        await bob.typing(to="sdk-a")


async def test_a_conflict_tells_where_the_chat_is(site: Site) -> None:
    async with Client(site.edges[0].url, token("sdk-p")) as client:
        ack = await client.send("sdk-q", "first")
        with pytest.raises(errors.Conflict) as conflict:
            await client.send("sdk-q", "late", expect_seq=ack.seq + 1)
        assert conflict.value.seq == ack.seq
        assert (await client.send("sdk-q", "in time", expect_seq=ack.seq)).seq > ack.seq


async def test_many_sends_keep_their_order_through_the_rate_limit(site: Site) -> None:
    """More than the burst at once: the rest is refused, waits, and still comes in order."""
    async with (
        Client(site.edges[0].url, token("sdk-c")) as carol,
        Client(site.edges[1].url, token("sdk-d")) as dave,
    ):
        wanted = [f"message {n}" for n in range(100)]
        sending = [asyncio.create_task(carol.send("sdk-d", text)) for text in wanted]
        assert await contents(dave, 100) == wanted
        acks: list[Ack] = list(await asyncio.gather(*sending))
        assert [a.seq for a in acks] == sorted(a.seq for a in acks)


async def test_what_was_missed_comes_with_the_cursor(site: Site) -> None:
    store = MemoryCursorStore()
    async with Client(site.edges[0].url, token("sdk-e"), cursor_store=store):
        pass
    async with Client(site.edges[1].url, token("sdk-f")) as frank:
        for n in range(20):
            await frank.send("sdk-e", f"missed {n}")
    async with Client(site.edges[1].url, token("sdk-e"), cursor_store=store) as eve:
        assert await contents(eve, 20) == [f"missed {n}" for n in range(20)]
        async with asyncio.timeout(10):
            end = await anext(eve)
        assert isinstance(end, CaughtUp)
        assert end.recovered
        assert end.missing == []


async def test_a_strange_cursor_is_told(site: Site) -> None:
    store = MemoryCursorStore("another-log:5")
    async with Client(site.edges[0].url, token("sdk-g"), cursor_store=store) as client:
        async with asyncio.timeout(10):
            event = await anext(client)
        assert isinstance(event, CaughtUp)
        assert not event.recovered


async def test_groups(site: Site) -> None:
    async with (
        Client(site.edges[0].url, token("sdk-h")) as owner,
        Client(site.edges[1].url, token("sdk-i")) as member,
    ):
        group = await owner.create_group("Team", ["sdk-i"], group_id="sdk-team")
        assert (group.name, group.kind, group.created_by) == ("Team", "group", "sdk-h")
        await owner.send_group("sdk-team", "welcome")
        assert await contents(member, 1) == ["welcome"]
        await member.send_group("sdk-team", "thanks")
        page = await member.members("sdk-team")
        assert [(m.user_id, m.role) for m in page.members] == [
            ("sdk-h", "owner"),
            ("sdk-i", "member"),
        ]
        assert (await owner.update_group("sdk-team", name="Us")).name == "Us"
        assert (await member.group_info("sdk-team")).name == "Us"
        with pytest.raises(errors.NotAllowed):
            await member.add_members("sdk-team", ["sdk-x"])
        with pytest.raises(errors.DuplicateGroup):
            await member.create_group("Again", group_id="sdk-team")
        with pytest.raises(errors.NotFound):
            await member.join("sdk-nowhere")
        await owner.remove_members("sdk-team", ["sdk-i"])
        with pytest.raises(errors.NotMember):
            await member.send_group("sdk-team", "still here?")
        await owner.leave("sdk-team")
        await owner.create_group("News", group_id="sdk-news", kind="channel")
        assert (await member.join("sdk-news")).kind == "channel"
        await member.leave("sdk-news")


async def test_tokens(site: Site) -> None:
    url = site.edges[0].url
    with pytest.raises(errors.Unauthorized):
        async with Client(url, "forged"):
            pytest.fail("must not get here")
    with pytest.raises(errors.Forbidden):
        async with Client(url, token("sdk-j"), user="sdk-k"):
            pytest.fail("must not get here")
    async with Client(url, token("sdk-j")) as client:
        await client.refresh(token("sdk-j", 7200))
        with pytest.raises(errors.NotAllowed):
            await client.refresh("forged")
        await client.send("sdk-k", "still online")


async def test_a_token_that_expires_is_fetched_anew(site: Site) -> None:
    lives = [2.0, 3600.0]
    fetched: list[float] = []

    def fetch() -> str:
        fetched.append(lives[len(fetched)])
        return token("sdk-l", fetched[-1])

    async with Client(site.edges[0].url, fetch) as client:
        async with Client(site.edges[1].url, token("sdk-m")) as other:
            async with asyncio.timeout(15):
                while len(fetched) < 2 or client.state.phase != "online":
                    await other.send("sdk-l", "tick")
            await other.send("sdk-l", "the end")
        async with asyncio.timeout(15):
            seqs: list[int] = []
            while True:
                event = await anext(client)
                if isinstance(event, ChatEvent):
                    seqs.append(event.seq)
                    if event.content == "the end":
                        break
        assert seqs == sorted(set(seqs))


async def test_the_example_in_the_docs(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "client.md"
    code = page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    example: dict[str, Any] = {}
    exec(code.split("asyncio.run(")[0], example)
    echo = asyncio.create_task(example["main"](site.edges[0].url, token("echo")))
    async with Client(site.edges[1].url, token("sdk-r")) as client:
        await eventually(lambda: (tmp_path / "echo.cursor").exists())
        await client.send("echo", "hello")
        assert await contents(client, 2) == ["hello", "You said: hello"]
    echo.cancel()
    await asyncio.wait([echo])
    assert echo.cancelled()


async def test_the_terminal_client(site: Site) -> None:
    app = ChatApp(site.edges[0].url, token("sdk-n"), "sdk-n")
    async with Client(site.edges[1].url, token("sdk-o")) as other, app.run_test() as pilot:
        async with asyncio.timeout(20):
            while app.client.state.phase != "online":
                await pilot.pause(0.01)
            await pilot.press(*"/dm sdk-o", "enter", *"hello", "enter")
            assert await contents(other, 1) == ["hello"]
            await other.send("sdk-n", "hello back")
            while "hello back" not in str(app.query_one("#lines").render()):
                await pilot.pause(0.01)
        assert "✓" in str(app.query_one("#lines").render())


async def test_kills_lose_nothing_and_show_nothing_twice(fresh_site: Site) -> None:
    """While messages go both ways: kill -9 of each edge, and of NATS."""
    site = fresh_site
    await site.start()
    steps: dict[int, Hikyaku | Nats] = {10: site.edges[0], 22: site.nats, 34: site.edges[1]}
    wanted = [f"message {n}" for n in range(45)]

    async def talk(client: Client, to: str, breaking: bool) -> list[int]:
        seqs = []
        for n, text in enumerate(wanted):
            if breaking and n in steps:
                steps[n].process.kill()
                await steps[n].start()
            seqs.append((await client.send(to, text, deadline_s=60)).seq)
        return seqs

    async with (
        Client(site.edges[0].url, token("a")) as alice,
        Client(site.edges[1].url, token("b")) as bob,
        asyncio.timeout(90),
    ):
        talking = [
            asyncio.create_task(talk(alice, "b", True)),
            asyncio.create_task(talk(bob, "a", False)),
        ]
        heard = await asyncio.gather(contents_and_seqs(alice), contents_and_seqs(bob))
        acked = await asyncio.gather(*talking)
    assert heard[0] == heard[1], "both see one order"
    assert [seq for _, seq in heard[0]] == sorted(acked[0] + acked[1])
    assert sorted(text for text, _ in heard[0]) == sorted(wanted * 2)


async def contents_and_seqs(client: Client) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while len(found) < 90:
        event = await anext(client)
        if isinstance(event, ChatEvent):
            found.append((event.content, event.seq))
    return found
