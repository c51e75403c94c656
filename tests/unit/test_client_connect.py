"""Connecting, resuming and stopping, against a scripted server."""

import asyncio
import time
from collections.abc import Callable

import pytest

from client import CaughtUp, ChatEvent, Client, ConnectionState, MemoryCursorStore, errors
from client.address import endpoint, with_parameters
from edge.frames import Chat, Missing, Pong, Refresh, Result

from .test_client_server import Link, ScriptedServer, eventually, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]


async def next_event(client: Client) -> object:
    async with asyncio.timeout(10):
        return await anext(client)


async def next_text(client: Client) -> str:
    event = await next_event(client)
    assert isinstance(event, ChatEvent)
    return event.content


async def test_the_token_is_in_a_header_and_not_in_the_address() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "secret", device="phone", user="a li.ce")
        await client.start()
        link = await server.online()
        assert link.authorization == "Bearer secret"
        assert link.parameters == {"device": "phone", "user_id": "a li.ce"}
        assert link.path.startswith("/ws/chat?")
        assert "secret" not in link.path
        await eventually(lambda: client.state.phase == "online")
        await client.close()
        assert await link.closed() == 1000


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("localhost:8080", "ws://localhost:8080/ws/chat"),
        ("http://h", "ws://h/ws/chat"),
        ("https://h/", "wss://h/ws/chat"),
        ("wss://h/other?x=1", "wss://h/other?x=1"),
    ],
)
def test_addresses_as_people_write_them(given: str, used: str) -> None:
    assert endpoint(given) == used


@pytest.mark.parametrize("url", ["", "ftp://h", "ws://", "ws://h/?token=abc"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(errors.HandshakeRefused):
        endpoint(url)


def test_parameters_are_escaped_and_added() -> None:
    assert with_parameters("ws://h/p?x=1", a="ü&", b=None) == "ws://h/p?x=1&a=%C3%BC%26"


async def test_events_come_typed_and_resume_from_the_newest() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online("e1:10")
        assert link.cursor is None
        await link.send(message(11, "one"), message(11, "one"), message(12, "two"))
        assert [await next_text(client), await next_text(client)] == ["one", "two"]
        link.cut()
        link = await server.accept()
        assert link.cursor == "e1:12"
        await link.welcome("e1:14")
        missing = [Missing(chat_id="dm.alice.bob", from_seq=13, to_seq=13)]
        await link.send(message(12, "two"), message(14, "four"))
        await link.caught_up("e1:14", missing=missing)
        assert await next_text(client) == "four"
        assert await next_event(client) == CaughtUp(cursor="e1:14", recovered=True, missing=missing)
        await client.close()


async def test_a_cut_before_the_first_event_loses_nothing() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online("e1:10")
        await link.close(4200)
        assert (await server.accept()).cursor == "e1:10"
        await client.close()


async def test_a_new_epoch_is_told() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t", cursor_store=MemoryCursorStore("old:900"))
        await client.start()
        link = await server.accept()
        assert link.cursor == "old:900"
        await link.welcome("new:3")
        await link.caught_up("new:3", recovered=False)
        await link.send(message(4))
        event = await next_event(client)
        assert isinstance(event, CaughtUp)
        assert not event.recovered
        assert await next_text(client) == "message 4"
        await client.close()


async def test_pings_are_answered_and_unknown_frames_skipped() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online()
        await link.send_raw('{"type":"ping"}')
        await link.receive(Pong)
        await link.send_raw('{"type":"from_the_future","seq":1,"nested":{"type":1}}')
        await link.send_raw('{"type":"chat","seq":"not a number"}')
        await link.send(message(2, "known"))
        assert await next_text(client) == "known"
        await client.close()


async def test_a_server_that_talks_nonsense_is_left_and_tried_again() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online()
        await link.send_raw("{not json")
        await server.online()
        await client.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4001, errors.Unauthorized),
        (4002, errors.TokenExpired),
        (4003, errors.Forbidden),
        (4009, errors.TooManyConnections),
    ],
)
async def test_a_refusal_ends_everything_with_its_error(
    code: int, kind: type[errors.ConnectionStopped]
) -> None:
    async with ScriptedServer() as server:

        async def refuse() -> None:
            await (await server.accept()).close(code, "because")

        refusing = asyncio.create_task(refuse())
        with pytest.raises(kind, match="because"):
            async with Client(server.url, "t"):
                pytest.fail("must not get here")
        await refusing
        assert len(server.links) == 1


async def test_what_was_queued_before_a_stop_is_still_given() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online()
        sending = asyncio.create_task(client.send("bob", "hello"))
        await link.receive(Chat)
        await link.send(message(1))
        await link.close(4009)
        with pytest.raises(errors.TooManyConnections):
            await sending
        with pytest.raises(errors.TooManyConnections):
            await client.send("bob", "later")
        assert await next_text(client) == "message 1"
        with pytest.raises(errors.TooManyConnections):
            await next_event(client)
        assert client.state.phase == "stopped"
        await client.close()


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("code", [4001, 4002])
async def test_a_token_function_is_asked_again(code: int, is_async: bool) -> None:
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        return f"token-{asked}"

    async def fetch_async() -> str:
        return fetch()

    async with ScriptedServer() as server:
        client = Client(server.url, fetch_async if is_async else fetch)
        await client.start()
        link = await server.online()
        assert link.authorization == "Bearer token-1"
        await link.close(4200)
        link = await server.online()
        assert link.authorization == "Bearer token-1", "this one is still good"
        await link.close(code)
        link = await server.online()
        assert link.authorization == "Bearer token-2"
        await client.close()


async def test_a_token_function_that_cannot_reach_its_service_is_tried_again() -> None:
    answers: list[Callable[[], str]] = [_no_network, lambda: "good"]

    async with ScriptedServer() as server:
        client = Client(server.url, lambda: answers.pop(0)())
        await client.start()
        assert (await server.online()).authorization == "Bearer good"
        await client.close()


def _no_network() -> str:
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    "source", ["", "two words", "new\nline", lambda: 5, lambda: 1 / 0, lambda: "ü"]
)
async def test_what_cannot_be_a_token_stops(source: str | Callable[[], str]) -> None:
    async with ScriptedServer() as server:
        with pytest.raises((errors.Unauthorized, errors.TokenSourceFailed)):
            async with Client(server.url, source):
                pytest.fail("must not get here")
        assert server.links == []


async def test_refresh_replaces_the_token() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "old")
        await client.start()
        link = await server.online()
        refreshing = asyncio.create_task(client.refresh("new"))
        frame = await link.receive(Refresh)
        assert frame.token == "new"
        await link.send(Result(id=frame.id, expires_at=1))
        await refreshing
        refused = asyncio.create_task(client.refresh("forged"))
        await link.refuse(await link.receive(Refresh), "unauthorized")
        with pytest.raises(errors.NotAllowed):
            await refused
        await link.close(4200)
        assert (await server.online()).authorization == "Bearer new"
        await client.close()


async def test_entering_waits_for_the_server_but_not_for_ever() -> None:
    async with ScriptedServer() as server:
        with pytest.raises(errors.ConnectTimeout):
            async with Client(server.url, "t", open_timeout_s=0.2):
                pytest.fail("must not get here")


async def test_what_is_not_a_chat_server_is_said_so() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(errors.HandshakeRefused, match="404"):
            async with Client(f"127.0.0.1:{port}", "t"):
                pytest.fail("must not get here")


async def test_reconnects_at_once_are_slowed_down_when_they_repeat() -> None:
    async with ScriptedServer() as server:
        states: list[ConnectionState] = []
        client = Client(server.url, "t", on_state=states.append)
        await client.start()
        for _ in range(6):
            link = await server.online()
            await link.close(4208)
        await client.close()
        waits = [state.retry_in_s for state in states if state.phase == "waiting"]
        assert waits[0] == 0.0
        assert 0 < sum(waits[1:]) <= 0.05 * (1 + 2 + 4 + 8 + 16)


async def test_the_application_is_told_of_every_change() -> None:
    async with ScriptedServer() as server:
        states: list[ConnectionState] = []
        client = Client(server.url, "t", on_state=states.append)
        await client.start()
        link = await server.online()
        await eventually(lambda: states[-1].phase == "online")
        await link.close(4200)
        link = await server.online()
        await eventually(lambda: states[-1].phase == "online")
        await client.close()
        await client.close()
        phases = [state.phase for state in states]
        assert phases == ["connecting", "online", "waiting", "connecting", "online", "closed"]
        assert "elsewhere" in states[2].reason


async def test_an_application_whose_callback_raises_hears_of_it() -> None:
    def fail(state: ConnectionState) -> None:
        if state.phase == "online":
            raise ZeroDivisionError("in the callback")

    async with ScriptedServer() as server:
        client = Client(server.url, "t", on_state=fail)
        await client.start()
        await server.online()
        with pytest.raises(errors.ClientError, match="in the callback"):
            await next_event(client)
        await client.close()


async def test_a_dead_connection_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes, not even the answer to a ping, while a send waits for its ack."""
    monkeypatch.setattr("client.connection.TICK_S", 0.05)
    monkeypatch.setattr("client.connection.SILENCE_S", 0.1)
    monkeypatch.setattr("client.connection.PROBE_S", 0.1)
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online()
        sending = asyncio.create_task(client.send("bob", "hello"))
        first = await link.receive(Chat)
        link.socket.transport.pause_reading()
        link = await server.online()
        again = await link.receive(Chat)
        assert again.client_id == first.client_id
        await link.ack(again, seq=1)
        assert (await sending).seq == 1
        await client.close()


async def test_a_quiet_connection_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.connection.TICK_S", 0.02)
    monkeypatch.setattr("client.connection.SILENCE_S", 0.05)
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.online()
        sending = asyncio.create_task(client.send("bob", "hello"))
        frame = await link.receive(Chat)
        probed = time.monotonic() + 0.5
        await eventually(lambda: time.monotonic() > probed)
        await link.ack(frame, seq=1)
        assert (await sending).seq == 1
        assert len(server.links) == 1
        await client.close()


async def test_closing_at_the_moment_in_which_the_server_closes() -> None:
    """The error and the cancellation meet in one task group; the client must end all the same."""
    async with ScriptedServer() as server:
        for turns in range(8):
            client = Client(server.url, "t")
            await client.start()
            link = await server.online()
            await eventually(lambda client=client: client.state.phase == "online")  # type: ignore[misc]
            link.cut()
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(2):
                await client.close()


async def test_a_client_that_was_not_started_or_was_closed_says_so() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        with pytest.raises(errors.ClientClosed):
            await client.send("bob", "hello")
        await client.start()
        link: Link = await server.online()
        await link.send(message(1))
        with pytest.raises(RuntimeError):
            await client.start()
        await client.close()
        with pytest.raises(errors.ClientClosed):
            await client.send("bob", "hello")
        assert [event async for event in client] == []
