"""Connecting: the token's four ways, refusals, devices, Origin, refresh, expiry, ping and pong."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chat import Clients, Way, names, open_socket
from tests.edges import extra_edge
from tests.keys import OTHER_RSA, RSA, KeyServer, jwk, running, signed
from tests.raw import Raw, frame, handshake
from tests.servers import SECRET, Hikyaku, Site, token

pytestmark = pytest.mark.anyio

WAYS: tuple[Way, ...] = ("header", "subprotocol", "query", "frame")


@pytest.fixture(scope="module")
async def short(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hikyaku]:
    """An edge that pings twice a second and is not patient."""
    async with extra_edge(
        site,
        tmp_path_factory.mktemp("short"),
        ping_interval_s="0.5",
        pong_timeout_s="2.5",
        first_frame_s="0.5",
        connections_per_user="2",
    ) as edge:
        yield edge


# --- welcome ---


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_of_the_token_opens_a_session(site: Site, way: Way) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, way=way, device="phone")
    welcome = client.welcome
    assert welcome["user_id"] == alice
    assert welcome["device"] == "phone"
    assert client.socket.subprotocol == ("hikyaku.v1" if way == "subprotocol" else None)


async def test_welcome_says_what_the_server_is_and_allows(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], alice)
    assert one.welcome["limits"] == {
        "frame_bytes": 65_536,
        "content_bytes": 16_384,
        "group_members": 500,
        "messages_per_s": 20.0,
        "messages_burst": 60,
        "typing_interval_s": 3.0,
        "connections_per_user": 8,
        "history_page": 200,
        "file_bytes": 104_857_600,
    }
    assert one.welcome["heartbeat_s"] == 30
    assert one.welcome["server"].keys() == {"name", "version", "site"}
    assert one.welcome["server"]["site"] == "local"
    epoch, _, seq = one.welcome["cursor"].rpartition(":")
    assert epoch == one.welcome["epoch"] == two.welcome["epoch"]
    assert int(seq) >= 0
    assert one.welcome["session"] != two.welcome["session"]
    assert one.welcome["device"]
    assert one.frames[0]["type"] == "welcome"


async def test_the_first_of_the_ways_counts(site: Site) -> None:
    header, offered, query = names("header", "offered", "query")
    protocols = ["hikyaku.v1", f"bearer.{token(offered)}"]
    url = {"token": token(query)}
    bearer = {"Authorization": f"Bearer {token(header)}"}
    for headers, subprotocols, expected in ((bearer, protocols, header), ({}, protocols, offered)):
        async with await open_socket(
            site.edges[0], query=url, headers=headers, subprotocols=subprotocols
        ) as socket:
            assert json.loads(await socket.recv())["user_id"] == expected


async def test_user_id_may_repeat_the_token(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, user_id=alice)
    assert client.welcome["user_id"] == alice


async def test_a_connect_frame_is_not_needed_twice(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        error = await client.ask("connect", token=token(alice))
        assert (error["type"], error["code"]) == ("error", "invalid")
        await client.say(alice, "still here")


async def test_frames_sent_right_behind_connect_are_answered_in_order(site: Site) -> None:
    alice, bob = names("alice", "bob")
    connecting = json.dumps({"type": "connect", "token": token(alice)}).encode()
    message = {"type": "chat", "to": bob, "client_id": "c1", "content": "no time to wait"}
    async with Raw(site.edges[0]) as raw:
        await raw.upgrade(handshake(site.edges[0]))
        await raw.write(
            frame(connecting)
            + b"".join(
                frame(json.dumps({**message, "id": number, "client_id": f"c{number}"}).encode())
                for number in range(3)
            )
        )
        received = [json.loads((await raw.read_frame())[1])]
        while len(received) < 7:
            received.append(json.loads((await raw.read_frame())[1]))
    assert received[0]["type"] == "welcome"
    assert [each["id"] for each in received if each["type"] == "ack"] == [0, 1, 2]


# --- refusals ---


@pytest.mark.parametrize("way", WAYS)
async def test_a_bad_token_is_accepted_then_closed_with_4001(site: Site, way: Way) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(
            site.edges[0], alice, way=way, jwt=token(alice)[:-6] + "AAAAAA", welcomed=False
        )
        code, reason = await client.closed()
    assert code == 4001
    assert "token" in reason
    assert client.frames == []


async def test_an_expired_token_is_refused_with_4001(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, jwt=token(alice, ttl_s=-5), welcomed=False)
        assert (await client.closed())[0] == 4001


@pytest.mark.parametrize("sub", ["", "x" * 65, "あ" * 22, "a\nb", "\x00", "\x7f"])
async def test_a_sub_that_is_no_user_id_is_refused_with_4001(site: Site, sub: str) -> None:
    async with Clients() as connect:
        client = await connect(site.edges[0], sub, jwt=token(sub), welcomed=False)
        assert (await client.closed())[0] == 4001


async def test_another_user_id_than_the_tokens_is_forbidden(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, user_id=bob, welcomed=False)
        assert (await client.closed())[0] == 4003


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("device", ["x" * 65, "a.b", "a b", "é", "*"])
async def test_a_device_has_a_narrow_alphabet(site: Site, way: Way, device: str) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, way=way, device=device, welcomed=False)
        error = await client.until("error")
        assert (error["code"], error["retryable"]) == ("invalid", False)
        assert (await client.closed())[0] == 4022


async def test_without_a_token_the_first_frame_is_awaited_for_a_while(short: Hikyaku) -> None:
    async with await open_socket(short) as socket:
        started = time.monotonic()
        await socket.wait_closed()
        assert socket.close_code == 4001
        assert 0.3 < time.monotonic() - started < 10


async def test_the_first_frame_must_be_connect(site: Site) -> None:
    async with Clients() as connect:
        client = await connect(site.edges[0], "nobody", way="frame", jwt="", welcomed=False)
        assert (await client.closed())[0] == 4001
    async with await open_socket(site.edges[0]) as socket:
        await socket.send('{"type":"chat","to":"bob","client_id":"c1","content":"hi","id":7}')
        error = json.loads(await socket.recv())
        assert (error["code"], error["id"], error["client_id"]) == ("unauthorized", 7, "c1")
        await socket.wait_closed()
        assert socket.close_code == 4001


async def test_a_malformed_first_frame_may_be_put_right(site: Site) -> None:
    (alice,) = names("alice")
    async with await open_socket(site.edges[0]) as socket:
        await socket.send("{")
        assert json.loads(await socket.recv())["code"] == "bad_frame"
        await socket.send('{"type":"connect","id":1}')
        error = json.loads(await socket.recv())
        assert (error["code"], error["id"]) == ("invalid", 1)
        await socket.send(json.dumps({"type": "connect", "token": token(alice)}))
        assert json.loads(await socket.recv())["type"] == "welcome"


async def test_too_many_connections_of_one_user(short: Hikyaku) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        first = await connect(short, alice)
        second = await connect(short, alice, device="second")
        refused = await connect(short, alice, welcomed=False)
        assert (await refused.closed())[0] == 4009
        await connect(short, bob)
        await first.say(alice, "the others live on")
        await second.until("chat", content="the others live on")


async def test_a_refused_connection_takes_no_place(short: Hikyaku) -> None:
    """One that is told 4009 and lingers must not keep out the next one that fits."""
    (alice,) = names("alice")
    async with Clients() as connect, Raw(short) as lingering:
        first = await connect(short, alice)
        await connect(short, alice)
        await lingering.upgrade(handshake(short, Authorization=f"Bearer {token(alice)}"))
        assert await lingering.closed() == 4009
        await first.close()
        again = await connect(short, alice)
        await again.say(alice, "in time")


async def test_a_place_is_free_again_when_a_client_died(short: Hikyaku) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        for _ in range(5):
            client = await connect(short, alice)
            await client.say(alice, "here")
            await client.close()
        await asyncio.gather(connect(short, alice), connect(short, alice))


# --- Origin ---


async def test_the_page_must_be_of_the_same_host(site: Site, tmp_path: Path) -> None:
    edge = site.edges[0]
    (alice,) = names("alice")
    async with Clients() as connect:
        own = f"http://127.0.0.1:{edge.port}"
        await connect(edge, alice, origin=own)
        for origin in ("https://evil.example", "null", "http://127.0.0.1", "http://[", own + "0"):
            client = await connect(edge, alice, origin=origin, welcomed=False)
            assert (await client.closed())[0] == 4003, origin


async def test_the_page_may_be_of_a_host_in_the_allow_list(site: Site, tmp_path: Path) -> None:
    (alice,) = names("alice")
    allowed = "https://chat.example,https://www.example:8443"
    async with extra_edge(site, tmp_path, origins=allowed) as edge, Clients() as connect:
        await connect(edge, alice, origin="https://chat.example")
        await connect(edge, alice, origin="https://www.example:8443")
        await connect(edge, alice, origin=f"http://127.0.0.1:{edge.port}")
        for origin in ("https://www.example", "http://chat.example", "https://chat.example.evil"):
            client = await connect(edge, alice, origin=origin, welcomed=False)
            assert (await client.closed())[0] == 4003, origin


# --- expiry ---


async def test_at_exp_the_session_is_closed_with_4002(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, jwt=token(alice, ttl_s=2))
        assert (await client.closed())[0] == 4002


async def test_refresh_extends_the_session(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice, jwt=token(alice, ttl_s=2.5))
        until = time.time() + 600
        result = await client.ask("refresh", token=token(alice, ttl_s=600))
        assert result["type"] == "result"
        assert abs(result["expires_at"] - until * 1000) < 5000
        soon = await connect(site.edges[0], bob, jwt=token(bob, ttl_s=2.6))
        assert (await soon.closed())[0] == 4002
        await client.say(bob, "past the first exp")


async def test_a_bad_refresh_changes_nothing(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for bad, code in (
            (token(bob), "forbidden"),
            ("x", "unauthorized"),
            (token(alice, ttl_s=-1), "unauthorized"),
        ):
            error = await client.ask("refresh", token=bad)
            assert (error["type"], error["code"]) == ("error", code)
        await client.say(bob, "still with the first token")


# --- ping and pong ---


async def test_pings_come_and_any_frame_counts_as_an_answer(short: Hikyaku) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        talking = await connect(short, alice)
        ponging = await connect(short, bob)
        silent = await connect(short, bob)
        ended = asyncio.create_task(silent.closed())
        while not ended.done():
            await talking.until("ping")
            await talking.send("typing", to=bob)
            await ponging.until("ping")
            await ponging.send("pong")
        assert ended.result()[0] == 4101
        await talking.say(bob, "alive")
        await ponging.until("chat", content="alive")


async def test_what_is_not_a_token_is_not_believed(site: Site) -> None:
    assert SECRET not in token("alice")
    for jwt in ("bearer", "a.b.c", "é" * 10, "x" * 20_000, "\u3042.\u3042.\u3042"):
        async with Clients() as connect:
            client = await connect(site.edges[0], "alice", way="frame", jwt=jwt, welcomed=False)
            assert (await client.closed())[0] == 4001


# --- keys ---


async def test_tokens_of_a_key_set_at_a_url(site: Site, tmp_path: Path) -> None:
    (alice,) = names("alice")
    good = signed(RSA, "RS256", kid="k1", sub=alice)
    server = KeyServer()
    with running(server):
        server.serve_raw(b"HTTP/1.1 503 Later\r\n\r\n")
        settings = {"jwt_secret": "", "jwt_jwks": server.url}
        async with extra_edge(site, tmp_path, **settings) as edge, Clients() as connect:
            early = await connect(edge, alice, jwt=good, welcomed=False)
            error = await early.until("error")
            assert (error["code"], error["retryable"]) == ("unavailable", True)
            assert (await early.closed())[0] == 1012
        server.serve(jwk(RSA, "k1"))
        async with extra_edge(site, tmp_path, **settings) as edge, Clients() as connect:
            clients = await asyncio.gather(*(connect(edge, alice, jwt=good) for _ in range(5)))
            assert (await clients[0].ask("refresh", token=good))["type"] == "result"
            for bad in (token(alice), signed(OTHER_RSA, "RS256", kid="k1", sub=alice)):
                refused = await connect(edge, alice, jwt=bad, welcomed=False)
                assert (await refused.closed())[0] == 4001
