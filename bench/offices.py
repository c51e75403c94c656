"""Whole sites on this machine, linked with invitations: all to the first, each through a proxy."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.ports import free_port

from .proxy import Proxy
from .scenario import BenchError, Target
from .stack import Stack

COMMAND_S = 60.0
MACHINES = 32


class Site(NamedTuple):
    """A running site."""

    name: str
    stack: Stack
    target: Target


class Offices(NamedTuple):
    """The sites by name, the first of which the others dial, and the proxies of those."""

    sites: dict[str, Site]
    links: dict[str, Proxy]


@asynccontextmanager
async def linked(
    folder: Path, names: Sequence[str], *, without: tuple[str, ...] = ()
) -> AsyncIterator[Offices]:
    """Start all and link them. Raises `BenchError`."""
    port = free_port()
    first = names[0]
    offices = Offices({}, {})
    async with AsyncExitStack() as stack:
        for number, name in enumerate(names):
            settings = {
                "HIKYAKU_SITE": name,
                "HIKYAKU_MACHINES": f"{number * MACHINES}-{(number + 1) * MACHINES - 1}",
            }
            if name == first:
                settings["HIKYAKU_LINK_LISTEN"] = f"127.0.0.1:{port}"
            one = Stack(folder, without=without, settings=settings)
            target = await stack.enter_async_context(one)
            offices.sites[name] = Site(name, one, target)
        for name in names[1:]:
            link = offices.links[name] = await stack.enter_async_context(Proxy(port))
            offices.sites[first].stack.environ["HIKYAKU_LINK_ADDRESS"] = f"127.0.0.1:{link.port}"
            said = await command(offices.sites[first], "site", "invite", name)
            invite = re.search(r"hikyaku-site-\S+", said)
            assert invite is not None
            await command(offices.sites[name], "site", "join", invite[0])
            for other in names[1:]:
                if other != name:
                    await command(offices.sites[name], "site", "add", other)
        yield offices


async def command(site: Site, *words: str) -> str:
    """What a command at the site says. Raises `BenchError` if it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", *words),
        env=site.stack.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(COMMAND_S):
        said, _ = await process.communicate()
    if process.returncode:
        raise BenchError(f"{' '.join(words[:2])} at {site.name}: {said.decode().strip()}")
    return said.decode()
