"""A TCP proxy between an edge and NATS that can hold back what NATS says."""

import asyncio
from types import TracebackType

from .ports import free_port

CHUNK = 65_536


class NatsProxy:
    """Passes everything on, until `hold` stops what NATS sends on one kind of connection.

    An edge names its connections `… publish`, `… live` and `… ask`. Use as a context manager.
    """

    def __init__(self, port: int):
        self._target = port
        self.port = free_port([port])
        self.url = f"nats://127.0.0.1:{self.port}"
        self._gates: dict[bytes, asyncio.Event] = {}
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, kind: str) -> None:
        self._gate(kind.encode()).clear()

    def release(self, kind: str) -> None:
        self._gate(kind.encode()).set()

    def _gate(self, kind: bytes) -> asyncio.Event:
        if kind not in self._gates:
            self._gates[kind] = asyncio.Event()
            self._gates[kind].set()
        return self._gates[kind]

    async def __aenter__(self) -> "NatsProxy":
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above, below = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(await above.readline())
            said = await reader.readline()
            below.write(said)
            kind = next(each for each in (b"live", b"publish", b"ask") if each in said)
            tasks = [
                asyncio.create_task(_pump(reader, below, None)),
                asyncio.create_task(_pump(above, writer, self._gate(kind))),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
        except ConnectionError:
            pass
        finally:
            below.close()
            writer.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None
) -> None:
    try:
        while data := await reader.read(CHUNK):
            if gate is not None:
                await gate.wait()
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
