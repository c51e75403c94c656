"""Search on a whole site: over WebSocket and HTTP, for those who may and for nobody else."""

import time
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from broker import subjects
from client import Client
from store.config import StoreConfig
from store.database import connect as connect_database
from tests.chat import Chat, Clients, Frame, names
from tests.integration.test_http_twins import call
from tests.searching import SearchSite, found, search, until_found
from tests.servers import token

pytestmark = pytest.mark.anyio

MARK, UNMARK = "\ue000", "\ue001"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SearchSite]:
    site = SearchSite(
        tmp_path_factory.mktemp("search"),
        HIKYAKU_MESSAGES_PER_S="1000",
        HIKYAKU_MESSAGES_BURST="1000",
    )
    try:
        await site.start()
        yield site
    finally:
        site.stop()


def word() -> str:
    """A word that nobody else writes, and that is not like any other one."""
    return "".join("bcdfghjklmnpqrst"[int(digit, 16)] for digit in uuid4().hex[:12])


async def change(client: Chat, type: str, ack: Frame, **fields: Any) -> None:
    about = {"chat_id": ack["chat_id"], "message_id": ack["message_id"]}
    done = await client.write(type, **about, **fields)
    assert done["type"] == "ack", done


async def test_both_find_a_message_as_history_has_it(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        began = time.monotonic()
        said = await a.say(bob, f"The {secret} is ready", mentions=[bob])
        await until_found(b, secret, [said["message_id"]])
        assert time.monotonic() - began < 10
        await b.write("react", chat_id=said["chat_id"], message_id=said["message_id"], emoji="👍")
        await a.say(bob, "an answer", thread=said["message_id"])
        for client in (a, b):
            page = await client.ask("history", chat_id=said["chat_id"])
            (hit,) = (await search(client, secret))["hits"]
            assert hit.pop("highlight") == f"The {MARK}{secret}{UNMARK} is ready"
            assert hit == page["messages"][1]
            assert hit["reactions"] == {"👍": [bob]}
            assert hit["replies"] == 1


async def test_signs_alone_find_nothing(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, f"{secret} !!! 😀")
        await until_found(a, secret, [said["message_id"]])
        for signs in ("!!!", "😀", "-", "\0", '"', "、"):
            found = await search(a, signs)
            assert (found["hits"], found["total"]) == ([], 0), signs
        assert (await search(a, " "))["total"] == 1


async def test_by_http_and_by_the_client(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, f"{secret} by two ways")
        await until_found(a, secret, [said["message_id"]])
    asked = urllib.parse.urlencode(
        {"query": secret, "from": alice, "chat_id": said["chat_id"], "limit": 5, "since": 1}
    )
    status, page = await call(site.edges[1], f"/v1/search?{asked}", bob)
    assert status == 200
    assert (page["total"], [hit["id"] for hit in page["hits"]]) == (1, [said["message_id"]])
    async with Client(site.edges[0].url, token(bob), user=bob) as client:
        found = await client.search(secret, from_=alice, since=1, until=2**50)
        (hit,) = found.hits
        assert (found.total, hit.id, hit.content) == (
            1,
            said["message_id"],
            f"{secret} by two ways",
        )
        assert [part.text for part in hit.parts if part.found] == [secret]


async def test_nobody_else_finds_it(site: SearchSite) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    secret = word()
    async with Clients() as connect:
        a, c = await connect(site.edges[0], alice), await connect(site.edges[1], carol)
        group = await a.group(bob)
        said = [
            await a.say(bob, f"{secret} for two"),
            await a.tell(group["group_id"], f"{secret} for the group"),
        ]
        ids = [each["message_id"] for each in said]
        await until_found(a, secret, ids)
        mine = await c.say(alice, "of carol")
        await until_found(c, "carol", [mine["message_id"]])
        nothing = await search(c, secret)
        assert (nothing["hits"], nothing["total"]) == ([], 0)
        assert await found(c, secret, **{"from": alice}) == []
        for each in said:
            refused = await c.ask("search", query=secret, chat_id=each["chat_id"])
            assert (refused["type"], refused["code"]) == ("error", "not_member")
            status, _ = await call(
                site.edges[0],
                f"/v1/search?query={secret}&chat_id={urllib.parse.quote(each['chat_id'])}",
                carol,
            )
            assert status == 403


async def test_a_group_counts_while_one_is_in_it(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        group = await a.group()
        said = await a.tell(group["group_id"], secret)
        await until_found(a, secret, [said["message_id"]])
        assert await found(b, secret) == []
        for _ in range(3):
            await a.ask("group_add", group_id=group["group_id"], users=[bob])
            assert await found(b, secret) == [said["message_id"]]
            assert await found(b, secret, chat_id=group["chat_id"]) == [said["message_id"]]
            await b.ask("group_leave", group_id=group["group_id"])
            assert await found(b, secret) == []
            refused = await b.ask("search", query=secret, chat_id=group["chat_id"])
            assert refused["code"] == "not_member"


async def test_names_that_differ_in_case_only(site: SearchSite) -> None:
    """Meilisearch would not tell these chats and users apart."""
    (low,) = names("team")
    high = low.upper()
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], f"{low}-a"), await connect(site.edges[1], f"{high}-A")
        await a.group(group_id=low)
        await b.group(group_id=high)
        mine, theirs = await a.tell(low, secret), await b.tell(high, secret)
        await until_found(a, secret, [mine["message_id"]])
        await until_found(b, secret, [theirs["message_id"]])
        both = [mine["message_id"], theirs["message_id"]]
        await a.ask("group_add", group_id=low, users=[b.user])
        await until_found(b, secret, both)
        assert await found(b, secret, **{"from": a.user}) == [mine["message_id"]]
        assert await found(b, secret, **{"from": b.user}) == [theirs["message_id"]]


@pytest.mark.parametrize(
    "hostile",
    [
        'x" OR chat EXISTS OR from = "x',
        "x' OR 1=1 --",
        "backslash at the end \\",
        '\\" OR at > 0 OR from = \\"',
        '"] OR chat NOT IN ["',
        "*",
        "$ne",
        "' || true || '",
    ],
)
async def test_injection_finds_nothing_more(site: SearchSite, hostile: str) -> None:
    alice, bob, eve = names("alice", "bob", "eve")
    secret = word()
    eve = f"{eve}{hostile}"[:60]
    async with Clients() as connect:
        a, e = await connect(site.edges[0], alice), await connect(site.edges[1], eve)
        said = await a.say(bob, secret)
        own = await e.say(f"{hostile}{bob}"[:60], f"{secret} {hostile}")
        await until_found(e, secret, [own["message_id"]])
        await until_found(a, secret, [said["message_id"]])
        assert await found(e, secret, **{"from": hostile}) == []
        assert await found(e, secret, **{"from": alice}) == []
        assert await found(e, secret, **{"from": eve}) == [own["message_id"]]
        refused = await e.ask("search", query=secret, chat_id=f"group.{hostile}")
        assert refused["code"] in ("invalid", "not_member")
        for query in (hostile, f"{secret} {hostile}", f'chat = "{said["chat_id"]}"'):
            assert set(await found(e, query)) <= {own["message_id"]}


async def test_edits_and_deletions_count_at_once(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    first, second = word(), word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        said = await a.say(bob, first)
        await until_found(b, first, [said["message_id"]])
        await change(a, "edit", said, content=second)
        for hit in (await search(b, first))["hits"]:
            assert hit["content"] == second
            assert "highlight" not in hit
        await until_found(b, second, [said["message_id"]])
        await until_found(b, first, [])
        await change(a, "delete", said)
        assert await found(b, second) == []
        await until_found(b, second, [])


async def test_sender_time_and_pages(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        said = [
            await (a if n % 2 else b).say(bob if n % 2 else alice, f"{secret} {n}")
            for n in range(7)
        ]
        ids = [each["message_id"] for each in said]
        await until_found(a, secret, ids)
        assert await found(a, secret) == ids[::-1], "the newest comes first"
        assert await found(a, secret, **{"from": bob}) == ids[::2][::-1]
        at = said[3]["timestamp"]
        by_time = {each["message_id"]: each["timestamp"] for each in said}
        late = await found(a, secret, since=at)
        assert {by_time[each] >= at for each in late} == {True}
        assert ids[3] in late
        early = await found(a, secret, until=at)
        assert sorted([*late, *early]) == sorted(ids)
        assert await found(a, secret, since=at, until=at) == []
        pages = [await search(a, secret, limit=3, offset=offset) for offset in (0, 3, 6, 9)]
        assert [hit["id"] for page in pages for hit in page["hits"]] == ids[::-1]
        assert {page["total"] for page in pages} == {7}
        everything = await found(a, "", chat_id=said[0]["chat_id"])
        assert sorted(everything) == sorted(ids)


async def test_bounds_name_the_field(site: SearchSite) -> None:
    (alice,) = names("alice")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"query": "x" * 1001}, "query"),
        ({"query": "x" * 10_240}, "query"),
        ({"query": 5}, "query"),
        ({}, "query"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "offset": -1}, "offset"),
        ({"query": "x", "offset": 1001}, "offset"),
        ({"query": "x", "limit": 100, "offset": 901}, "offset"),
        ({"query": "x", "from": ""}, "from"),
        ({"query": "x", "from": "u" * 65}, "from"),
        ({"query": "x", "since": -1}, "since"),
        ({"query": "x", "until": 2**63}, "until"),
        ({"query": "x", "chat_id": "nonsense"}, "chat_id"),
        ({"query": "x", "chat_id": f"user.{alice}"}, ""),
    ]
    async with Clients() as connect:
        for fields, name in cases:
            a = await connect(site.edges[0], alice)
            refused = await a.ask("search", **fields)
            assert (refused["type"], refused["retryable"]) == ("error", False), (fields, refused)
            assert refused["code"] in ("invalid", "not_member"), (fields, refused)
            assert name in refused["message"], (fields, refused)
            await a.close()
        a = await connect(site.edges[0], alice)
        assert await found(a, "x" * 1000) == []
        assert await found(a, "x", limit=100, offset=900) == []
    status, error = await call(site.edges[0], f"/v1/search?query={'x' * 10_240}", alice)
    assert (status, error["code"]) == (400, "invalid")
    assert "query" in error["message"]
    assert (await call(site.edges[0], "/v1/search?query=x"))[0] == 401


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        ("明日の会議は東京駅の近くです", ["会議", "東京", "東京駅", "明日"]),
        ("カタカナとひらがなのテスト", ["カタカナ", "テスト"]),
        ("今天我们去北京大学学习", ["北京", "大学"]),
        ("안녕하세요 오늘 회의가 있습니다", ["회의", "오늘"]),
        ("Grüße aus München, à bientôt", ["grusse", "Munchen", "MÜNCHEN", "bientot"]),
        ("the quarterly report is attached", ["quartrly", "report quart", '"quarterly report"']),
    ],
)
async def test_languages(site: SearchSite, content: str, queries: list[str]) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, content)
        await a.say(bob, "something else altogether")
        await until_found(a, queries[0], [said["message_id"]])
        for query in queries:
            assert await found(a, query) == [said["message_id"]], query


async def test_highlights_hold_what_was_written(site: SearchSite) -> None:
    """Markup in a message stays text; marks in it are left out of the highlight."""
    alice, bob = names("alice", "bob")
    secret = word()
    content = f"<b>{MARK}x{UNMARK}</b> <script>{secret}</script> & {UNMARK}"
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        said = await a.say(bob, content)
        await until_found(a, secret, [said["message_id"]])
        (hit,) = (await search(a, secret))["hits"]
        assert hit["content"] == content
        assert hit["highlight"] == f"<b>x</b> <script>{MARK}{secret}{UNMARK}</script> & "
        long = await a.say(bob, " ".join(["before"] * 500 + [f"{secret}long"] + ["after"] * 500))
        await until_found(a, f"{secret}long", [long["message_id"]])
        (hit,) = (await search(a, f"{secret}long"))["hits"]
        assert f"{MARK}{secret}long{UNMARK}" in hit["highlight"]
        assert len(hit["highlight"]) < 1000


async def test_a_user_in_a_thousand_chats(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        async with connect_database(StoreConfig(url=site.mongo.url)) as database:
            await database["members"].insert_many(
                [
                    {"group": f"{alice}-{n}", "user": user, "kind": "group", "role": "member"}
                    for n in range(1500)
                    for user in ([alice, bob] if n % 500 == 0 else [alice])
                ]
            )
            await database["chats"].insert_many(
                [
                    {"_id": subjects.dm(alice, f"p{n}"), "seq": 1, "users": [alice, f"p{n}"]}
                    for n in range(1000)
                ]
            )
        ids = [(await b.say(alice, f"{secret} {n}"))["message_id"] for n in range(3)]
        await until_found(a, secret, ids)
        began = time.monotonic()
        for _ in range(10):
            assert await found(a, secret) == ids[::-1]
        assert time.monotonic() - began < 10
        carol = await connect(site.edges[0], names("carol")[0])
        assert await found(carol, secret) == []


async def test_hits_too_large_for_an_answer(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        content = f"{secret} " + "é" * 8000
        ids = [(await a.say(bob, content))["message_id"] for _ in range(70)]
        await until_found(a, secret, ids[::-1][:20])
        refused = await a.ask("search", query=secret, limit=100)
        assert (refused["code"], "limit" in refused["message"]) == ("too_large", True), refused
        assert await found(a, secret, limit=20) == ids[::-1][:20]
        status, _ = await call(site.edges[1], f"/v1/search?query={secret}&limit=100", alice)
        assert status == 413


async def test_the_search_server_restarts(site: SearchSite) -> None:
    alice, bob = names("alice", "bob")
    secret = word()
    async with Clients() as connect:
        a, b = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        before = await a.say(bob, f"{secret} before")
        await until_found(b, secret, [before["message_id"]])
        asked, failed = site.query_metric("searches_total"), "search_failures_total"
        assert asked > 0
        assert site.query_metric("search_seconds_count") > 0
        failures = site.query_metric(failed)
        site.search.process.kill()
        refused = await b.ask("search", query=secret)
        assert site.query_metric(failed) == failures + 1
        assert site.query_metric("searches_total") == asked + 1
        assert (refused["type"], refused["code"]) == ("error", "unavailable")
        assert refused["retryable"]
        during = await a.say(bob, f"{secret} while it was away")
        await b.until("chat", content=f"{secret} while it was away")
        page = await b.ask("history", chat_id=before["chat_id"])
        assert len(page["messages"]) == 2, "all else goes on"
        await site.search.start()
        await until_found(b, secret, [before["message_id"], during["message_id"]])
