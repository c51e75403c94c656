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
from broker.errors import BrokerError, InvalidName
from broker.log import Log
from broker.personal import forget_delivered, forget_presence, forget_read
from broker.requests import Failure, ask
from broker.snowflake import unix_ms
from search.errors import SearchError
from search.filters import from_filter
from store.archive import Archive
from store.archive_lease import Busy
from store.archive_retention import Retention
from store.devices import Devices
from store.errors import StoreError
from store.file_sweep import Sweep
from store.files import Files
from store.personal import reactions_of, without_reactions
from store.pushes import Pushes
from workers.archive import NAMES

from .archive import Failed
from .errors import UserError
from .personal import LEASE_S, Held, archive_at_rest, holding, persisted
from .search import opened
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
    try:
        token = subjects.encode(user, "--user")
    except InvalidName as error:
        raise UserError(str(error)) from None
    if not sure and not _confirmed(user):
        raise UserError("nothing was erased")
    path = Path(report or f"erased-{token}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json").expanduser()
    told = _reported(path, lambda: asyncio.run(_erase(settings, user)))
    _show(told)
    print(f"\nThis report is in {path}.")
    if told["failed"] is None:
        return 0
    raise Failed(f"{told['failed']}. Mend that and repeat the command: it does what is left")


def _reported(path: Path, erasing: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Write the report of what is done; the file is opened before, so that it can be written."""
    try:
        with path.open("ab") as file:
            if file.tell():
                raise UserError(f"{path} is there already; name a new file with --report")
            try:
                told = erasing()
            except UserError:
                path.unlink()
                raise
            file.write(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
            return told
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


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
        done: dict[str, int] = {}
        failed = None
        try:
            for what, step in STEPS:
                done[what] = await step(erasing)
        except (BrokerError, StoreError, Failed) as error:
            failed = str(error)
        return {
            "user": user,
            "begun": f"{begun:%Y-%m-%d %H:%M:%S} UTC",
            "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            "failed": failed,
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
            "what": "the places of deleted messages: whose, where, when, by whom; without content",
            "until": "they are removed by retention",
        },
        {
            "what": "the user id in ids of conversations of two, and where others mention it",
            "until": "those others remove it",
        },
        {
            "what": "names and sizes of files that others have sent on in the same chat",
            "until": "those others delete their messages",
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
    print(f"Erased {told['user']!r}{':' if told['failed'] is None else ' in part:'}")
    for what, count in told["done"].items():
        print(f"  {what}: {count}")
    if told["failed"] is not None:
        return
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
    raise Failed(f"{erasing.user!r} goes on writing; end its account first")


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
    waiting: list[tuple[str, Any]] = []

    async def commit(name: str, event: Any) -> None:
        msg_id = subjects.message_id_header(_SENDER, name)
        await erasing.committer.commit(event.chat_id, events.encode(event), msg_id=msg_id)

    async def commit_all() -> int:
        await asyncio.gather(*(commit(*each) for each in waiting))
        done = len(waiting)
        waiting.clear()
        return done

    async for each in found:
        waiting.append(each)
        if len(waiting) == TOGETHER:
            count += await commit_all()
    return count + await commit_all()


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


async def _forget_search(erasing: Erasing) -> int:
    """From all indexes, also one that is being built: MongoDB has no content of theirs any more.

    `index` removes them too, when it comes to the deletions; this does not wait for it.
    """
    held = erasing.held
    try:
        async with opened(held.config.search, held.database) as search:
            chosen = from_filter(erasing.user)
            numbers = await search.indexes.numbers()
            return sum([await search.indexes.forget(each, chosen) for each in numbers])
    except SearchError as error:
        raise Failed(f"not removed from the search index: {error}") from None


async def _forget_pointers(erasing: Erasing) -> int:
    mirrored = await erasing.held.personal.forget_pointers(erasing.user)
    return max(mirrored, await forget_read(erasing.held.bus, erasing.user))


async def _forget_delivered(erasing: Erasing) -> int:
    return await forget_delivered(erasing.held.bus, erasing.user)


async def _forget_created(erasing: Erasing) -> int:
    return await erasing.held.personal.forget_created(erasing.user)


async def _forget_presence(erasing: Erasing) -> int:
    return await forget_presence(erasing.held.bus, erasing.user)


async def _forget_devices(erasing: Erasing) -> int:
    """And what waits to be pushed, which is not counted: it comes and goes by itself."""
    database = erasing.held.database
    await Pushes(database).forget(erasing.user)
    return await Devices(database).forget(erasing.user)


async def _remove_files(erasing: Erasing) -> int:
    """The user's files, also where somebody else has sent one on; then the bytes of no file."""
    held = erasing.held
    removed = await Files(held.database).forget(erasing.user)
    retention = Retention(held.database, NAMES, held.config.archive.retention_days)
    sweep = Sweep(held.database, held.files, retention)
    await sweep.remove_contents(unix_ms())
    await sweep.collect()
    return removed


STEPS: list[Step] = [
    ("groups left", _leave_groups),
    ("groups that no longer name their maker", _forget_created),
    ("messages deleted in all chats", _delete_messages),
    ("reactions taken back", _take_back_reactions),
    ("archived messages rewritten", _rewrite_archive),
    ("messages removed from the search index", _forget_search),
    ("files removed", _remove_files),
    ("read pointers removed", _forget_pointers),
    ("delivery pointers removed", _forget_delivered),
    ("presence keys removed", _forget_presence),
    ("devices and settings of pushes removed", _forget_devices),
]
"""In this order; what later stores hold about a person is added here."""
