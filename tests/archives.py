"""What tests of the archive share: events written as `persist` does, and two ways to read them."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from broker import events, subjects
from store import documents
from store.archive import Archive, Report
from store.archive_check import Check
from store.archive_objects import Objects
from store.archive_reader import Reader
from store.archive_retention import Names
from store.config import ArchiveConfig, StoreConfig
from store.database import Database, connect
from store.documents import Entry
from store.history import History, Window
from store.messages import Messages
from workers.archive import NAMES

from .servers import Mongo

COLLECTIONS = (
    *("messages", "chats", "groups", "members"),
    *("archives", "archive_chats", "archive_garbage", "leases"),
)
SMALL = ArchiveConfig(file_rows=7, buckets=2)
FIRST_ID = 1_000_000


class Split:
    """A database with an archive. `cut` is the first id that a run leaves in MongoDB."""

    def __init__(self, database: Database, objects: Objects, config: ArchiveConfig = SMALL):
        self.database = database
        self.objects = objects
        self.config = config
        self.cut = 0
        self.messages = Messages(database)
        self.reader = Reader(database, objects)
        self.history = History(database, chat_of=subjects.group, archive=self.reader)

    def _before(self, days: float) -> int:
        return self.cut if days in (self.config.hot_days, self.config.log_days) else int(days)

    @property
    def archive(self) -> Archive:
        """For retention, days are the id itself."""
        names = Names(self._before, NAMES.group_of, NAMES.chat_of)
        return Archive(self.database, self.objects, self.config, names)

    async def run(self, cut: int) -> Report:
        self.cut = cut
        return await self.archive.run()

    async def problems(self) -> list[str]:
        return [f"{p.key}: {p.what}" async for p in Check(self.database, self.objects).problems()]

    async def hot_ids(self) -> list[int]:
        cursor = self.database["messages"].find({"at": {"$exists": True}}, {"_id": 1})
        return sorted([each["_id"] async for each in cursor])

    async def clear(self) -> None:
        for name in COLLECTIONS:
            await self.database[name].delete_many({})


@contextlib.asynccontextmanager
async def split(
    mongo: Mongo, objects: Objects | Path, name: str, config: ArchiveConfig = SMALL
) -> AsyncIterator[Split]:
    """A database of this name on the server, empty."""
    if isinstance(objects, Path):
        objects = Objects(objects.as_uri())
    async with connect(StoreConfig(url=mongo.url, database=name)) as database:
        made = Split(database, objects, config)
        await made.messages.ensure()
        await made.reader.ensure()
        await made.clear()
        yield made


class Talk:
    """Makes events, each with the next seq and message id."""

    def __init__(self, first_id: int = FIRST_ID) -> None:
        self._seqs = itertools.count(1)
        self._ids = itertools.count(first_id)
        self.sent: list[tuple[str, int, str]] = []

    def say(self, chat: str, content: str, *, by: str = "ann", thread: int | None = None) -> Entry:
        message_id = next(self._ids)
        common: dict[str, Any] = {
            "id": str(message_id),
            "chat_id": chat,
            "from_": by,
            "content": content,
            "content_type": "text",
            "timestamp": message_id,
            "client_id": f"c{message_id}",
            "thread": None if thread is None else str(thread),
            "mentions": ["bob"] if message_id % 3 == 0 else [],
        }
        self.sent.append((chat, message_id, by))
        kind, tokens = subjects.parse(chat)
        event: events.Message
        if kind == "dm":
            event = events.Chat(to=next(iter({*tokens} - {by}), by), **common)
        else:
            event = events.GroupChat(group_id=subjects.decode(tokens[0]), **common)
        return Entry(next(self._seqs), event)

    def edit(self, number: int, content: str) -> Entry:
        chat, message_id, by = self.sent[number]
        event = events.MessageEdited(
            id=str(message_id), chat_id=chat, from_=by, content=content, edited_at=5, client_id="e"
        )
        return Entry(next(self._seqs), event)

    def delete(self, number: int) -> Entry:
        chat, message_id, by = self.sent[number]
        event = events.MessageDeleted(
            id=str(message_id), chat_id=chat, from_=by, deleted_at=6, client_id="d"
        )
        return Entry(next(self._seqs), event)

    def react(self, number: int, emoji: str, by: str, *, removed: bool = False) -> Entry:
        chat, message_id, _ = self.sent[number]
        event = events.Reaction(
            id=str(message_id),
            chat_id=chat,
            from_=by,
            emoji=emoji,
            removed=removed,
            timestamp=7,
            client_id="r",
        )
        return Entry(next(self._seqs), event)


async def seen(history: History, window: Window) -> list[dict[str, Any]]:
    """A page as clients see it, with replies."""
    page = await history.page(window)
    roots = [int(each["_id"]) for each in page]
    replies = await history.replies(window.chat_id, roots, 2**62, deleted=set())
    return [documents.view(each, replies.get(int(each["_id"]), 0)) for each in page]


async def whole(history: History, chat: str) -> list[dict[str, Any]]:
    """All messages of a chat, newest first, page by page."""
    found: list[dict[str, Any]] = []
    before: int | None = None
    while page := await seen(history, Window(chat, before, None, None, 5, False)):
        found += page
        before = page[-1]["seq"]
    return found
