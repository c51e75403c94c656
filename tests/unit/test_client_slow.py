"""An application that is slow: bounded memory, no deadlock, nothing lost."""

import asyncio

import pytest

from client import ChatEvent, Client
from client.inbox import Inbox
from client.position import Position
from edge.frames import Chat, Pong

from .test_client_server import ScriptedServer, eventually, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

BIG = "x" * 15_000


async def read(client: Client, count: int) -> list[int]:
    seqs: list[int] = []
    async with asyncio.timeout(20):
        while len(seqs) < count:
            event = await anext(client)
            if isinstance(event, ChatEvent):
                seqs.append(event.seq)
    return seqs


async def test_a_slow_application_stops_the_reading_and_resumes_by_cursor() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t", inbox_size=10)
        await client.start()
        link = await server.online()

        async def flood() -> None:
            for seq in range(1, 5000):
                await link.send(message(seq, BIG))

        flooding = asyncio.create_task(flood())
        await eventually(lambda: len(client._inbox) == 10)
        with pytest.raises(TimeoutError):  # 75 MB do not fit anywhere: the server has to wait
            async with asyncio.timeout(2):
                await asyncio.shield(flooding)
        assert len(client._inbox) == 10
        flooding.cancel()
        await asyncio.wait([flooding])
        link.cut()
        seqs = asyncio.create_task(read(client, 600))
        link = await server.accept()
        assert link.cursor is not None
        after = int(link.cursor.partition(":")[2])
        assert after >= 10
        await link.welcome("e1:600")
        await link.send(*[message(seq) for seq in range(after + 1, 601)])
        await link.caught_up("e1:600")
        assert await seqs == list(range(1, 601))
        await client.close()


async def test_a_slow_application_still_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.connection.ANSWER_GRACE_S", 0.05)
    async with ScriptedServer() as server:
        client = Client(server.url, "t", inbox_size=1)
        await client.start()
        link = await server.accept()
        await link.welcome(heartbeat_s=1)
        await link.send(message(1), message(2), message(3))
        for _ in range(2):
            await link.receive(Pong)
        assert await read(client, 3) == [1, 2, 3]
        assert len(server.links) == 1
        await client.close()


async def test_sending_from_within_the_event_loop_never_hangs() -> None:
    """The ack is behind more events than the inbox holds, and nobody reads while sending."""
    async with ScriptedServer() as server:
        client = Client(server.url, "t", inbox_size=4)
        await client.start()
        link = await server.online()
        answered: list[int] = []

        async def echo() -> None:
            async for event in client:
                if isinstance(event, ChatEvent):
                    if event.seq == 1:
                        await client.send("bob", "an answer")
                    answered.append(event.seq)

        echoing = asyncio.create_task(echo())
        await link.send(message(1))
        frame = await link.receive(Chat)
        await link.send(*[message(seq) for seq in range(2, 51)])
        await link.ack(frame, seq=51)
        link = await server.accept()
        assert link.cursor is not None
        after = int(link.cursor.partition(":")[2])
        assert 3 <= after <= 6
        await link.welcome("e1:51")
        for seq in range(after + 1, 51):
            await link.send(message(seq))
        await link.caught_up("e1:51")
        await eventually(lambda: answered == list(range(1, 51)))
        assert len(server.links) == 2
        await client.close()
        await echoing


async def test_typing_is_dropped_before_it_fills_the_inbox() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t", inbox_size=3)
        await client.start()
        link = await server.online()
        for _ in range(50):
            await link.send_raw('{"type":"typing","chat_id":"dm.alice.bob","from":"bob"}')
        await link.send_raw('{"type":"ping"}')
        await link.receive(Pong)
        assert len(client._inbox) == 3
        await client.close()


async def test_the_inbox_counts_what_the_application_has_finished() -> None:
    inbox = Inbox(10)
    inbox.begin_at(Position("e", 0))
    for seq in (1, 2):
        inbox.put(message(seq), Position("e", seq))
    await inbox.get()
    assert inbox.handed_over == Position("e", 0)
    await inbox.get()
    assert inbox.handed_over == Position("e", 1)
    inbox.settle()
    assert inbox.handed_over == Position("e", 2)


async def test_waiting_for_an_event_can_be_cancelled_without_loss() -> None:
    inbox = Inbox(10)
    for seq in range(1, 50):
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.put(message(seq), Position("e", seq))
        waiting.cancel()
        got = await asyncio.wait_for(asyncio.shield(_or_next(waiting, inbox)), 5)
        assert got == seq


async def _or_next(waiting: "asyncio.Task[object]", inbox: Inbox) -> int:
    try:
        event = await waiting
    except asyncio.CancelledError:
        event = await inbox.get()
    assert isinstance(event, ChatEvent)
    return event.seq


async def test_events_are_read_in_one_place() -> None:
    inbox = Inbox(10)
    first = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one place"):
        await inbox.get()
    inbox.put(message(1), None)
    assert await first == message(1) or True
