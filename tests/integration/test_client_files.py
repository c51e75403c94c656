"""Files with the Python client and the terminal, over a connection that breaks."""

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.proxy import Proxy
from client import ChatEvent, Client, dm_chat_id, errors
from client.terminal.app import ChatApp

from ..chat import names
from ..edges import trouble
from ..filesite import FileSite, Web
from ..pictures import picture
from ..servers import token

pytestmark = pytest.mark.anyio

MB = 1024 * 1024


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    site = FileSite(tmp_path_factory.mktemp("client"), HIKYAKU_FILE_BYTES=str(20 * MB))
    try:
        await site.start()
        yield site
        assert [each for server in (*site.edges, site.files) for each in trouble(server)] == []
    finally:
        site.stop()


async def test_a_file_is_sent_and_fetched(site: FileSite, tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    chat = dm_chat_id(alice, bob)
    source = tmp_path / "飛脚 data.bin"
    data = os.urandom(3 * MB)
    source.write_bytes(data)
    told: list[tuple[int, int]] = []
    async with (
        Client(site.edges[0].url, token(alice), user=alice) as a,
        Client(site.edges[1].url, token(bob), user=bob) as b,
    ):
        file = await a.upload(chat, source, progress=lambda *seen: told.append(seen))
        assert (file.name, file.size) == ("飛脚 data.bin", 3 * MB)
        assert told[0][1] == told[-1][1] == told[-1][0] == 3 * MB
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        await a.send(bob, "", attachments=[file.id])
        async with asyncio.timeout(20):
            while not isinstance(event := await anext(b), ChatEvent):
                pass
        assert event.files == [file]
        (message,) = (await b.history(chat)).messages
        assert message.files == [file]
        folder = tmp_path / "saved"
        folder.mkdir()
        paths = [await b.download(file.id, folder) for _ in range(2)]
        assert [each.name for each in paths] == ["飛脚 data.bin", "飛脚 data (1).bin"]
        assert all(each.read_bytes() == data for each in paths)
        named = await b.download(file.id, tmp_path / "named")
        assert named.read_bytes() == data
        assert sorted(each.name for each in folder.iterdir()) == sorted(e.name for e in paths)
        # Side by side: each to a name of its own, or whole to the same one.
        beside = await asyncio.gather(*(b.download(file.id, folder) for _ in range(3)))
        assert sorted(each.name for each in beside) == [f"飛脚 data ({n}).bin" for n in (2, 3, 4)]
        same = await asyncio.gather(*(b.download(file.id, tmp_path / "named") for _ in range(3)))
        assert all(each.read_bytes() == data for each in (*beside, *same))
        assert len(os.listdir(folder)) == 5
        assert await b.file_info(file.id) == file


async def test_sources_of_all_kinds(site: FileSite, tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    chat = dm_chat_id(alice, bob)
    async with Client(site.edges[0].url, token(alice)) as a:
        stream = io.BytesIO(b"not this: and this")
        stream.seek(10)
        file = await a.upload(chat, stream, name="x.txt")
        assert (await a.download(file.id, tmp_path / "x")).read_bytes() == b"and this"
        empty = await a.upload(chat, io.BytesIO())
        assert (empty.name, empty.size) == ("file", 0)
        assert (await a.download(empty.id, tmp_path / "empty")).read_bytes() == b""
        image = await a.upload(chat, io.BytesIO(picture("PNG")), name="x.png")
        small = await a.download(image.id, tmp_path / "small", thumbnail=True)
        assert small.read_bytes()[:4] == b"RIFF"
        link = await a.file_link(image.id, thumbnail=True)
        async with Web(site.edges[1], None) as nobody:
            nobody.base = ""
            assert (await nobody.ask("GET", link)).body == small.read_bytes()
        with pytest.raises(FileNotFoundError):
            await a.upload(chat, tmp_path / "nothing")
        with pytest.raises(IsADirectoryError):
            await a.upload(chat, tmp_path)
        with pytest.raises(OSError, match="No such file"):
            await a.download(image.id, tmp_path / "no" / "folder")


async def test_what_the_server_refuses_is_raised(site: FileSite, tmp_path: Path) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Client(site.edges[0].url, token(alice)) as a:
        with pytest.raises(errors.TooLarge, match="at most"):
            await a.upload(dm_chat_id(alice, bob), io.BytesIO(bytes(21 * MB)))
        with pytest.raises(errors.NotMember):
            await a.upload(dm_chat_id(bob, carol), io.BytesIO(b"x"))
        with pytest.raises(errors.NotFound):
            await a.download("A" * 22, tmp_path)
        assert os.listdir(tmp_path) == []


async def test_a_cut_in_the_middle_is_gone_on_after(site: FileSite, tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(15 * MB)
    cuts = [4 * MB, 9 * MB]
    async with (
        Proxy(site.edges[0].port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", token(alice), user=alice) as a,
    ):
        told: list[int] = []

        def progress(done: int, _: int) -> None:
            if told and done < told[-1]:
                told.clear()
            told.append(done)
            if cuts and done > cuts[0]:
                cuts.pop(0)
                proxy.reset()

        resumed = site.metric("uploads_resumed_total")
        file = await a.upload(dm_chat_id(alice, bob), io.BytesIO(data), progress=progress)
        assert file.size == 15 * MB
        assert not cuts
        assert site.metric("uploads_resumed_total") > resumed
        cuts += [5 * MB, 10 * MB]
        path = await a.download(file.id, tmp_path / "x", progress=progress)
        assert not cuts
        assert path.read_bytes() == data
        assert os.listdir(tmp_path) == ["x"]


async def test_what_does_not_get_on_is_given_up(site: FileSite, tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    chat = dm_chat_id(alice, bob)
    async with (
        Proxy(site.edges[0].port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", token(alice)) as a,
    ):
        file = await a.upload(chat, io.BytesIO(bytes(5 * MB)))
        proxy.up.hold()
        begun = time.monotonic()
        with pytest.raises(errors.TransferStalled) as stalled:
            await a.upload(chat, io.BytesIO(bytes(5 * MB)), patience_s=0.5)
        assert stalled.value.retryable
        with pytest.raises(errors.TransferStalled):
            await a.download(file.id, tmp_path / "x", patience_s=0.5)
        assert time.monotonic() - begun < 10
        assert os.listdir(tmp_path) == []


async def test_a_token_that_expired_is_fetched_again(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    given = [token(alice), token(alice, ttl_s=-5), token(alice)]
    async with Client(site.edges[0].url, lambda: given.pop(0), user=alice) as a:
        a._tokens.discard()
        file = await a.upload(dm_chat_id(alice, bob), io.BytesIO(b"x"))
        assert file.size == 1
        assert given == []
    unconnected = Client(site.edges[0].url, token(alice, ttl_s=-5))
    with pytest.raises(errors.NotAllowed):
        await unconnected.file_info(file.id)
    assert await Client(site.edges[0].url, token(alice)).file_info(file.id) == file


async def test_the_terminal_sends_shows_and_saves_files(site: FileSite, tmp_path: Path) -> None:
    alice, bob = names("alice", "bob")
    source = tmp_path / "my report.txt"
    source.write_text("hello")
    saved = tmp_path / "saved"
    saved.mkdir()
    app = ChatApp(site.edges[0].url, token(alice), alice)
    async with Client(site.edges[1].url, token(bob), user=bob) as other, app.run_test() as pilot:

        async def sees(text: str) -> None:
            async with asyncio.timeout(20):
                while text not in " ".join(str(app.query_one("#lines").render()).split()):
                    await pilot.pause(0.01)

        async def enter(text: str) -> None:
            app.query_one("#input").value = text  # type: ignore[attr-defined]
            await pilot.press("enter")

        async with asyncio.timeout(20):
            while app.client.state.phase != "online":
                await pilot.pause(0.01)
        await enter("/file x")
        await sees("First say to whom")
        await enter(f"/dm {bob}")
        await enter("/save")
        await sees("There is no file here yet")
        await enter(f"/file {tmp_path / 'nothing'}")
        await sees("nothing cannot be read: No such file or directory.")
        await enter(f"/file '{source}'")
        await sees("📎 my report.txt (5 bytes) ✓")
        async with asyncio.timeout(20):
            while not isinstance(event := await anext(other), ChatEvent):
                pass
        assert [each.name for each in event.files] == ["my report.txt"]
        file = await other.upload(dm_chat_id(alice, bob), io.BytesIO(b"answer"), name="answer.txt")
        await other.send(alice, "look", attachments=[file.id])
        await sees("look 📎 answer.txt (6 bytes)")
        await enter(f"/save {tmp_path / 'nowhere'}")
        await sees("There is no folder")
        await enter(f"/save {saved}")
        await sees("Saved as")
        assert (saved / "answer.txt").read_bytes() == b"answer"
    again = ChatApp(site.edges[0].url, token(bob), bob)
    async with again.run_test() as pilot, asyncio.timeout(20):
        while again.client.state.phase != "online":
            await pilot.pause(0.01)
        again.query_one("#input").value = f"/dm {alice}"  # type: ignore[attr-defined]
        await pilot.press("enter")
        while "📎 answer.txt" not in str(again.query_one("#lines").render()):
            await pilot.pause(0.01)
