"""The virus scanner hook, against a server that speaks INSTREAM as `clamd` does."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import subjects
from workers.files import scanner as scanner_module
from workers.files.errors import Refused
from workers.files.scanner import Scanner

from ..chat import names
from ..filesite import FileSite, Web, trickle
from ..servers import eventually

pytestmark = pytest.mark.anyio

MB = 1024 * 1024
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + b"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
STREAM_MAX = 8 * MB


class Clamd:
    """Finds EICAR; has clamd's limit of a stream; `fault` is how it fails."""

    def __init__(self) -> None:
        self.fault = ""
        self.scanned = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, path: str | None = None, port: int = 0) -> int:
        if path is not None:
            self._server = await asyncio.start_unix_server(self._begin, path)
            return 0
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
            if self.fault == "hang":
                await asyncio.sleep(3600)
            data = b""
            while size := struct.unpack(">I", await reader.readexactly(4))[0]:
                data += await reader.readexactly(size)
                if self.fault == "cut":
                    return
                if len(data) > STREAM_MAX:
                    writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                    await writer.drain()
                    return
            self.scanned += 1
            answer = b"stream: OK\0"
            if EICAR in data:
                answer = b"stream: Eicar-Test-Signature FOUND\0"
            if self.fault == "error":
                answer = b"Can't allocate memory ERROR\0"
            if self.fault == "nonsense":
                answer = b"\xff" * 5000 + b"\0"
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@pytest.fixture
async def clamd() -> AsyncIterator[Clamd]:
    clamd = Clamd()
    yield clamd
    await clamd.close()


async def test_infected_files_are_refused_and_named(tmp_path: Path, clamd: Clamd) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    port = await clamd.listen()
    settings = {"HIKYAKU_CLAMD": f"tcp://127.0.0.1:{port}", "HIKYAKU_FILES_SWEEP_S": "0.2"}
    site = FileSite(tmp_path, **settings)
    try:
        await site.start()
        async with Web(site.edges[0], alice) as a:
            clean = await a.upload(chat, trickle(os.urandom(5 * MB), MB))
            assert clamd.scanned == 1
            bad = b"hello " + EICAR
            infected = await a.post(chat, bad)
            assert (infected.status, infected.json["code"]) == (403, "forbidden")
            assert "it is infected: Eicar-Test-Signature" in infected.json["message"]
            assert infected.json["retryable"] is False
            where = (await a.create(chat, len(bad))).headers["Location"]
            assert (await a.patch(where, 0, bad[:20])).status == 204
            last = await a.patch(where, 20, bad[20:])
            assert (last.status, last.json["code"]) == (403, "forbidden")
            assert (await a.tus("HEAD", where)).status == 404
            large = await a.post(chat, trickle(bytes(10 * MB), MB))
            assert (large.status, large.json["code"]) == (413, "too_large")
            assert "virus scanner" in large.json["message"]
            for fault in ("cut", "error", "nonsense"):
                clamd.fault = fault
                answer = await a.post(chat, b"clean")
                assert (answer.status, answer.json["code"]) == (503, "unavailable"), fault
                assert answer.json["retryable"] is True
                assert "virus scanner" in answer.json["message"]
            clamd.fault = ""
            await eventually(lambda: len(site.stored()) == 1, what="only what was found clean")
            assert site.metric("infected_total") == 2
            assert site.metric("scanner_failures_total") == 3
            # Away at the end of a resumable upload: the last part is sent again.
            where = (await a.create(chat, 5)).headers["Location"]
            await clamd.close()
            assert (await a.patch(where, 0, b"clean")).status == 503
            assert (await a.tus("HEAD", where)).headers["Upload-Offset"] == "0"
            assert (await a.get(clean)).status == 200, "what is there can be read"
            await clamd.listen(port=port)
            done = await a.patch(where, 0, b"clean")
            assert (await a.get(done.headers["Hikyaku-File"])).body == b"clean"
    finally:
        site.stop()


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def test_over_a_unix_socket(tmp_path: Path, clamd: Clamd) -> None:
    path = tmp_path / "clamd socket"
    await clamd.listen(str(path))
    scanner = Scanner(f"unix://{str(path).replace(' ', '%20')}")
    await scanner.check(chunks(b"clean", b"x" * MB))
    with pytest.raises(Refused, match="Eicar"):
        await scanner.check(chunks(EICAR[:30], EICAR[30:]))


async def test_a_scanner_that_hangs_is_not_waited_for(
    clamd: Clamd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner_module, "VERDICT_S", 0.2)
    monkeypatch.setattr(scanner_module, "STEP_S", 0.2)
    clamd.fault = "hang"
    scanner = Scanner(f"tcp://127.0.0.1:{await clamd.listen()}")
    with pytest.raises(Refused, match="does not answer") as caught:
        await scanner.check(chunks(b"x"))
    assert caught.value.retryable
    with pytest.raises(Refused, match="does not answer"):
        await scanner.check(chunks(*[bytes(MB)] * 50))
    assert scanner.failures == 2


@pytest.mark.parametrize("url", ["clamd:3310", "http://clamd", ""])
def test_what_is_no_address_of_a_scanner(url: str) -> None:
    with pytest.raises(ValueError, match="expected tcp://"):
        Scanner(url)
