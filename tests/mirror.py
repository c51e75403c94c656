"""Events as edges store them, and MongoDB compared with the log; what the bench has too."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from bench.mirror import (
    compare,
    deleted,
    edited,
    expected,
    log_entries,
    message,
    new_id,
    reaction,
    stored_documents,
    without_emptiness,
)
from broker import events
from broker.bus import Bus
from broker.consumer import progress
from broker.errors import BrokerError
from broker.streams import Consumer
from workers.persist import CONSUMER

from .brokers import commit_all, last_seq

__all__ = [
    "compare",
    "deleted",
    "edited",
    "expected",
    "log_entries",
    "message",
    "new_id",
    "reaction",
    "stored_documents",
    "without_emptiness",
]

WITHIN_S = 60.0


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
    """Wait until `persist` has acknowledged all that is in the log now."""
    await until_done(bus, CONSUMER, within_s=within_s)


async def until_done(bus: Bus, consumer: Consumer, *, within_s: float = WITHIN_S) -> None:
    """Wait until a consumer has acknowledged all that is in the log now; it may come and go."""
    last = await last_seq(bus)

    async def done() -> bool:
        with suppress(BrokerError):
            return (await progress(bus, consumer, to=last)).reached(last)
        return False

    await until(done, within_s=within_s)
