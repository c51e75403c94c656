"""SIGTERM: everyone is sent elsewhere within the drain time, what was sent is answered, exit 0."""

import asyncio
import signal
import time
import urllib.error
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.chat import Chat, Clients, names
from tests.edges import extra_edge, new_edge, trouble
from tests.raw import CLOSE, Raw, authorized, frame, handshake
from tests.servers import Hikyaku, Site, eventually

pytestmark = pytest.mark.anyio


def stop(edge: Hikyaku) -> None:
    edge.process.send(signal.SIGTERM)


async def exit_code(edge: Hikyaku, within_s: float = 20) -> int:
    process = edge.process._process
    assert process is not None
    return await asyncio.to_thread(process.wait, within_s)


def not_ready(edge: Hikyaku) -> str:
    """Why not: the body of a 503, or that connections are refused; empty when it is ready."""
    try:
        edge.get("/readyz")
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError:
        return "refused"
    return ""


async def test_everyone_is_told_4200_and_the_process_exits_with_0(
    site: Site, tmp_path: Path
) -> None:
    edge = new_edge(site, tmp_path, drain_s="1")
    async with Clients() as connect:
        await edge.start()
        clients = [await connect(edge, user) for user in names(*["u"] * 20)]
        for client in clients:
            await client.say(client.user, "hello")
        started = time.monotonic()
        stop(edge)
        codes = await asyncio.gather(*(client.closed() for client in clients))
        assert [code for code, _ in codes] == [4200] * 20
        assert await exit_code(edge) == 0
        assert time.monotonic() - started < 10
        assert trouble(edge) == []
        back = await connect(site.edges[0], clients[0].user, cursor=clients[0].cursor)
        assert (await back.until("caught_up"))["recovered"] is True


async def test_the_closes_are_spread_over_the_drain_time(site: Site, tmp_path: Path) -> None:
    """Found as twice the drain time for 99 connections."""
    edge = new_edge(site, tmp_path, drain_s="3")
    async with Clients() as connect:
        await edge.start()
        users = names(*["u"] * 99)
        clients = await asyncio.gather(*(connect(edge, user) for user in users))
        started = time.monotonic()
        stop(edge)
        ends: list[float] = []

        async def ended(client: Chat) -> None:
            assert (await client.closed())[0] == 4200
            ends.append(time.monotonic() - started)

        await asyncio.gather(*(ended(client) for client in clients))
        assert await exit_code(edge) == 0
        assert 2 < max(ends) < 5
        assert len([each for each in ends if each < max(ends) / 2]) in range(30, 70)


async def test_while_draining_it_is_not_ready_and_takes_nobody(site: Site, tmp_path: Path) -> None:
    edge = new_edge(site, tmp_path, drain_s="2")
    async with Clients() as connect:
        await edge.start()
        first, last = [await connect(edge, user) for user in names("alice", "bob")]
        assert not not_ready(edge)
        async with Raw(edge) as half_open:
            stop(edge)
            assert (await first.closed())[0] == 4200
            why = not_ready(edge)
            assert why == "refused" or (why.startswith("503 ") and "draining" in why)
            request = authorized(edge, names("late")[0])
            if b" 101 " in await half_open.upgrade(request):
                assert await half_open.closed() in (1012, 4200)
        assert (await last.closed())[0] == 4200
        assert await exit_code(edge) == 0


async def test_what_was_sent_before_is_acked_before_the_close(site: Site, tmp_path: Path) -> None:
    """Found as a close before the acks of messages that were stored a moment later."""
    edge = new_edge(site, tmp_path, drain_s="3")
    async with Clients() as connect:
        await edge.start()
        alice, bob = names("alice", "bob")
        client = await connect(edge, alice)
        await client.say(bob, "hello")
        site.nats.process.send(signal.SIGSTOP)
        for number in range(10):
            await client.send("chat", id=number, client_id=f"c{number}", to=bob, content="x")
        await eventually(lambda: "commit_waiting_events 10" in edge.get("/metrics"))
        stop(edge)
        await eventually(lambda: bool(not_ready(edge)))
        site.nats.process.send(signal.SIGCONT)
        assert (await client.closed())[0] == 4200
        acks = [each for each in client.frames if each["type"] == "ack"][1:]
        assert [ack["id"] for ack in acks] == list(range(10))
        assert await exit_code(edge) == 0
        back = await connect(site.edges[0], alice)
        again = await back.write("chat", client_id="c9", to=bob, content="x")
        assert (again["duplicate"], again["seq"]) == (True, acks[9]["seq"])


async def test_while_sending_at_full_speed_nothing_acked_is_lost(
    site: Site, tmp_path: Path
) -> None:
    edge = new_edge(site, tmp_path, drain_s="1", messages_per_s="1000000", messages_burst="1000000")
    async with Clients() as connect:
        await edge.start()
        users = names(*["u"] * 6)
        (bob,) = names("bob")
        witness = await connect(site.edges[0], bob)
        clients = [await connect(edge, user) for user in users]

        async def pour(client: Chat) -> list[str]:
            sent: list[str] = []
            acks = 0
            try:
                while True:
                    while len(sent) - acks < 50:
                        sent.append(f"{client.user} {len(sent)}")
                        await client.send("chat", client_id=sent[-1], to=bob, content=sent[-1])
                    acks += (await client.receive())["type"] == "ack"
            except ConnectionClosed:
                assert (await client.closed())[0] == 4200
            return sent

        pouring = [asyncio.create_task(pour(client)) for client in clients]
        await witness.until("chat")
        stop(edge)
        sent = await asyncio.gather(*pouring)
        assert await exit_code(edge) == 0
        acked = {
            frame["client_id"]
            for client in clients
            for frame in client.frames
            if frame["type"] == "ack"
        }
        duplicates = 0
        for client, contents in zip(clients, sent, strict=True):
            back = await connect(site.edges[1], client.user)
            first = next((at for at, each in enumerate(contents) if each not in acked), None)
            if first is not None:
                again = await back.write(
                    "chat", client_id=contents[first], to=bob, content=contents[first]
                )
                duplicates += again["duplicate"]
        assert duplicates == 0
        for client, contents in zip(clients, sent, strict=True):
            mine = [each for each in contents if each in acked]
            assert mine == contents[: len(mine)]
            await witness.until("chat", content=mine[-1])
            received = [each for each in witness.contents() if each.startswith(client.user)]
            assert received[: len(mine)] == mine


async def test_clients_that_do_not_read_or_answer_do_not_hold_it_up(
    site: Site, tmp_path: Path
) -> None:
    edge = new_edge(site, tmp_path, drain_s="0.5", first_frame_s="60")
    users = names(*["u"] * 4)
    await edge.start()
    async with (
        Raw(edge, receive_buffer=4096) as deaf,
        Raw(edge) as closing,
        Raw(edge) as silent,
        Raw(edge) as half_open,
    ):
        await deaf.upgrade(authorized(edge, users[0]))
        await closing.upgrade(authorized(edge, users[1]))
        await closing.write(frame(b"\x03\xe8", opcode=CLOSE))
        await silent.upgrade(handshake(edge))
        await half_open.write(handshake(edge)[:50])
        started = time.monotonic()
        stop(edge)
        assert await exit_code(edge) == 0
        assert time.monotonic() - started < 15
        assert await silent.closed() in (1012, 4200)
    assert trouble(edge) == []


async def test_sigterm_before_nats_was_ever_there(tmp_path: Path, site: Site) -> None:
    edge = new_edge(site, tmp_path, nats_url="nats://127.0.0.1:1")
    edge.process.start()
    await eventually(lambda: "503" in not_ready(edge), within_s=20)
    stop(edge)
    assert await exit_code(edge) == 0
    assert trouble(edge) == []


async def test_nobody_there_is_no_reason_to_wait(site: Site, tmp_path: Path) -> None:
    async with extra_edge(site, tmp_path / "other") as other:
        edge = new_edge(site, tmp_path / "empty", drain_s="30")
        await edge.start()
        started = time.monotonic()
        stop(edge)
        assert await exit_code(edge) == 0
        assert time.monotonic() - started < 15
        async with Clients() as connect:
            await connect(other, names("alice")[0])
