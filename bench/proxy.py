"""A TCP proxy that misbehaves on demand: it delays, holds, or drops bytes, and resets connections.

What it holds is not lost: after `release` it still reaches the other side, even if whoever sent it
has gone meanwhile, as bytes do that were already on the way.
"""

import asyncio
import random
from contextlib import suppress

from deploy.ports import free_port

CHUNK_BYTES = 64 * 1024
CHUNKS = 1024
STALL_S = 0.4
"""What TCP takes to send a lost packet again, twice its least."""


class Direction:
    """What happens to the bytes that go one way."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.stalls = 0.0
        """The share of chunks that wait `STALL_S` more, as after the loss of a packet."""
        self.passing_bytes: int | None = None
        """How much still passes; what comes after that is dropped. None: everything passes."""
        self.dropped_bytes = 0
        self.held_bytes = 0
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Let nothing pass until `release`: a black hole."""
        self._open.clear()

    def release(self) -> None:
        """Let everything pass again."""
        self._open.set()

    def drop(self, *, after_bytes: int = 0) -> None:
        """Lose everything until `clear`, but for the first `after_bytes`."""
        self.passing_bytes = after_bytes

    def clear(self) -> None:
        """Behave well again."""
        self.delay_s = 0.0
        self.bytes_per_s = None
        self.stalls = 0.0
        self.passing_bytes = None
        self.release()

    async def pass_on(self, chunk: bytes) -> bytes:
        """Wait as long as the chunk has to; returns what is left of it."""
        if self.passing_bytes is not None:
            passing = chunk[: self.passing_bytes]
            self.passing_bytes -= len(passing)
            self.dropped_bytes += len(chunk) - len(passing)
            chunk = passing
        wait_s = self.delay_s
        if self.bytes_per_s is not None:
            wait_s += len(chunk) / self.bytes_per_s
        if random.random() < self.stalls:
            wait_s += STALL_S
        if wait_s:
            await asyncio.sleep(wait_s)
        if not self._open.is_set():
            self.held_bytes += len(chunk)
            await self._open.wait()
        return chunk


class _Link:
    """One connection of a client and the one to the server that belongs to it."""

    def __init__(self, proxy: "Proxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.target_port)
        except OSError:
            self.reset()
            return
        self._writers.append(writer)
        up = asyncio.create_task(self._carry(self._client[0], writer, self._proxy.up))
        down = asyncio.create_task(self._carry(reader, self._client[1], self._proxy.down))
        try:
            await asyncio.gather(up, down)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.wait([up, down])

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        chunks: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS)
        source = asyncio.create_task(self._read(reader, chunks))
        gone = False
        try:
            while chunk := await chunks.get():
                if (passing := await direction.pass_on(chunk)) and not gone:
                    try:
                        writer.write(passing)
                        await writer.drain()
                    except (OSError, RuntimeError):
                        # RuntimeError is uvloop's for a transport that is closed.
                        gone = True
            with suppress(OSError, RuntimeError):
                writer.write_eof()
        finally:
            source.cancel()
            await asyncio.wait([source])

    async def _read(self, reader: asyncio.StreamReader, chunks: "asyncio.Queue[bytes]") -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await chunks.put(chunk)
        await chunks.put(b"")

    def reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        self._client[1].transport.abort()

    async def closed(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Proxy:
    """Listens on a free loopback port in front of `target_port`. Use as a context manager."""

    def __init__(self, target_port: int):
        self.target_port = target_port
        self.port = free_port({target_port})
        self.url = f"nats://127.0.0.1:{self.port}"
        self.up = Direction()
        """From the client to the server. Another object here is for later connections only."""
        self.down = Direction()
        """From the server to the client. Another object here is for later connections only."""
        self.refusing = False
        """Whether new connections are reset at once."""
        self.connections = 0
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.clear()
        links = dict(self._links)
        for task, link in links.items():
            link.reset()
            task.cancel()
        if links:
            await asyncio.wait(links)
        await self._server.wait_closed()

    def clear(self) -> None:
        """Behave well again; what was held goes on its way."""
        self.up.clear()
        self.down.clear()
        self.refusing = False

    def reset(self) -> None:
        """Reset every connection, both sides; what is held is lost with them."""
        for link in self._links.values():
            link.reset()

    def sever(self) -> None:
        """Reset every connection, and whatever comes, until `clear`."""
        self.refusing = True
        self.reset()

    def cut(self) -> None:
        """Reset the clients' sides only: what is held still reaches the server."""
        for link in self._links.values():
            link.cut()

    @property
    def open(self) -> int:
        """How many connections there are, counting those with something still held."""
        return len(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer)
        if self.refusing:
            link.reset()
            return
        task = asyncio.create_task(self._run(link))
        self._links[task] = link
        task.add_done_callback(lambda done: self._links.pop(done))

    async def _run(self, link: _Link) -> None:
        try:
            await link.run()
        finally:
            link.reset()
            await link.closed()
