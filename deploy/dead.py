"""`hikyaku dead`: the events that a worker could not handle; shown, and tried again.

A letter is removed when what it was sent to has its event (MongoDB, or the search index), and stays
with its reason when it still cannot.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import events
from broker.bus import Bus
from broker.dead import DeadLetter, DeadLetters
from broker.errors import BrokerError
from search.errors import SearchError
from store.database import connect
from store.documents import Entry
from store.errors import StoreError
from store.messages import Messages
from store.reads import Reads
from workers import index, persist
from workers.config import WorkerConfig

from .errors import UserError
from .local_stack import hint, of_local_stack
from .search import Opened, opened
from .settings import Settings, worker_config

CONNECT_S = 5.0
LISTED = 1000


def run(settings: Settings, action: str, number: int | None, *, every: bool) -> int:
    """Do what was asked; gives 1 if a letter could not be replayed. Raises `UserError`."""
    if (number is None) != (action == "list" or every) or (every and action != "replay"):
        raise UserError("use `dead list`, `dead show N`, `dead replay N` or `dead replay --all`")
    try:
        return asyncio.run(_run(of_local_stack(settings), action, number))
    except (BrokerError, SearchError, StoreError) as error:
        raise UserError(f"{error}{hint(settings) if error.retryable else ''}") from None


async def _run(settings: Settings, action: str, number: int | None) -> int:
    config = worker_config(settings)
    async with _letters(config) as letters:
        if number is None:
            found = await letters.all(LISTED)
        else:
            letter = await letters.get(number)
            if letter is None:
                raise UserError(f"there is no dead letter {number}; see `hikyaku dead list`")
            found = [letter]
        if action == "list":
            _list(found)
        elif action == "show":
            _show(found[0])
        else:
            return await _replay(config, letters, found)
    return 0


@asynccontextmanager
async def _letters(config: WorkerConfig) -> AsyncIterator[DeadLetters]:
    async with Bus(config.broker, name="dead letters") as bus:
        await bus.wait_connected(CONNECT_S)
        yield DeadLetters(bus)


def _list(letters: list[DeadLetter]) -> None:
    if not letters:
        print("There are no dead letters.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("number", "worker", "seq", "subject", "reason"):
        table.add_column(column, overflow="fold")
    for each in letters:
        cells = (str(each.number), each.worker, str(each.seq), each.subject, each.reason)
        table.add_row(*map(Text, cells))
    Console(soft_wrap=True).print(table)


def _show(letter: DeadLetter) -> None:
    print(f"number   {letter.number}")
    print(f"worker   {letter.worker}")
    print(f"seq      {letter.seq}")
    print(f"subject  {letter.subject}")
    print(f"reason   {letter.reason}")
    print(f"event    {letter.event.decode(errors='backslashreplace')}")


async def _replay(config: WorkerConfig, letters: DeadLetters, found: list[DeadLetter]) -> int:
    failed = 0
    async with connect(config.store) as database, opened(config.search, database) as search:
        messages, reads = Messages(database), Reads(database)
        for each in found:
            if each.worker == index.NAME:
                where, reason = "the index", await _index_again(each, search)
            elif each.worker == persist.NAME:
                where, reason = "MongoDB", await _persist_again(each, messages, reads)
            else:
                reason = f"what {each.worker!r} could not handle cannot be replayed here"
            if reason:
                failed += 1
                print(f"letter {each.number} is kept: {reason}", file=sys.stderr)
            else:
                await letters.remove(each.number)
                print(f"letter {each.number} is in {where} (seq {each.seq} on {each.subject})")
    return 1 if failed else 0


async def _index_again(letter: DeadLetter, search: Opened) -> str:
    """Index what the event names as it is now; why that is not possible, or empty."""
    message = index.message_in(letter.subject, letter.event)
    if message is None:
        return "not readable"

    numbers = await search.numbers.read()
    settled = await search.settler.settle([message], numbers.all)
    if settled.unsure:
        return "the message is being changed just now; try again"
    return settled.refused.get(message, "")


async def _persist_again(letter: DeadLetter, messages: Messages, reads: Reads) -> str:
    """Write the event; why that is not possible, or empty."""
    try:
        event = persist.decoded(letter.subject, letter.event)
    except ValueError as error:
        return f"not readable: {error}"
    entries: list[Entry] = []
    receipts: list[persist.Receipt] = []
    if isinstance(event, events.ReadReceipt):
        receipts.append((letter.seq, event))
    elif isinstance(event, events.Message | events.Change):
        entries.append(Entry(letter.seq, event))
    rejected = await persist.store(entries, receipts, messages, reads)
    return rejected[0].reason if rejected else ""
