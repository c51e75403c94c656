"""The HTTP twins of frames do what the frames do, with statuses for errors."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.chat import Clients, names
from tests.servers import Hikyaku, Site, token

pytestmark = pytest.mark.anyio


async def call(
    edge: Hikyaku, path: str, user: str | None = None, body: Any = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a request; a POST when there is a body."""

    def send() -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"http://127.0.0.1:{edge.port}{path}")
        if user is not None:
            request.add_header("Authorization", f"Bearer {token(user)}")
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return await asyncio.to_thread(send)


async def test_a_message_by_http_is_delivered_and_in_history(site: Site) -> None:
    alice, bob = names("alice", "bob")
    edge, other = site.edges
    async with Clients() as connect:
        b = await connect(other, bob)
        message = {"type": "chat", "client_id": "1", "to": bob, "content": "by http"}
        status, ack = await call(edge, "/v1/messages", alice, message)
        assert (status, ack["type"], ack["duplicate"]) == (201, "ack", False)
        await b.until("chat", content="by http")
        again = await call(edge, "/v1/messages", alice, message)
        assert again[1] == {**ack, "duplicate": True}
        status, page = await call(other, f"/v1/chats/{ack['chat_id']}/messages?limit=5", bob)
        assert (status, [m["content"] for m in page["messages"]]) == (200, ["by http"])
        status, chats = await call(edge, "/v1/chats", bob)
        assert (status, [c["unread"] for c in chats["chats"]]) == (200, [1])


async def test_errors_have_statuses(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    edge = site.edges[0]
    ok = {"type": "chat", "client_id": "1", "to": bob, "content": "x"}
    _, ack = await call(edge, "/v1/messages", alice, ok)
    history = f"/v1/chats/{ack['chat_id']}/messages"
    cases: list[tuple[str, str | None, Any, int, str]] = [
        ("/v1/messages", None, ok, 401, "unauthorized"),
        ("/v1/messages", alice, b"garbage", 400, "bad_frame"),
        ("/v1/messages", alice, {**ok, "to": 5}, 400, "invalid"),
        ("/v1/messages", alice, {"type": "pong"}, 400, "invalid"),
        ("/v1/messages", alice, b"x" * 70_000, 413, "too_large"),
        ("/v1/messages", alice, {**ok, "type": "group_chat", "group_id": "no"}, 403, "not_member"),
        (history, carol, None, 403, "not_member"),
        (f"{history}?limit=100000", alice, None, 400, "invalid"),
        (f"{history}?before=123", alice, None, 404, "not_found"),
        (f"{history}?before=abc", alice, None, 400, "invalid"),
        ("/v1/chats/nonsense/messages", alice, None, 400, "invalid"),
        ("/v1/chats?limit=0", alice, None, 400, "invalid"),
    ]
    for path, user, body, status, code in cases:
        found = await call(edge, path, user, body)
        assert (found[0], found[1]["code"]) == (status, code), (path, found)


async def test_the_rate_limit_holds_across_requests(site: Site) -> None:
    (alice,) = names("alice")
    calls = [
        call(
            site.edges[0],
            "/v1/messages",
            alice,
            {"type": "chat", "client_id": str(n), "to": "bob", "content": "x"},
        )
        for n in range(300)
    ]
    statuses = [status for status, *_ in await asyncio.gather(*calls)]
    assert statuses.count(201) >= 60
    assert 429 in statuses
    assert {*statuses} == {201, 429}
