"""`hikyaku erase`: removes what one person wrote and what is held about them, step by step.

Every step finds by itself what is left for it, so that repeating the command after a failure, or a
kill, finishes the rest. Deletions are events of the log like those of clients: edges tell of them,
`persist` and whoever else reads the log removes the content.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from broker import dead, directory, events, subjects
from broker.committer import Committer
from broker.log import Log
from broker.personal import forget_pointers, forget_presence
from broker.requests import Failure, ask
from broker.snowflake import unix_ms
from store.archive import Archive
from store.archive_lease import Busy
from store.personal import reactions_of, without_reactions
from workers.archive import NAMES

from .archive import Failed
from .errors import UserError
from .personal import LEASE_S, Held, archive_at_rest, holding, persisted
from .settings import Settings

ASK_S = 10.0
TOGETHER = 500
PASSES = 5
DAY_S = 86_400

_SENDER = "\0erase"


class Erasing(NamedTuple):
    """What a step needs."""

    user: str
    held: Held
    committer: Committer


Step = tuple[str, Callable[[Erasing], Awaitable[int]]]
"""What was removed, as a sentence's end, and a function that does it and counts."""


def erase(settings: Settings, user: str, *, sure: bool, report: str | None) -> int:
    """Erase a user, after a question. Raises `UserError`."""
    if not sure and not _confirmed(user):
        raise UserError("nothing was erased")
    day = datetime.now(UTC)
    path = Path(report or f"erased-{subjects.encode(user, '--user')}-{day:%Y%m%d-%H%M%S}.json")
    told = asyncio.run(_erase(settings, user))
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    except OSError as error:
        raise UserError(f"erased, but cannot write {path}: {error.strerror}") from None
    _show(told)
    print(f"\nThis report is in {path}.")
    return 0


def _confirmed(user: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("this cannot be undone; say --yes if you mean it")
    print(f"This removes all that {user!r} wrote, everywhere. It cannot be undone.")
    return input("Type the user id to go on: ") == user


async def _erase(settings: Settings, user: str) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(holding(settings, user))
        committer = Committer(held.bus, Log(held.bus))
        await stack.enter_async_context(committer)
        erasing = Erasing(user, held, committer)
        begun = datetime.now(UTC)
        done = {what: await step(erasing) for what, step in STEPS}
        return {
            "user": user,
            "begun": f"{begun:%Y-%m-%d %H:%M:%S} UTC",
            "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            "done": done,
            "remains": _remains(settings),
        }


def _remains(settings: Settings) -> list[dict[str, str]]:
    now = datetime.now(UTC)

    def until(seconds: float) -> str:
        return f"{now + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC"

    return [
        {
            "what": "copies of events in the log: messages, reactions, read receipts, memberships",
            "until": until(settings.stream_max_age_s),
        },
        {
            "what": "events that could not be handled, in the dead letters (`hikyaku dead list`)",
            "until": until(dead.MAX_AGE_S),
        },
        {
            "what": "the places of the deleted messages: who, where and when, without content",
            "until": "they are removed by retention",
        },
        {
            "what": "the user id in ids of conversations of two, and where others mention it",
            "until": "those others remove it",
        },
        {
            "what": "backups, and old versions in an object store that keeps them",
            "until": "you remove them",
        },
        {
            "what": "the account itself: its tokens work until the identity provider ends them",
            "until": "you end it there; do so before, then nothing new is written meanwhile",
        },
    ]


def _show(told: dict[str, Any]) -> None:
    print(f"Erased {told['user']!r}:")
    for what, count in told["done"].items():
        print(f"  {count} {what}")
    print("What remains:")
    for each in told["remains"]:
        print(f"  {each['what']}\n      until {each['until']}")


# --- steps ---


async def _leave_groups(erasing: Erasing) -> int:
    left = 0
    async for each in erasing.held.personal.memberships(erasing.user):
        question = directory.Leave(by=erasing.user, group_id=each.group_id)
        try:
            answer = directory.Changed
            await ask(erasing.held.bus, directory.SERVICE, "leave", question, answer, ASK_S)
            left += 1
        except Failure as failure:
            if failure.code != "not_member":
                raise Failed(f"group {each.group_id!r} not left: {failure.message}") from None
    return left


async def _delete_messages(erasing: Erasing) -> int:
    """Until a pass finds nothing: the user may still have been writing."""
    deleted = 0
    for _ in range(PASSES):
        await persisted(erasing.held.bus)
        async with archive_at_rest(erasing.held.database):
            found = await _publish(erasing, _deletions(erasing))
        if not found:
            return deleted
        deleted += found
    raise Failed(f"{erasing.user!r} goes on writing; end its account first, then repeat this")


async def _deletions(erasing: Erasing) -> AsyncIterator[tuple[str, Any]]:
    async for each in erasing.held.personal.sent(erasing.user):
        if "deleted_seq" not in each:
            yield (
                f"delete {each['_id']}",
                events.MessageDeleted(
                    id=str(each["_id"]),
                    chat_id=each["chat"],
                    from_=erasing.user,
                    deleted_at=unix_ms(),
                    client_id=f"erase-{each['_id']}",
                ),
            )


async def _take_back_reactions(erasing: Erasing) -> int:
    await persisted(erasing.held.bus)
    async with archive_at_rest(erasing.held.database):
        found = await _publish(erasing, _withdrawals(erasing))
    await persisted(erasing.held.bus)
    await erasing.held.personal.forget_reactions(erasing.user)
    return found


async def _withdrawals(erasing: Erasing) -> AsyncIterator[tuple[str, Any]]:
    async for each in erasing.held.personal.reacted(erasing.user):
        for key, reaction in reactions_of(each, erasing.user).items():
            if reaction["on"]:
                yield (
                    f"react {each['_id']} {key} {reaction['seq']}",
                    events.Reaction(
                        id=str(each["_id"]),
                        chat_id=each["chat"],
                        from_=erasing.user,
                        emoji=reaction["emoji"],
                        removed=True,
                        timestamp=unix_ms(),
                        client_id=f"erase-{each['_id']}",
                    ),
                )


async def _publish(erasing: Erasing, found: AsyncIterator[tuple[str, Any]]) -> int:
    """Put events into the log, at most 500 at a time."""
    count = 0
    waiting: list[Awaitable[Any]] = []
    async for name, event in found:
        msg_id = subjects.message_id_header(_SENDER, name)
        data = events.encode(event)
        waiting.append(erasing.committer.commit(event.chat_id, data, msg_id=msg_id))
        count += 1
        if len(waiting) == TOGETHER:
            await asyncio.gather(*waiting)
            waiting = []
    await asyncio.gather(*waiting)
    return count


async def _rewrite_archive(erasing: Erasing) -> int:
    held = erasing.held
    archive = Archive(held.database, held.objects, held.config.archive, NAMES)
    await archive.ensure()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEASE_S
    while True:
        try:
            report = await archive.run(without_reactions(erasing.user))
            return report.changed
        except Busy:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(1)


async def _forget_pointers(erasing: Erasing) -> int:
    mirrored = await erasing.held.personal.forget_pointers(erasing.user)
    return max(mirrored, await forget_pointers(erasing.held.bus, erasing.user))


async def _forget_presence(erasing: Erasing) -> int:
    return await forget_presence(erasing.held.bus, erasing.user)


STEPS: list[Step] = [
    ("groups left", _leave_groups),
    ("messages deleted in all chats", _delete_messages),
    ("reactions taken back", _take_back_reactions),
    ("archived messages rewritten", _rewrite_archive),
    ("read pointers removed", _forget_pointers),
    ("presence keys removed", _forget_presence),
]
"""In this order; what later stores hold about a person is added here."""
