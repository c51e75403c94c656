"""The connection to one of several servers: which is asked, and which is left."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.proxy import Proxy
from broker import doubt
from broker.bus import Bus
from broker.doubt import Doubts
from broker.errors import Unavailable
from deploy import local_nats
from tests.brokers import as_role
from tests.servers import Nats, Process

from ..ports import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy(nats: Nats) -> AsyncIterator[Proxy]:
    async with Proxy(nats.port) as proxy:
        yield proxy


async def test_one_of_two_servers_is_enough(nats: Nats, proxy: Proxy) -> None:
    proxy.refusing = True
    config = replace(as_role(nats.url), urls=(proxy.url, nats.url))
    while not proxy.connections:  # it begins with any of them
        async with Bus(config, name="two") as bus:
            await bus.wait_connected(10)
            assert (await bus.request("$SYS.REQ.USER.INFO", timeout_s=5)).data


async def test_a_server_that_hangs_is_not_asked_twice_in_a_row(nats: Nats, proxy: Proxy) -> None:
    proxy.down.hold()
    config = replace(as_role(nats.url), urls=(proxy.url, nats.url))
    buses = [Bus(config, name="two") for _ in range(12)]
    async with AsyncExitStack() as stack:
        for bus in buses:
            await stack.enter_async_context(bus)
        await asyncio.gather(*(bus.wait_connected(30) for bus in buses))
        assert proxy.connections <= len(buses)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server without JetStream, as one is that is cut off; soon in doubt."""
    monkeypatch.setattr(doubt, "DOUBT_S", 0.2)
    port = free_port()
    process = Process((str(local_nats.find()), "-a", "127.0.0.1", "-p", str(port)), tmp_path)
    process.start()
    yield f"nats://127.0.0.1:{port}"
    process.kill()


async def test_a_server_without_jetstream_is_left_for_another(nats: Nats, alone: str) -> None:
    config = replace(as_role(nats.url), urls=(alone, nats.url))

    async def until_answered() -> None:
        async with Bus(config, name="two") as bus:
            while True:
                with suppress(Unavailable):
                    await bus.request("$JS.API.INFO", timeout_s=5)
                    return
                await asyncio.sleep(0.05)

    async with asyncio.timeout(60):
        await asyncio.gather(*(until_answered() for _ in range(8)))


async def test_who_only_listens_leaves_a_server_with_the_others(nats: Nats, alone: str) -> None:
    config = replace(as_role(nats.url), urls=(alone, nats.url))
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        doubts = Doubts()
        async with Bus(replace(config, urls=(alone,)), name="until it listens") as first:
            await first.wait_connected(30)
        buses: list[Bus] = []
        while len(buses) < 2:  # it begins with any of them
            bus = Bus(config, name=f"bus {len(buses)}", doubts=doubts)
            if bus._turns[0] == alone:
                buses.append(await stack.enter_async_context(bus))
        for bus in buses:
            await bus.wait_connected(30)
        asking, listening = buses
        while not listening.reconnects:
            with suppress(Unavailable):
                await asking.request("$JS.API.INFO", timeout_s=5)
            await asyncio.sleep(0.05)
        await listening.request("$JS.API.INFO", timeout_s=5)
