"""The stored cursor: when it is saved, and how a file keeps it."""

import asyncio
import os
from pathlib import Path

import pytest

from client import Client, FileCursorStore, MemoryCursorStore, errors
from client.cursor_file import default_path
from client.inbox import Inbox
from client.keeper import CursorKeeper
from client.position import Position

from .test_client_server import ScriptedServer, eventually, message
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]


async def next_seq(client: Client) -> int:
    async with asyncio.timeout(10):
        return int(getattr(await anext(client), "seq", 0))


async def test_only_what_was_handed_over_is_saved() -> None:
    async with ScriptedServer() as server:
        store = MemoryCursorStore()
        client = Client(server.url, "t", cursor_store=store)
        await client.start()
        link = await server.online("e1:5")
        await eventually(lambda: store.cursor == "e1:5")
        await link.send(*[message(seq) for seq in range(6, 20)])
        await eventually(lambda: len(client._inbox) == 14)
        assert [await next_seq(client) for _ in range(3)] == [6, 7, 8]
        await eventually(lambda: store.cursor == "e1:7")
        await client.close()
        assert store.cursor == "e1:8"


async def test_an_event_whose_handling_failed_comes_again() -> None:
    async with ScriptedServer() as server:
        store = MemoryCursorStore("e1:5")
        serving = asyncio.create_task(server.online("e1:5"))

        async def handle() -> None:
            async with Client(server.url, "t", cursor_store=store) as client:
                await (await serving).send(message(6), message(7))
                assert [await next_seq(client) for _ in range(3)] == [0, 6, 7]
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await handle()
        assert store.cursor == "e1:6"


async def test_within_a_catch_up_the_beginning_is_saved_too() -> None:
    async with ScriptedServer() as server:
        store = MemoryCursorStore("e1:5")
        client = Client(server.url, "t", cursor_store=store)
        await client.start()
        link = await server.accept()
        await link.welcome("e1:9")
        await link.send(message(6), message(7))
        assert [await next_seq(client) for _ in range(2)] == [6, 7]
        await client.close()
        assert store.cursor == "e1:7/5"

        client = Client(server.url, "t", cursor_store=store)
        await client.start()
        link = await server.accept()
        assert link.cursor == "e1:5"
        await link.welcome("e1:9")
        await link.send(message(6), message(7), message(8))
        await link.caught_up("e1:9")
        assert [await next_seq(client) for _ in range(2)] == [8, 0]
        await client.close()
        assert store.cursor == "e1:9"


class Failing(MemoryCursorStore):
    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.saves = 0

    async def save(self, cursor: str) -> None:
        self.saves += 1
        if self.saves <= self.failures:
            raise OSError("disk full")
        await super().save(cursor)


async def test_a_store_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    inbox, store = Inbox(5), Failing(2)
    keeper = CursorKeeper(store, inbox, every_s=0.01)
    inbox.begin_at(Position("e", 1))
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: store.cursor == "e:1")
    running.cancel()
    await asyncio.wait([running])
    assert "disk full" in caplog.text


async def test_a_store_that_fails_at_the_end_is_an_error() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t", cursor_store=Failing(100))
        await client.start()
        await server.online()
        await eventually(lambda: client.state.phase == "online")
        with pytest.raises(OSError, match="disk full"):
            await client.close()


async def test_saves_are_few() -> None:
    inbox, store = Inbox(5), Failing(0)
    keeper = CursorKeeper(store, inbox, every_s=60)
    running = asyncio.create_task(keeper.run())
    for seq in range(1, 500):
        inbox.put(message(seq), Position("e", seq))
        await inbox.get()
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert store.saves == 1
    inbox.settle()
    await keeper.flush()
    await keeper.flush()
    assert (store.saves, store.cursor) == (2, "e:499")


async def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "alice.cursor"
    store = FileCursorStore(path)
    assert await store.load() is None
    await store.save("e1:5")
    await store.save("e1:60")
    assert await store.load() == "e1:60"
    assert os.listdir(path.parent) == ["alice.cursor"]
    assert path.stat().st_mode & 0o077 == 0


async def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileCursorStore(tmp_path / "c")
    await store.save("e1:5")

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        await store.save("e1:6")
    assert await store.load() == "e1:5"
    assert os.listdir(tmp_path) == ["c"]


async def test_a_spoilt_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("nonsense")
    client = Client("ws://127.0.0.1:1", "t", cursor_store=FileCursorStore(path))
    with pytest.raises(errors.CursorStoreError, match="nonsense"):
        await client.start()


def test_the_usual_file_depends_on_user_and_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    paths = {
        default_path(server, user)
        for server in ("ws://a", "ws://b")
        for user in ("alice", "../../bob", "飛脚" * 10)
    }
    assert len(paths) == 6
    assert all(path.parent == tmp_path / "hikyaku" for path in paths)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path("ws://a", "alice").is_relative_to(tmp_path / ".local/state/hikyaku")
