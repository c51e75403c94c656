"""MongoDB compared with the log, event by event: what each document must be, by pure functions."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from broker import events, subjects
from broker.bus import Bus
from broker.consumer import progress
from broker.errors import BrokerError
from broker.log import Log
from store import documents
from store.database import Database
from store.documents import Document, Entry
from workers.persist import CONSUMER

from .brokers import commit_all

WITHIN_S = 60.0

_numbers = itertools.count(time.time_ns() % 2**50 * 1000)


def new_id() -> str:
    """A message id that no other has."""
    return str(next(_numbers))


def message(sender: str, to: str, content: str, **fields: Any) -> events.Chat:
    """A message as an edge stores it."""
    number = new_id()
    return events.Chat(
        id=number,
        chat_id=subjects.dm(sender, to),
        from_=sender,
        to=to,
        content=content,
        content_type="text",
        timestamp=time.time_ns() // 1_000_000,
        client_id=fields.pop("client_id", f"client {number}"),
        **fields,
    )


def edited(original: events.Chat, content: str) -> events.MessageEdited:
    return events.MessageEdited(
        id=original.id,
        chat_id=original.chat_id,
        from_=original.from_,
        content=content,
        edited_at=original.timestamp + 1,
        client_id=f"edit {new_id()}",
    )


def deleted(original: events.Chat) -> events.MessageDeleted:
    return events.MessageDeleted(
        id=original.id,
        chat_id=original.chat_id,
        from_=original.from_,
        deleted_at=original.timestamp + 2,
        client_id=f"delete {new_id()}",
    )


def reaction(
    original: events.Chat, by: str, emoji: str, *, removed: bool = False
) -> events.Reaction:
    return events.Reaction(
        id=original.id,
        chat_id=original.chat_id,
        from_=by,
        emoji=emoji,
        removed=removed,
        timestamp=original.timestamp + 3,
        client_id=f"react {new_id()}",
    )


def conversation(sender: str, to: str, count: int) -> list[events.Message | events.Change]:
    """`count` messages, every tenth of them edited, reacted to, or deleted later."""
    said = [message(sender, to, f"message {number}") for number in range(count)]
    changes: list[events.Message | events.Change] = []
    for number, each in enumerate(said[::10]):
        match number % 3:
            case 0:
                changes += [edited(each, "first edit"), edited(each, "second edit")]
            case 1:
                changes += [reaction(each, to, "+1"), reaction(each, to, "+1", removed=True)]
                changes += [reaction(each, sender, "-1")]
            case _:
                changes += [edited(each, "gone soon"), deleted(each)]
    return [*said, *changes]


async def store_in_log(bus: Bus, found: Iterable[events.Message | events.Change]) -> list[int]:
    """Commit events to the log as they are; their seqs."""
    return await commit_all(bus, [(each.chat_id, events.encode(each)) for each in found])


async def log_entries(bus: Bus) -> list[Entry]:
    """Every message and change in the log that can be read."""
    found: list[Entry] = []
    seq, pending = 1, 1
    while pending:
        page = await Log(bus).read(">", seq)
        for stored in page.events:
            try:
                event = events.decode(stored.data)
            except ValueError:
                continue
            if isinstance(event, events.Message | events.Change):
                found.append(Entry(stored.seq, event))
        pending = page.pending
        seq = page.events[-1].seq + 1 if page.events else seq
    return found


def expected(entries: Iterable[Entry]) -> dict[int, Document]:
    """The documents that these events make, applied once and in order."""
    made: dict[int, Document] = {}
    for entry in entries:
        if isinstance(entry.event, events.Message):
            made.setdefault(int(entry.event.id), documents.new(entry))
        else:
            documents.apply(made[int(entry.event.id)], entry.seq, entry.event)
    return made


def without_emptiness(document: Document) -> Document:
    """MongoDB may leave an empty `reactions` where a late reaction came to nothing."""
    return {name: value for name, value in document.items() if (name, value) != ("reactions", {})}


async def stored_documents(database: Database) -> dict[int, Document]:
    return {int(each["_id"]): without_emptiness(each) async for each in database["messages"].find()}


async def assert_mirrors(bus: Bus, database: Database) -> int:
    """MongoDB is what the log says: each message with all its changes, each chat's last seq.

    Returns how many events were compared.
    """
    entries = await log_entries(bus)
    wanted = expected(entries)
    found = await stored_documents(database)
    missing, surplus = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    assert not missing, f"{len(missing)} of {len(wanted)} are missing: {sorted(missing)[:5]}"
    assert not surplus, f"{len(surplus)} are not in the log: {sorted(surplus)[:5]}"
    wrong = [key for key, each in wanted.items() if without_emptiness(each) != found[key]]
    assert not wrong, f"{len(wrong)} differ: {wanted[wrong[0]]} {found[wrong[0]]}"
    last = {each["chat"]: each["seq"] for each in sorted(wanted.values(), key=lambda d: d["seq"])}
    chats = {each["_id"]: each["seq"] async for each in database["chats"].find()}
    assert chats == last
    return len(entries)


async def behind(bus: Bus) -> int:
    """How many events `persist` has not yet acknowledged; -1 when nobody can say."""
    try:
        return (await progress(bus, CONSUMER)).behind
    except BrokerError:
        return -1


async def until(check: Callable[[], Awaitable[bool]], *, within_s: float = WITHIN_S) -> None:
    """Poll until `check` holds; fails the test after `within_s`."""
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {check}"
        await asyncio.sleep(0.02)


async def until_persisted(bus: Bus, *, within_s: float = WITHIN_S) -> None:
    """Wait until `persist` has acknowledged all that is in the log."""

    async def done() -> bool:
        return await behind(bus) == 0

    await until(done, within_s=within_s)
