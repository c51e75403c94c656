"""`hikyaku export`: everything held about one person, as JSON lines and a report for people.

Also what `hikyaku erase` shares with it: the connections, and the wait for MongoDB.
"""

import asyncio
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from broker import personal as buckets
from broker import subjects
from broker.bus import Bus
from broker.consumer import progress
from broker.errors import BrokerError, InvalidName
from broker.log import Log
from store import documents
from store.archive_lease import Busy, Lease
from store.archive_objects import Gone, Objects
from store.database import Database
from store.devices import Devices
from store.errors import StoreError
from store.file_objects import FileObjects
from store.files import Files
from store.personal import Personal, reactions_of
from workers.config import WorkerConfig
from workers.persist import CONSUMER

from .archive import Failed, opened
from .errors import UserError
from .local_stack import hint, of_local_stack
from .settings import Settings, worker_config

CONNECT_S = 5.0
PERSISTED_S = 120.0
LEASE_S = 600.0
POLL_S = 0.1


class Held(NamedTuple):
    """Where data about a person is; a store that comes later goes in here."""

    config: WorkerConfig
    database: Database
    objects: Objects
    files: FileObjects
    personal: Personal
    bus: Bus


@asynccontextmanager
async def holding(settings: Settings, user: str) -> AsyncIterator[Held]:
    """Open everything. Raises `UserError` for a name that no user can have."""
    try:
        subjects.encode(user, "--user")
    except InvalidName as error:
        raise UserError(str(error)) from None
    config = worker_config(of_local_stack(settings))
    try:
        async with AsyncExitStack() as stack:
            _, database, objects = await stack.enter_async_context(opened(settings))
            bus = await stack.enter_async_context(Bus(config.broker, name="personal data"))
            await bus.wait_connected(CONNECT_S)
            personal = Personal(database, objects, chat_of=subjects.group)
            await personal.ensure()
            await Files(database).ensure()
            files = FileObjects(config.files.url)
            yield Held(config, database, objects, files, personal, bus)
    except (BrokerError, StoreError) as error:
        raise Failed(f"{error}{hint(settings) if error.retryable else ''}") from None


async def persisted(bus: Bus) -> None:
    """Wait until MongoDB has all that is in the log now."""
    last = (await Log(bus).state()).last_seq
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PERSISTED_S
    while loop.time() < deadline:
        if (await progress(bus, CONSUMER, to=last)).reached(last):
            return
        await asyncio.sleep(POLL_S)
    behind = f"MongoDB is behind the log for over {PERSISTED_S:g} s"
    raise Failed(f"{behind}: does `hikyaku worker persist` run?")


@asynccontextmanager
async def archive_at_rest(database: Database) -> AsyncIterator[None]:
    """Nothing moves between MongoDB and the archive meanwhile; waits while a run is on."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEASE_S
    while True:
        lease = Lease(database)
        try:
            await lease.__aenter__()
            break
        except Busy:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(1)
    try:
        yield
    finally:
        await lease.__aexit__(None, None, None)


def export(settings: Settings, user: str, to: str) -> int:
    """Write all about a user into a new folder or `.zip` file. Raises `UserError`."""
    target = Path(to).expanduser()
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{target} is there already; name a new folder or file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            made = Path(folder, target.name)
            made.mkdir(mode=0o700)
            counts = asyncio.run(_export(settings, user, made))
            if target.suffix == ".zip":
                _pack(made, target)
            else:
                made.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from None
    for name, count in counts.items():
        print(f"  {name}.jsonl: {count}")
    if any(counts.values()):
        print(f"All that is held about {user!r} is in {target}.")
    else:
        print(f"Nothing is held about {user!r}; {target} says so.")
    return 0


def _pack(folder: Path, target: Path) -> None:
    part = folder.with_name(target.name + ".part")
    part.touch(mode=0o600)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(each, each.relative_to(folder))
    part.replace(target)


async def _export(settings: Settings, user: str, folder: Path) -> dict[str, int]:
    """Write the files; how many lines each has."""
    async with holding(settings, user) as held:
        await persisted(held.bus)
        async with archive_at_rest(held.database):
            counts = {
                name: await _write(folder / f"{name}.jsonl", lines)
                for name, lines in _parts(held, user, folder)
            }
    (folder / "README.txt").write_text(_report(user, counts), encoding="utf-8")
    return counts


def _parts(held: Held, user: str, folder: Path) -> list[tuple[str, AsyncIterator[Any]]]:
    """The files of an export, in order; what later stores hold is added here."""
    personal, devices = held.personal, Devices(held.database)
    return [
        ("messages", _messages(personal, user)),
        ("reactions", _reactions(personal, user)),
        ("groups", _groups(personal, user)),
        ("groups_created", personal.created(user)),
        ("conversations", _conversations(personal, user)),
        ("read_pointers", _pointers(personal, user)),
        ("delivery_pointers", buckets.delivered(held.bus, user)),
        ("presence", buckets.presence_of(held.bus, user)),
        ("devices", _devices(devices, user)),
        ("notifications", _notifications(devices, user)),
        ("files", _files(held, user, folder / "files")),
    ]


async def _write(path: Path, lines: AsyncIterator[Any]) -> int:
    count = 0
    with path.open("wb") as file:
        async for each in lines:
            file.write(msgspec.json.encode(each) + b"\n")
            count += 1
    return count


async def _messages(personal: Personal, user: str) -> AsyncIterator[Any]:
    async for each in personal.sent(user):
        yield documents.view(each)


async def _reactions(personal: Personal, user: str) -> AsyncIterator[Any]:
    async for each in personal.reacted(user):
        for reaction in reactions_of(each, user).values():
            if reaction["on"]:
                message = {"message_id": str(each["_id"]), "chat_id": each["chat"]}
                yield {**message, "emoji": reaction["emoji"]}


async def _groups(personal: Personal, user: str) -> AsyncIterator[Any]:
    async for each in personal.memberships(user):
        yield each._asdict()


async def _conversations(personal: Personal, user: str) -> AsyncIterator[Any]:
    async for each in personal.conversations(user):
        users = [subjects.decode(token) for token in subjects.parse(each).tokens]
        yield {"chat_id": each, "with": next((u for u in users if u != user), user)}


async def _pointers(personal: Personal, user: str) -> AsyncIterator[Any]:
    async for each in personal.pointers(user):
        yield {"chat_id": each.chat_id, "read_up_to": each.message_id, "seq": each.seq}


async def _devices(devices: Devices, user: str) -> AsyncIterator[Any]:
    for each in (await devices.of([user])).get(user, []):
        yield each._asdict()


async def _notifications(devices: Devices, user: str) -> AsyncIterator[Any]:
    for each in (await devices.settings([user])).values():
        yield {**each._asdict(), "muted": sorted(each.muted)}


async def _files(held: Held, user: str, folder: Path) -> AsyncIterator[Any]:
    """Each file's description, its bytes beside them; one that is gone meanwhile is left out."""
    files = Files(held.database)
    async for each in files.of(user):
        path = folder / each.id / each.name
        path.parent.mkdir(parents=True)
        try:
            with path.open("wb") as file:
                async for chunk in held.files.read(each.key, 0, each.size):
                    file.write(chunk)
        except Gone:
            if await files.find(each.id) is not None:
                raise
            continue
        yield {
            "id": each.id,
            "chat_id": each.chat,
            "name": each.name,
            "size": each.size,
            "content_type": each.content_type,
            "sha256": each.sha256,
            "uploaded_at": each.at,
            "path": f"files/{each.id}/{each.name}",
        }


_ABOUT = {
    "messages": "messages sent, in all chats, in MongoDB and the archive",
    "reactions": "reactions given and not taken back",
    "groups": "groups and channels joined, with the role in them",
    "groups_created": "groups and channels made by the user",
    "conversations": "conversations of two",
    "read_pointers": "up to where each chat was read",
    "delivery_pointers": "up to where each chat was delivered to a device",
    "presence": "the status and text chosen, and when the user was last here",
    "devices": "devices registered for pushes, with the tokens that reach them",
    "notifications": "what was set about pushes",
    "files": "files uploaded; their bytes are in the folder `files`",
}


def _report(user: str, counts: dict[str, int]) -> str:
    lines = [
        f"All that this server holds about the user {user!r}",
        f"Written {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "",
        *(f"{name}.jsonl ({count}): {_ABOUT[name]}" for name, count in counts.items()),
        "",
        "One JSON object a line. Times are milliseconds since 1970-01-01 UTC. A message with",
        '"deleted": true has no content any more. The log and the search index hold copies of',
        "the newest, which are the same messages; they leave them by age.",
        "",
    ]
    return "\n".join(lines)
