"""`hikyaku search rebuild`: the search index made anew from MongoDB, while the old one answers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from search.config import SearchConfig
from search.errors import SearchError
from search.indexes import Indexes
from search.server import SearchServer
from store.database import Database, connect
from store.errors import StoreError
from store.searchable import Searchable, SearchNumbers
from workers.rebuild import Overtaken, Rebuild, Rebuilt
from workers.settle import Settler

from .errors import UserError
from .local_stack import hint, of_local_stack
from .settings import Settings, worker_config

THREADS = 2
SHOWN = 10


class Failed(UserError):
    """The search cannot do it now."""

    exit_code = 1


class Opened(NamedTuple):
    """What writes the index."""

    indexes: Indexes
    numbers: SearchNumbers
    messages: Searchable
    settler: Settler


@asynccontextmanager
async def opened(config: SearchConfig, database: Database) -> AsyncIterator[Opened]:
    """The search of a site."""
    async with SearchServer(config, threads=THREADS) as server:
        indexes, messages = Indexes(server, config), Searchable(database)
        settler = Settler(messages, indexes, days=config.days)
        yield Opened(indexes, SearchNumbers(database), messages, settler)


def rebuild(settings: Settings) -> int:
    """Make the index anew; gives 1 if the server refused a message. Raises `UserError`."""
    try:
        rebuilt = asyncio.run(_rebuild(of_local_stack(settings)))
    except (SearchError, StoreError) as error:
        where = hint(settings) if error.retryable else ""
        raise Failed(f"the index is as it was: {error}{where}") from None
    except Overtaken as error:
        raise Failed(f"the index is as it was: {error}") from None
    print(f"The index was made anew from {rebuilt.messages} messages, and is searched now.")
    for key, why in list(rebuilt.refused.items())[:SHOWN]:
        print(f"message {key} is not in it: {why}", file=sys.stderr)
    if len(rebuilt.refused) > SHOWN:
        print(f"and {len(rebuilt.refused) - SHOWN} others are not", file=sys.stderr)
    return 1 if rebuilt.refused else 0


async def _rebuild(settings: Settings) -> Rebuilt:
    config = worker_config(settings)
    async with connect(config.store) as database, opened(config.search, database) as search:
        work = Rebuild(search.messages, search.numbers, search.indexes, search.settler)
        with _bar() as bar:
            task = bar.add_task("messages", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return await work.run(progress)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
