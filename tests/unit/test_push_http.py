"""Connections to push services: what is cut off is closed."""

import asyncio
import gc

import pytest

from workers.push.guard import Url
from workers.push.http import Http, NoAnswer

pytestmark = pytest.mark.anyio


async def test_a_handshake_that_is_cut_off_leaves_no_connection() -> None:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait((reader, writer))

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = Url("127.0.0.1", server.sockets[0].getsockname()[1], "/")
        async with Http(connections=1, timeout_s=0.2) as client:
            for _ in range(5):
                with pytest.raises(NoAnswer):
                    await client.post(url, {}, b"{}")
                reader, writer = accepted.get_nowait()
                async with asyncio.timeout(10):
                    await reader.read()
                writer.close()
                await writer.wait_closed()
            # What is collected while it is open warns, and a warning fails this test.
            gc.collect()
