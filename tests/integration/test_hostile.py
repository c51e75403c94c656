"""Clients that mean harm or do not know better: the edge lives and the others feel nothing."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.chat import Chat, Clients, names
from tests.edges import extra_edge, trouble
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, authorized, frame, handshake, memory
from tests.servers import Hikyaku, Site, eventually, token

pytestmark = pytest.mark.anyio

PROMPT_S = 10.0
SOON_S = 4.0
"""Less than a socket lingers for a client that does not answer a close."""

RESUME_S = 20.0
"""Less than a replay waits for a client that does not read."""

MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def edge(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hikyaku]:
    """The edge under attack: users may send much, and an outbox is small."""
    async with extra_edge(
        site,
        tmp_path_factory.mktemp("attacked"),
        messages_per_s="100000",
        messages_burst="100000",
        outbox_bytes=str(MIB // 4),
        first_frame_s="1",
        request_timeout_s="30",
    ) as edge:
        yield edge


@pytest.fixture(autouse=True)
async def others_feel_nothing(edge: Hikyaku) -> AsyncIterator[None]:
    """Whatever a test did: two others then talk promptly, and the log shows no trouble."""
    yield
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        started = time.monotonic()
        one, two = await connect(edge, alice), await connect(edge, bob)
        await one.say(bob, "all is well")
        await two.until("chat", content="all is well")
        assert time.monotonic() - started < PROMPT_S
    assert edge.process.running
    assert trouble(edge) == []


def said(**fields: object) -> bytes:
    return frame(json.dumps(fields).encode())


# --- bytes that are no frames ---


@pytest.mark.parametrize("parts", [1, 40])
async def test_two_megabytes_in_a_message_are_4013(edge: Hikyaku, parts: int) -> None:
    (mallory,) = names("mallory")
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, mallory))
        size = 2 * MIB // parts
        for number in range(parts):
            fin = number == parts - 1
            await raw.write(frame(b"x" * size, opcode=0 if number else TEXT, fin=fin))
        started = time.monotonic()
        assert await raw.closed() == 4013
        await raw.ended()
        assert time.monotonic() - started < SOON_S


async def test_invalid_utf8_is_a_malformed_frame(edge: Hikyaku) -> None:
    (mallory,) = names("mallory")
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, mallory))
        await raw.read_frame()
        for bad in (
            b"\xff",
            b'{"type":"chat","client_id":"c","to":"b","content":"\xff\xfe"}',
            b"\xc0\x80",
            b'{"type":"\xed\xa0\x80"}',
        ):
            await raw.write(frame(bad))
            error = json.loads((await raw.read_frame())[1])
            assert error["code"] == "bad_frame"
        await raw.write(frame(b"\xc3", fin=False) + frame(b"\x28", opcode=0))
        assert json.loads((await raw.read_frame())[1])["code"] == "bad_frame"


async def test_a_character_may_be_cut_by_fragments(edge: Hikyaku) -> None:
    (alice,) = names("alice")
    text = json.dumps(
        {"type": "chat", "client_id": "c", "to": alice, "content": "飛脚🚚"}, ensure_ascii=False
    ).encode()
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, alice))
        await raw.read_frame()
        for at in range(len(text)):
            last = at == len(text) - 1
            await raw.write(frame(text[at : at + 1], opcode=0 if at else TEXT, fin=last))
            if at == 5:
                await raw.write(frame(b"between", opcode=PING))
        received = [await raw.read_frame() for _ in range(3)]
        assert received[0] == (PONG, b"between")
        frames = {each["type"]: each for each in (json.loads(data) for _, data in received[1:])}
        assert frames["chat"]["content"] == "飛脚🚚"
        assert frames["ack"]["client_id"] == "c"


async def test_binary_frames_are_malformed(edge: Hikyaku) -> None:
    (mallory,) = names("mallory")
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, mallory))
        good = b'{"type":"pong"}'
        await raw.write(b"".join(frame(good, opcode=BINARY) for _ in range(11)))
        assert await raw.closed() == 4022


@pytest.mark.parametrize("junk", [b'{"type":"nonsense","id":%d}', b"[" * 500, b"{%d", b""])
async def test_ten_thousand_malformed_frames_at_once(edge: Hikyaku, junk: bytes) -> None:
    alice, mallory = names("alice", "mallory")
    async with Clients() as connect, Raw(edge) as raw:
        one = await connect(edge, alice)
        await raw.upgrade(authorized(edge, mallory))
        attack = b"".join(
            frame(junk % number if b"%d" in junk else junk) for number in range(10_000)
        )
        writing = asyncio.create_task(raw.write(attack))
        await one.say(alice, "meanwhile")
        codes: list[str] = []
        while (received := await raw.read_frame())[0] != CLOSE:
            codes.append(json.loads(received[1]).get("code", "welcome"))
        assert int.from_bytes(received[1][:2], "big") == 4022
        assert codes[0] == "welcome"
        assert len(codes) == 12
        await writing


async def test_too_many_malformed_frames_and_a_close_behind_them(edge: Hikyaku) -> None:
    """Found as a traceback: the close was parsed before the frames were refused."""
    (mallory,) = names("mallory")
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, mallory))
        await raw.read_frame()
        await raw.write(frame(b"{") * 12 + frame(b"\x03\xe8", opcode=CLOSE))
        assert await raw.closed() in (1000, 4022)
        await raw.ended(SOON_S)


@pytest.mark.parametrize(
    "bytes_sent",
    [
        frame(b"x", masked=False),
        b"\xf1\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        frame(b"x" * 126, opcode=PING),
        frame(b"", opcode=PING, fin=False),
        frame(b"x", opcode=0),
        frame(b"x", fin=False) + frame(b"y"),
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        os.urandom(2000) + b"\xff" * 20,
        frame(b"\x03", opcode=CLOSE),
        frame(b"\x00\x01", opcode=CLOSE),
        frame(b"\x03\xe8\xff\xfe", opcode=CLOSE),
    ],
    ids=["unmasked", "reserved bits", "opcode 3", "long ping", "ping in parts", "lone part",
         "text in text", "2^63 bytes", "noise", "short close", "close 1", "close no utf-8"],
)  # fmt: skip
async def test_what_is_no_websocket_ends_the_connection(edge: Hikyaku, bytes_sent: bytes) -> None:
    (mallory,) = names("mallory")
    for waits in (True, False):
        async with Raw(edge) as raw:
            request = authorized(edge, mallory)
            if waits:
                await raw.upgrade(request)
                await raw.read_frame()
                await raw.write(bytes_sent)
            else:
                await raw.write(request)
                await raw.write(bytes_sent)
            await raw.ended(SOON_S)


# --- handshakes ---


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + os.urandom(400),
        b"nonsense\r\n\r\n",
        b"GET /ws/chat?token=%ff%fe HTTP/1.1\r\nHost: \xff\r\nOrigin: http://[\xff\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: \xff\xfe\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    ids=["plain", "no key", "post", "version 8", "short key", "path", "h2c", "tls", "noise",
         "not utf-8"],
)  # fmt: skip
async def test_what_is_no_handshake_is_refused(edge: Hikyaku, request_: bytes) -> None:
    async with Raw(edge) as raw:
        await raw.write(request_)
        async with asyncio.timeout(PROMPT_S):
            assert await raw.reader.read(1) in (b"H", b"")


async def test_clients_that_leave_in_the_middle_of_the_handshake(edge: Hikyaku) -> None:
    (mallory,) = names("mallory")
    request = authorized(edge, mallory)
    for length in (0, 1, 20, len(request) - 1, len(request), len(request)):
        async with Raw(edge) as raw:
            await raw.write(request[:length])
    for _ in range(30):
        async with Raw(edge) as raw:
            await raw.write(request)
            raw.writer.close()


async def test_handshakes_that_are_never_finished(edge: Hikyaku) -> None:
    alice, mallory = names("alice", "mallory")
    hanging = [Raw(edge) for _ in range(200)]
    try:
        for number, raw in enumerate(hanging):
            await raw.__aenter__()
            await raw.write(authorized(edge, mallory)[: number % 100])
        async with Clients() as connect:
            client = await connect(edge, alice)
            await client.say(alice, "not in the way")
    finally:
        for raw in hanging:
            await raw.__aexit__(None, None, None)


async def test_who_says_nothing_is_shown_out(edge: Hikyaku) -> None:
    before = memory(edge.process.pid)
    silent = [Raw(edge) for _ in range(100)]
    try:
        for raw in silent:
            await raw.__aenter__()
            await raw.upgrade(handshake(edge))
        assert await asyncio.gather(*(raw.closed() for raw in silent)) == [4001] * 100
    finally:
        for raw in silent:
            await raw.__aexit__(None, None, None)
    assert memory(edge.process.pid) - before < 50 * MIB


async def test_one_byte_at_a_time_is_slow_but_right(edge: Hikyaku) -> None:
    (alice,) = names("alice")
    async with Raw(edge) as raw, Clients() as connect:
        client = await connect(edge, alice)
        message = said(type="chat", client_id="slow", to=alice, content="slowly")
        request = authorized(edge, alice)
        for byte in request[:-1]:
            await raw.write(bytes([byte]))
        await raw.upgrade(request[-1:])
        for byte in message:
            await raw.write(bytes([byte]))
        event = await client.until("chat", client_id="slow")
        assert event["content"] == "slowly"


# --- who does not read ---


async def flood(client: Chat, group_id: str, count: int, size: int = 8_000) -> list[str]:
    """Send to a group without waiting for each ack; the contents."""
    contents = [f"{uuid4().hex} {'x' * size}" for _ in range(count)]
    for content in contents:
        await client.send("group_chat", client_id=uuid4().hex, group_id=group_id, content=content)
    for _ in contents:
        await client.until("ack")
    return contents


async def test_a_client_that_never_reads_is_cut_and_resumes_with_everything(
    edge: Hikyaku,
) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one, two = await connect(edge, alice), await connect(edge, bob)
        late = await connect(edge, carol)
        group_id = (await one.group(bob, carol))["group_id"]
        await late.until("member_added")
        async with Raw(edge, receive_buffer=4096) as deaf:
            await deaf.upgrade(authorized(edge, carol))
            late.abort()
            before = memory(edge.process.pid)
            contents: list[str] = []
            for _ in range(15):
                contents += await flood(one, group_id, 40)
            await two.until("group_chat", content=contents[-1])
            assert two.contents() == contents
            assert memory(edge.process.pid) - before < 64 * MIB
            await eventually(lambda: connections(edge) == 2, what="the deaf one was cut")
        back = await connect(edge, carol, cursor=late.cursor)
        assert (await back.until("caught_up"))["missing"] == []
        assert back.contents() == contents


def connections(edge: Hikyaku) -> int:
    body = edge.get("/metrics").splitlines()
    line = next(each for each in body if each.startswith("hikyaku_edge_connections "))
    return int(float(line.split()[1]))


async def test_a_slow_consumer_is_told_4208(edge: Hikyaku) -> None:
    alice, carol = names("alice", "carol")
    async with Clients() as connect, Raw(edge, receive_buffer=4096) as slow:
        one = await connect(edge, alice)
        await slow.upgrade(authorized(edge, carol))
        group_id = (await one.group(carol))["group_id"]
        for _ in range(30):
            await flood(one, group_id, 40)
            if 'closes_total{reason="slow_consumer"} 0.0' not in edge.get("/metrics"):
                break
        assert await slow.closed() == 4208


async def test_a_client_that_asks_to_close_but_does_not_read_is_let_go(edge: Hikyaku) -> None:
    """Found as a connection that stayed for ever, and killed the heartbeat and the drain."""
    alice, carol = names("alice", "carol")
    async with Clients() as connect, Raw(edge, receive_buffer=4096) as deaf:
        one = await connect(edge, alice)
        await deaf.upgrade(authorized(edge, carol))
        group_id = (await one.group(carol))["group_id"]
        await fill(edge, deaf, one, group_id)
        await deaf.write(frame(b"\x03\xe8", opcode=CLOSE))
        await flood(one, group_id, 5)
        await eventually(lambda: connections(edge) == 1, within_s=15)


async def fill(edge: Hikyaku, deaf: Raw, one: Chat, group_id: str) -> None:
    """Send until the kernel takes no more for the deaf one and the edge itself holds some."""
    before, queued = -1, 0
    while queued > before or not queued:
        await flood(one, group_id, 8)
        await one.until("group_chat")
        before, queued = queued, kernel_queue(edge, deaf)


def kernel_queue(edge: Hikyaku, raw: Raw) -> int:
    """Bytes that the kernel holds for a client that does not read, of the server's side."""
    port = raw.writer.get_extra_info("sockname")[1]
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            _, local, remote, _, queues, *_rest = line.split()
            if int(local[-4:], 16) == edge.port and int(remote[-4:], 16) == port:
                return int(queues.split(":")[0], 16)
    raise AssertionError("the connection is gone")


@pytest.mark.parametrize("greeted", [True, False])
async def test_a_flood_of_pings_without_reading_is_bounded(edge: Hikyaku, greeted: bool) -> None:
    (mallory,) = names("mallory")
    before = memory(edge.process.pid)
    async with Raw(edge, receive_buffer=4096) as raw:
        await raw.upgrade(authorized(edge, mallory) if greeted else handshake(edge))
        pings = frame(b"x" * 120, opcode=PING) * 1000
        try:
            async with asyncio.timeout(PROMPT_S):
                for _ in range(400):
                    raw.writer.write(pings)
                    await raw.writer.drain()
        except (TimeoutError, ConnectionError):
            pass
        assert memory(edge.process.pid) - before < 32 * MIB


async def test_a_message_of_endless_empty_parts_is_bounded(edge: Hikyaku) -> None:
    (mallory,) = names("mallory")
    async with Raw(edge) as raw:
        await raw.upgrade(authorized(edge, mallory))
        await raw.write(frame(b"[", fin=False))
        part = frame(b"", opcode=0, fin=False) * 5000
        before = memory(edge.process.pid)
        for _ in range(200):
            await raw.write(part)
        assert memory(edge.process.pid) - before < 4 * MIB


async def test_resuming_clients_that_do_not_read_keep_nobody_from_resuming(
    edge: Hikyaku,
) -> None:
    alice, bob = names("alice", "bob")
    members = names(*["m"] * 5)
    async with Clients() as connect:
        one = await connect(edge, alice)
        two = await connect(edge, bob)
        group_id = (await one.group(bob, *members))["group_id"]
        await two.until("member_added")
        two.abort()
        for _ in range(10):
            await flood(one, group_id, 50)
        deaf = [Raw(edge, receive_buffer=4096) for _ in range(36)]
        try:
            for number, raw in enumerate(deaf):
                await raw.__aenter__()
                request = handshake(
                    edge,
                    path=f"/ws/chat?cursor={two.cursor}",
                    Authorization=f"Bearer {token(members[number % 5])}",
                )
                await raw.write(request)
            back = await connect(edge, bob, cursor=two.cursor)
            await back.until("caught_up", RESUME_S)
            assert len(back.contents()) == 500
        finally:
            for raw in deaf:
                await raw.__aexit__(None, None, None)


# --- many at once ---


async def test_two_thousand_connect_at_once(edge: Hikyaku) -> None:
    (user,) = names("crowd")
    crowd = [Raw(edge) for _ in range(2000)]

    async def come(raw: Raw, number: int) -> None:
        await raw.__aenter__()
        await raw.write(authorized(edge, f"{user}-{number}"))

    async def welcomed(raw: Raw) -> str:
        await raw.reader.readuntil(b"\r\n\r\n")
        kind: str = json.loads((await raw.read_frame(60))[1])["type"]
        return kind

    try:
        await asyncio.gather(*(come(raw, number) for number, raw in enumerate(crowd)))
        async with asyncio.timeout(60):
            assert set(await asyncio.gather(*map(welcomed, crowd))) == {"welcome"}
        assert connections(edge) == 2000
        async with Clients() as connect:
            one = await connect(edge, names("alice")[0])
            await one.say(f"{user}-1999", "one of many")
        event = json.loads((await crowd[1999].read_frame())[1])
        assert event["content"] == "one of many"
    finally:
        for raw in crowd:
            if hasattr(raw, "writer"):
                await raw.__aexit__(None, None, None)
    await eventually(lambda: connections(edge) == 0)
