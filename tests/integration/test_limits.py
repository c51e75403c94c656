"""Limits: sizes of frames and contents, rates, malformed frames, questions at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.chat import Chat, Clients, Frame, names
from tests.edges import extra_edge
from tests.servers import Hikyaku, Site

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def strict(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hikyaku]:
    """An edge with small limits of its own."""
    async with extra_edge(
        site,
        tmp_path_factory.mktemp("strict"),
        messages_per_s="2",
        messages_burst="3",
        frame_bytes="2048",
        content_bytes="100",
        typing_interval_s="0",
        connections_per_user="5",
        history_page="7",
    ) as edge:
        yield edge


async def test_the_limits_set_are_the_limits_announced(strict: Hikyaku) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(strict, alice)
    assert client.welcome["limits"] == {
        "frame_bytes": 2048,
        "content_bytes": 100,
        "group_members": 500,
        "messages_per_s": 2.0,
        "messages_burst": 3,
        "typing_interval_s": 0.0,
        "connections_per_user": 5,
        "history_page": 7,
        "file_bytes": 100 * 1024 * 1024,
    }


# --- sizes ---


def padded(size: int, **fields: object) -> str:
    """A frame of exactly `size` bytes."""
    bare = json.dumps({**fields, "pad": ""})
    return json.dumps({**fields, "pad": "x" * (size - len(bare))})


async def test_a_frame_of_exactly_the_limit_is_taken(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        frame = padded(65_536, type="chat", client_id="c1", to=alice, content="at the limit")
        assert len(frame) == 65_536
        await client.socket.send(frame)
        await client.until("ack", client_id="c1")
        await client.socket.send([frame[:30_000].replace("c1", "c2"), frame[30_000:]])
        await client.until("ack", client_id="c2")


@pytest.mark.parametrize("size", [65_537, 65_536 * 2])
@pytest.mark.parametrize("parts", [1, 3])
async def test_a_larger_frame_is_closed_with_4013(site: Site, size: int, parts: int) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        staying = await connect(site.edges[0], alice)
        frame = padded(size, type="chat", client_id="c1", to=alice, content="too large")
        step = size // parts + 1
        await client.socket.send(
            frame if parts == 1 else [frame[at : at + step] for at in range(0, size, step)]
        )
        code, reason = await client.closed()
        assert code == 4013
        assert "too large" in reason
        await staying.say(alice, "end")
        await staying.until("chat", content="end")
        assert staying.contents() == ["end"]


@pytest.mark.parametrize(
    "content",
    ["x" * 16_384, "é" * 8192, "あ" * 5461 + "x", "🚚" * 4096, "\0" * 10_000, '"\\' * 8192],
    ids=["1 byte", "2 bytes", "3 bytes", "4 bytes", "control", "escaped"],
)
async def test_content_of_exactly_the_limit_arrives_whole(site: Site, content: str) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        client_ids = ["c1", "c2"]
        for client_id, escape in zip(client_ids, (True, False), strict=True):
            fields = {"type": "chat", "client_id": client_id, "to": alice, "content": content}
            text = json.dumps(fields, ensure_ascii=escape)
            if len(text.encode()) > 65_536:
                continue
            await client.socket.send(text)
            await client.until("ack", client_id=client_id)
            event = await client.until("chat", client_id=client_id)
            assert event["content"] == content


@pytest.mark.parametrize(
    "content",
    ["x" * 16_385, "é" * 8192 + "x", "あ" * 5461 + "é", "🚚" * 4096 + "x", "x" * 60_000],
    ids=["1 byte", "2 bytes", "3 bytes", "4 bytes", "much"],
)
async def test_content_over_the_limit_is_too_large(site: Site, content: str) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        text = {"type": "chat", "id": 1, "client_id": "c1", "to": alice, "content": content}
        await client.socket.send(json.dumps(text, ensure_ascii=False))
        error = await client.until("error")
        assert (error["code"], error["id"], error["client_id"]) == ("too_large", 1, "c1")
        assert error["retryable"] is False
        await client.say(alice, "the connection lives on", client_id="c1")


@pytest.mark.parametrize(
    ("field", "fits", "over"),
    [
        ("id", "x" * 64, "x" * 65),
        ("content_type", "x" * 64, "x" * 65),
        ("attachments", [], ["x"] * 21),
        ("attachments", [], ["x" * 129]),
        ("mentions", ["bob"] * 50, ["bob"] * 51),
        ("reply_to", str(2**63 - 1), str(2**63)),
        ("expect_seq", None, 1.5),
    ],
)
async def test_every_field_has_a_limit(site: Site, field: str, fits: object, over: object) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        frame = {"client_id": "c1", "to": alice, "content": "x"}
        await client.send("chat", **{**frame, field: over})
        assert (await client.until("error"))["code"] == "invalid"
        await client.send("chat", **{**frame, field: fits})
        await client.until("ack")


# --- rates ---


async def test_a_burst_is_taken_then_the_rate_counts(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        clients = [await connect(site.edges[0], alice) for _ in range(2)]
        for number in range(80):
            await clients[number % 2].send(
                "chat", id=number, client_id=f"c{number}", to=alice, content="x"
            )
        answers: dict[int, Frame] = {}
        for client in clients:
            for _ in range(40):
                answer = await _answer(client)
                answers[answer["id"]] = answer
        refused = [each for each in answers.values() if each["type"] == "error"]
        assert 10 <= len(refused) <= 20
        for error in refused:
            assert (error["code"], error["retryable"]) == ("rate_limited", True)
            assert error["client_id"] == f"c{error['id']}"
            assert 0 < error["retry_after_ms"] <= 50
        number = refused[0]["id"]
        deadline = time.monotonic() + 10
        while True:
            await clients[0].send("chat", id=number, client_id=f"c{number}", to=alice, content="x")
            answer = await _answer(clients[0])
            if answer["type"] == "ack":
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(answer["retry_after_ms"] / 1000)
        assert answer["duplicate"] is False


async def _answer(client: Chat) -> Frame:
    while (frame := await client.receive())["type"] not in ("ack", "error"):
        pass
    return frame


async def test_one_users_rate_is_not_anothers(strict: Hikyaku) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(strict, alice), await connect(strict, bob)
        for number in range(10):
            await one.send("chat", client_id=f"c{number}", to=bob, content="x")
        assert (await one.until("error"))["code"] == "rate_limited"
        await two.say(alice, "not limited")


async def test_who_keeps_breaking_the_rate_is_closed_with_4129(strict: Hikyaku) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client, other = await connect(strict, alice), await connect(strict, bob)
        for number in range(200):
            await client.send("chat", client_id=f"c{number}", to=bob, content="x")
        code, reason = await client.closed()
        assert code == 4129
        assert json.loads(reason)["retry_after_ms"] >= 1000
        await other.say(alice, "alive")


async def test_frames_of_any_kind_have_a_rate(strict: Hikyaku) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client, other = await connect(strict, alice), await connect(strict, bob)
        for _ in range(200):
            await client.send("pong")
        assert (await client.closed())[0] == 4129
        assert client.frames[1]["code"] == "rate_limited"
        await other.say(alice, "alive")


# --- malformed ---

MALFORMED: list[tuple[str, str | bytes]] = [
    ("bad_frame", "{"),
    ("bad_frame", ""),
    ("bad_frame", "[]"),
    ("bad_frame", "null"),
    ("bad_frame", '{"type":7}'),
    ("bad_frame", '{"id":1}'),
    ("bad_frame", "[" * 60_000),
    ("bad_frame", '{"a":' * 9_000 + "1" + "}" * 9_000),
    ("bad_frame", '{"type":"pong"} {"type":"pong"}'),
    ("bad_frame", '{"type":"chat","id":' + "9" * 5_000 + "}"),
    ("bad_frame", '{"type":"chat","client_id":"\\ud800","to":"b","content":"x"}'),
    ("bad_frame", b"\0\1\2"),
    ("unknown_type", '{"type":"hello"}'),
    ("unknown_type", '{"type":"welcome"}'),
    ("invalid", '{"type":"chat"}'),
]


@pytest.mark.parametrize(("code", "frame"), MALFORMED)
async def test_ten_malformed_frames_a_minute_are_forgiven(
    site: Site, code: str, frame: str | bytes
) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for _ in range(10):
            await client.socket.send(frame)
            error = await client.until("error")
            assert (error["code"], error["retryable"]) == (code, False)
            assert len(error["message"]) < 500
        await client.say(alice, "still here")
        await client.socket.send(frame)
        assert (await client.closed())[0] == 4022


async def test_an_id_that_is_no_integer_of_64_bits_is_echoed_all_the_same(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for number in (-1, 2**63, 2**64, 10**30):
            await client.send("chat", id=number, client_id=f"c{number}", to=alice, content="x")
            assert (await client.until("ack"))["id"] == number


# --- questions ---


async def test_too_many_questions_at_once_are_refused(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client, other = await connect(site.edges[0], alice), await connect(site.edges[0], bob)
        group_id = (await client.group())["group_id"]
        for number in range(200):
            await client.send("group_info", id=number, group_id=group_id)
        answers: list[Frame] = []
        while len(answers) < 200:
            if (frame := await client.receive())["type"] in ("result", "error"):
                answers.append(frame)
        codes = [each.get("code", each["type"]) for each in answers]
        assert set(codes) == {"result", "overloaded"}
        assert {each["retryable"] for each in answers if each["type"] == "error"} == {True}
        assert sorted(each["id"] for each in answers) == list(range(200))
        await other.say(alice, "alive")
        assert (await client.ask("group_info", group_id=group_id))["type"] == "result"
