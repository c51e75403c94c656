"""The supervised connection: what it relies on in nats-py, and how it comes back."""

import asyncio
import inspect
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import pytest
from msgspec.structs import replace
from nats.aio.client import Client

from bench.proxy import Proxy
from broker import bus as bus_module
from broker.bus import Bus, Reply, publication, status_of
from broker.errors import Overloaded, Refused, Unavailable
from tests.brokers import as_role
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


def make_bus(url: str, name: str = "test") -> Bus:
    return Bus(as_role(url), name=name)


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        yield bus


@pytest.fixture
async def proxy(nats: Nats) -> AsyncIterator[Proxy]:
    async with Proxy(nats.port) as proxy:
        yield proxy


class Received:
    """A handler that keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, bytes | None, bytes]] = []

    def __call__(self, subject: bytes, reply: bytes, header: bytes | None, data: bytes) -> None:
        self.messages.append((subject, reply, header, data))

    @property
    def payloads(self) -> list[bytes]:
        return [data for _, _, _, data in self.messages]


# --- private parts of nats-py ---


async def test_messages_arrive_with_raw_headers(bus: Bus) -> None:
    received = Received()
    bus.subscribe("raw.*", received)
    header = b"NATS/1.0\r\nA: 1\r\nA: 2\r\nb: x\r\n\r\n"
    bus.write(publication("raw.a", b"\x00\r\n\xff", header=header, reply="to.me"))
    bus.write(publication("raw.b", b""))
    await eventually(lambda: len(received.messages) == 2)
    assert received.messages == [
        (b"raw.a", b"to.me", header, b"\x00\r\n\xff"),
        (b"raw.b", b"", None, b""),
    ]


async def test_a_write_goes_out_at_once(bus: Bus) -> None:
    """Not through the pending buffer of nats-py and its flusher task."""
    wire = bus._wire
    assert wire is not None
    wire.write(b"PING\r\n")
    assert wire._pending == []
    assert wire._pending_data_size == 0
    assert wire.unsent_bytes() == 0


async def test_unsent_bytes_are_those_that_the_server_did_not_take(bus: Bus, nats: Nats) -> None:
    wire = bus._wire
    assert wire is not None
    nats.process.send(signal.SIGSTOP)
    size = 8 * 1024 * 1024
    wire.write(b"PING\r\n" * (size // 6))
    assert size // 4 < wire.unsent_bytes() <= size
    nats.process.send(signal.SIGCONT)


def test_the_hooks_into_nats_py_are_still_there() -> None:
    parameters = list(inspect.signature(Client._process_msg).parameters)
    assert parameters == ["self", "sid", "subject", "reply", "data", "headers"]
    assert list(inspect.signature(Client._close).parameters) == ["self", "status", "do_cbs"]


async def test_nothing_is_buffered_in_nats_py_for_a_reconnect(bus: Bus) -> None:
    wire = bus._wire
    assert wire is not None
    assert wire.options["allow_reconnect"] is False
    assert wire._max_pending_size == 0


# --- coming back ---


async def test_a_killed_server_comes_back_with_all_subscriptions(bus: Bus, nats: Nats) -> None:
    plain, queued, ended = Received(), Received(), Received()
    bus.subscribe("plain.>", plain)
    bus.subscribe("queued", queued, queue="workers")
    bus.unsubscribe(bus.subscribe("ended", ended))
    seen: list[bool] = []
    bus.on_connect(lambda: seen.append(bus.connected))

    nats.process.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(Unavailable, match=nats.url):
        bus.publish("plain.x", b"lost")
    later = Received()
    bus.subscribe("later", later)
    await eventually(lambda: bus.down_s > 0.05)
    await nats.start()
    await bus.wait_connected(10)
    assert seen == [True]
    assert bus.down_s == 0

    for subject in ("plain.x", "queued", "ended", "later"):
        bus.publish(subject, subject.encode())
    await eventually(lambda: bool(later.messages))
    assert plain.payloads == [b"plain.x"]
    assert queued.payloads == [b"queued"]
    assert later.payloads == [b"later"]
    assert not ended.messages


async def test_it_starts_before_the_server_does(nats: Nats) -> None:
    nats.process.kill()
    async with make_bus(nats.url) as bus:
        with pytest.raises(Unavailable, match=nats.url):
            await bus.wait_connected(0.2)
        assert bus.down_s > 0.1
        await nats.start()
        await bus.wait_connected(10)


async def test_reconnects_do_not_count_the_first_connect(bus: Bus, proxy: Proxy) -> None:
    assert bus.reconnects == 0
    async with make_bus(proxy.url) as through:
        await through.wait_connected(10)
        proxy.reset()
        await eventually(lambda: through.reconnects == 1)
        proxy.reset()
        await eventually(lambda: through.reconnects == 2)
        assert proxy.connections == 3


async def test_a_connection_reset_again_and_again_comes_back(proxy: Proxy) -> None:
    received = Received()
    async with make_bus(proxy.url) as bus:
        bus.subscribe("x", received)
        for count in range(1, 11):
            await bus.wait_connected(10)
            # Every third time some attempts to connect fail as well.
            proxy.refusing = count % 3 == 0
            seen = proxy.connections
            proxy.reset()
            await eventually(partial(_more_connections, proxy, seen))
            proxy.refusing = False
        await bus.wait_connected(10)
        bus.publish("x", b"still here")
        await eventually(lambda: bool(received.messages))


def _more_connections(proxy: Proxy, seen: int) -> bool:
    return proxy.connections > seen


async def test_what_is_written_while_the_connection_breaks_raises_nothing_else(
    proxy: Proxy,
) -> None:
    """Between the reset and its discovery a write must fail as `Unavailable` or not at all."""
    async with make_bus(proxy.url) as bus:
        for _ in range(20):
            await bus.wait_connected(10)
            proxy.reset()
            while bus.connected:
                with suppress(Unavailable):
                    bus.write(b"PUB x 2000\r\n%b\r\n" % bytes(2000))
                await asyncio.sleep(0)


async def test_a_server_that_falls_silent_is_noticed(nats: Nats, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with (
        make_bus(nats.url, "idle") as idle,
        make_bus(nats.url, "busy") as busy,
        make_bus(proxy.url, "behind a black hole") as behind,
    ):
        buses = (idle, busy, behind)
        for each in buses:
            await each.wait_connected(10)
        started = loop.time()
        nats.process.send(signal.SIGSTOP)
        proxy.down.hold()
        # Closing must not wait until the server takes what is in the buffer: it never will.
        busy.write(b"PUB x 900000\r\n%b\r\n" % bytes(900_000) * 12)
        await eventually(lambda: not any(each.connected for each in buses), within_s=20)
        assert loop.time() - started < 6
        nats.process.send(signal.SIGCONT)
        proxy.clear()
        for each in buses:
            await each.wait_connected(10)
            assert each.reconnects == 1


async def test_a_server_that_never_greets_is_given_up(proxy: Proxy) -> None:
    proxy.down.hold()
    async with make_bus(proxy.url) as bus:
        await eventually(lambda: proxy.connections >= 2, within_s=15)
        assert not bus.connected
        proxy.clear()
        await bus.wait_connected(10)


async def test_a_protocol_error_closes_and_comes_back(bus: Bus) -> None:
    received = Received()
    bus.subscribe("x", received)
    pending = asyncio.create_task(bus.request("nobody.yet", timeout_s=10))
    await asyncio.sleep(0)
    bus.write(b"PUB " + b"x" * 5000 + b" 0\r\n\r\n")
    with pytest.raises(Unavailable):
        await pending
    await eventually(lambda: bus.reconnects == 1)
    bus.publish("x", b"again")
    await eventually(lambda: received.payloads == [b"again"])


async def test_what_does_not_speak_nats_is_tried_again() -> None:
    greeted = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b"x" * 200_000 if greeted % 2 else b"INFO {\r\n")
        try:
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with make_bus(f"nats://127.0.0.1:{port}") as bus:
            await eventually(lambda: greeted >= 4)
            assert not bus.connected
    finally:
        server.close()
        await server.wait_closed()


# --- requests ---


async def test_a_request_gets_its_reply(bus: Bus) -> None:
    def echo(_: bytes, reply: bytes, header: bytes | None, data: bytes) -> None:
        bus.publish(reply.decode(), data + (header or b""))

    bus.subscribe("echo", echo)
    header = b"NATS/1.0\r\nX: y\r\n\r\n"
    replies = await asyncio.gather(
        *(bus.request("echo", b"%d" % n, timeout_s=5) for n in range(100)),
        bus.request("echo", b"with ", timeout_s=5, header=header),
    )
    assert [each.data for each in replies[:100]] == [b"%d" % n for n in range(100)]
    assert replies[100] == Reply(None, b"with " + header)
    assert not bus._answers


async def test_a_request_to_nobody_fails_at_once(bus: Bus) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Unavailable, match="nobody"):
        await bus.request("nobody.here", timeout_s=30)
    assert loop.time() - started < 5


async def test_a_request_has_a_deadline(bus: Bus) -> None:
    bus.subscribe("silent", Received())
    with pytest.raises(Unavailable, match=r"silent .* 0\.1 s"):
        await bus.request("silent", timeout_s=0.1)
    assert not bus._answers


async def test_pending_requests_fail_when_the_connection_drops(proxy: Proxy) -> None:
    async with make_bus(proxy.url) as bus:
        await bus.wait_connected(10)
        received = Received()
        bus.subscribe("silent", received)
        pending = [asyncio.create_task(bus.request("silent", timeout_s=60)) for _ in range(50)]
        await eventually(lambda: len(received.messages) == 50)
        proxy.reset()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*pending, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in outcomes)
        assert not bus._answers


async def test_pending_requests_fail_at_close(nats: Nats) -> None:
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        received = Received()
        bus.subscribe("silent", received)
        pending = asyncio.create_task(bus.request("silent", timeout_s=60))
        await eventually(lambda: bool(received.messages))
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="lost"):
            await pending


async def test_a_late_reply_is_ignored(bus: Bus) -> None:
    received = Received()
    bus.subscribe("late", received)
    with pytest.raises(Unavailable):
        await bus.request("late", timeout_s=0.05)
    await eventually(lambda: bool(received.messages))
    bus.publish(received.messages[0][1].decode(), b"too late")
    assert (await bus.request("$SYS.REQ.USER.INFO", timeout_s=5)).data
    assert bus.handler_errors == 0


# --- handlers, bounds, end ---


async def test_a_handler_that_raises_does_not_end_the_connection(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(subject: bytes, *_: object) -> None:
        raise ZeroDivisionError("on purpose")

    received = Received()
    bus.subscribe("bad", fail)
    bus.subscribe("good", received)
    for _ in range(3):
        bus.publish("bad", b"")
    bus.publish("good", b"1")
    await eventually(lambda: received.payloads == [b"1"])
    assert bus.handler_errors == 3
    assert bus.reconnects == 0
    assert [each.levelno for each in caplog.records].count(logging.ERROR) == 3


async def test_a_listener_that_raises_does_not_end_the_bus(proxy: Proxy) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("fail")
        raise ZeroDivisionError("on purpose")

    async with make_bus(proxy.url) as bus:
        bus.on_connect(fail)
        bus.on_connect(lambda: calls.append("good"))
        end = bus.on_connect(lambda: calls.append("ended"))
        end()
        await bus.wait_connected(10)
        proxy.reset()
        await eventually(lambda: bus.reconnects == 1)
        assert calls == ["fail", "good"] * 2


async def test_an_unsubscribed_handler_is_not_called(bus: Bus) -> None:
    ended, other = Received(), Received()
    sid = bus.subscribe("x", ended)
    bus.subscribe("x", other)
    bus.unsubscribe(sid)
    bus.unsubscribe(sid)
    bus.unsubscribe(999)
    bus.publish("x", b"")
    await eventually(lambda: bool(other.messages))
    assert not ended.messages


async def test_what_the_server_does_not_take_is_bounded(bus: Bus, nats: Nats) -> None:
    nats.process.send(signal.SIGSTOP)
    one = b"PUB x 900000\r\n%b\r\n" % bytes(900_000)

    def write_much() -> None:
        for _ in range(60):
            bus.write(one)

    with pytest.raises(Overloaded):
        write_much()
    nats.process.send(signal.SIGCONT)


async def test_a_message_too_large_is_refused_before_the_server_ends_the_connection(
    bus: Bus,
) -> None:
    too_large = bytes(bus_module.MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(Refused):
        bus.publish("x", too_large)
    with pytest.raises(Refused):
        await bus.request("x", too_large, timeout_s=5)
    received = Received()
    bus.subscribe("x", received)
    bus.publish("x", too_large[1:])
    await eventually(lambda: bool(received.messages))
    assert bus.reconnects == 0


async def test_close_is_idempotent_and_leaves_nothing(nats: Nats) -> None:
    before = asyncio.all_tasks()
    unused = make_bus(nats.url)
    await unused.close()
    await unused.close()
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(10)
        await bus.close()
        assert not bus.connected
        with pytest.raises(Unavailable):
            bus.publish("x", b"")
        with pytest.raises(Unavailable):
            await bus.request("x", timeout_s=1)
        await bus.close()
    assert asyncio.all_tasks() <= before


async def test_close_is_not_missed_at_any_moment_of_connecting(nats: Nats) -> None:
    """`asyncio.wait_for` of Python 3.11 swallows a cancellation that comes with the result."""
    before = asyncio.all_tasks()
    turns = 0
    connected = False
    while not connected:
        bus = await make_bus(nats.url).__aenter__()
        for _ in range(turns):
            await asyncio.sleep(0)
        connected = bus.connected
        async with asyncio.timeout(5):
            await bus.close()
        turns += 1
    await eventually(lambda: asyncio.all_tasks() <= before)


@pytest.mark.parametrize("state", ["connecting", "connected", "paused", "refused"])
async def test_close_is_quick_in_any_state(nats: Nats, proxy: Proxy, state: str) -> None:
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    bus = make_bus(nats.url if state == "paused" else proxy.url)
    if state == "connecting":
        proxy.down.hold()
    proxy.refusing = state == "refused"
    async with bus:
        if state in ("connected", "paused"):
            await bus.wait_connected(10)
        else:
            await eventually(lambda: proxy.connections > 0)
        if state == "paused":
            nats.process.send(signal.SIGSTOP)
            bus.write(b"PUB x 900000\r\n%b\r\n" % bytes(900_000) * 12)
        started = loop.time()
    # A cancellation that `wait_for` swallows costs the time in which a server has to greet.
    assert loop.time() - started < bus_module.CONNECT_TIMEOUT_S + 5
    proxy.clear()
    proxy.reset()
    await eventually(lambda: asyncio.all_tasks() <= before)


def test_the_status_of_an_answer() -> None:
    assert status_of(None) == 0
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == 0
    assert status_of(b"NATS/1.0 503\r\n\r\n") == 503
    assert status_of(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n") == 204


async def test_addresses_for_people_have_no_password() -> None:
    urls = ("nats://hikyaku:hush@one:4222", "tls://hush@two:4222", "nats://three:4222")
    bus = Bus(replace(as_role(""), urls=urls), name="test")
    assert bus.address == "nats://one:4222, tls://two:4222, nats://three:4222"
