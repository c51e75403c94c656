"""Light traffic for pictures of dashboards: a bit of everything, within a site and to another."""

import asyncio
import io
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal

from client import ChatEvent, Client, CursorStore, MemoryCursorStore, dm_chat_id
from client.errors import RequestFailed

from .client import token
from .offices import Site
from .proxy import Proxy

TOKYO = ("alice", "carol", "erin", "grace")
OSAKA = ("bob", "dave")
MESSAGES_S, THERE_S, BACK_S = 0.1, 0.15, 0.3
"""Pauses between the messages of one user: within tokyo, from there to osaka, and from osaka."""

ASK_S, FILES_S, COME_S, REFUSED_S = 0.5, 4.0, 5.0, 6.0
FILE_BYTES = 300_000
CUT_AT, CUT_FOR = 0.5, 0.3
"""The link is cut after this share of the time, for such a share of it."""


async def traffic(tokyo: Site, osaka: Site, link: Proxy, seconds: float, folder: Path) -> None:
    """Whatever people do, for so long. Raises what went wrong for one of them, in a group."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        here = {user: await stack.enter_async_context(person(tokyo, user)) for user in TOKYO}
        there = {user: await stack.enter_async_context(person(osaka, user)) for user in OSAKA}
        tasks = [group.create_task(listen(*each, folder)) for each in (here | there).items()]
        tasks += [group.create_task(each) for each in _doings(tokyo, here, there)]
        await asyncio.sleep(seconds * CUT_AT)
        link.sever()
        await asyncio.sleep(seconds * CUT_FOR)
        link.clear()
        await asyncio.sleep(seconds * (1 - CUT_AT - CUT_FOR))
        for task in tasks:
            task.cancel()


def person(site: Site, user: str, store: CursorStore | None = None) -> Client:
    """A user, at one of the site's edges."""
    url = f"ws://{site.target.edge(len(user))}/ws/chat"
    return Client(
        url,
        token(site.target.secret, user),
        user=user,
        cursor_store=store,
        delivery_receipts=True,
    )


async def listen(user: str, client: Client, folder: Path) -> None:
    """Read what comes, and fetch the files of others."""
    async for event in client:
        if isinstance(event, ChatEvent) and event.from_ != user:
            for file in event.files:
                (await client.download(file.id, folder / file.id)).unlink()


def _doings(
    site: Site, here: dict[str, Client], there: dict[str, Client]
) -> Iterator[Coroutine[Any, Any, None]]:
    words = itertools.cycle(("ramen", "sushi", "soba", "udon", "tempura"))
    presence: Iterator[Literal["away", "online"]] = itertools.cycle(("away", "online"))
    alice, carol, bob = here["alice"], here["carol"], there["bob"]
    store = MemoryCursorStore()

    def say(client: Client, to: str) -> Callable[[], Awaitable[object]]:
        return lambda: client.send(to, f"{next(words)} or {next(words)}?")

    def show(client: Client, user: str, to: str) -> Callable[[], Awaitable[object]]:
        async def do() -> None:
            file = await client.upload(dm_chat_id(user, to), io.BytesIO(os.urandom(FILE_BYTES)))
            await client.send(to, "look", attachments=[file.id])

        return do

    async def come_and_go() -> None:
        async with person(site, "heidi", store) as heidi:
            with suppress(TimeoutError):
                async with asyncio.timeout(COME_S / 2):
                    async for _ in heidi:
                        pass

    async def be_refused() -> None:
        with suppress(RequestFailed):
            await carol.send_group("nobody-is-in-it", "hello?")

    async def see() -> None:
        await carol.watch(["alice"])
        await alice.set_presence(next(presence))

    async def read() -> None:
        page = await carol.history(dm_chat_id("alice", "carol"), limit=1)
        for message in page.messages:
            await carol.read(dm_chat_id("alice", "carol"), message.id)

    for client, to in ((alice, "carol"), (carol, "alice"), (here["erin"], "grace")):
        yield every(MESSAGES_S, say(client, to))
    for client, to in ((alice, "bob@osaka"), (here["erin"], "dave@osaka")):
        yield every(THERE_S, say(client, to))
    for client, to in ((bob, "alice@tokyo"), (there["dave"], "erin@tokyo")):
        yield every(BACK_S, say(client, to))
    for client, user, to in (
        (alice, "alice", "carol"),
        (alice, "alice", "bob@osaka"),
        (bob, "bob", "alice@tokyo"),
    ):
        yield every(FILES_S, show(client, user, to))
    yield every(ASK_S, lambda: carol.search(next(words)))
    yield every(ASK_S, read)
    yield every(FILES_S, see)
    yield every(COME_S, say(alice, "heidi"))
    yield every(COME_S, come_and_go)
    yield every(REFUSED_S, be_refused)


async def every(pause_s: float, do: Callable[[], Awaitable[object]]) -> None:
    """Do it again and again, with a pause after each."""
    while True:
        await do()
        await asyncio.sleep(pause_s)
