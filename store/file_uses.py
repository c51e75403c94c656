"""Which messages refer to which files; written with the messages, in any order and number.

A use is put down before its message is written, and taken back after the message is known to be
deleted: whichever of a message and its deletion comes first, and whoever writes them, nothing is
left of a deleted message, and no message is without its uses.

Of a file whose author is at another site the use has all that is known here: `from` its author,
`told` what the message says of it, `seq` the message's place.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from bson.int64 import Int64
from pymongo import UpdateOne

from broker import events

from . import bulk, documents
from .database import Database, Document, Session
from .documents import Entry

TOGETHER = 200


class Uses:
    """The collection `file_uses`. Raises `StoreUnavailable`."""

    def __init__(self, database: Database):
        self._database = database
        self._uses = database["file_uses"]
        self._files = database["files"]
        self._messages = database["messages"]

    async def add(self, entries: Iterable[Entry]) -> list[Int64]:
        """These events are about to be written; the ids of the messages with files among them."""
        operations: list[Any] = []
        ids = []
        for seq, event in entries:
            if not isinstance(event, events.Message) or not event.files:
                continue
            if (message := _number(event)) is None:
                continue
            ids.append(message)
            for file in event.files:
                use: Document = {"file": file.id, "message": message, "chat": event.chat_id}
                if "@" in event.from_:
                    told = msgspec.to_builtins(file)
                    use |= {"from": event.from_, "seq": Int64(seq), "told": told}
                key = {"_id": f"{event.id} {file.id}"}
                operations.append(UpdateOne(key, {"$setOnInsert": use}, upsert=True))
        if operations:
            await bulk.write(self._database, self._uses, operations)
        return ids

    async def settle(self, written: list[Int64], entries: Iterable[Entry]) -> None:
        """The events were written as far as they can be; `written` is what `add` gave."""
        deleted = (e.event for e in entries if isinstance(e.event, events.MessageDeleted))
        gone = {number for each in deleted if (number := _number(each)) is not None}
        if written:
            query = {"_id": {"$in": written}, "deleted_seq": {"$exists": False}}
            with self._database.errors():
                stay = {each["_id"] async for each in self._messages.find(query, {"_id": 1})}
            # Also what was sent twice with one `client_id`, and is there only at its first place.
            gone.update(each for each in written if each not in stay)
        if gone:
            await self.release({"message": {"$in": list(gone)}})

    async def release(self, query: Document) -> int:
        """These uses are over: their files may be free now. How many there were."""
        with self._database.errors():
            found = [each async for each in self._uses.find(query, {"file": 1})]
        for start in range(0, len(found), TOGETHER):
            await self._release(found[start : start + TOGETHER])
        return len(found)

    async def _release(self, uses: list[Document]) -> None:
        files = sorted({each["file"] for each in uses})

        async def work(session: Session) -> None:
            gone = {"_id": {"$in": [each["_id"] for each in uses]}}
            await self._uses.delete_many(gone, session=session)
            free = {"$set": {"free": True}}
            await self._files.update_many({"_id": {"$in": files}}, free, session=session)

        await self._database.transaction(work)


def _number(event: events.Message | events.Change) -> Int64 | None:
    """The message's id, or None for one that no edge makes; such events are not stored."""
    try:
        return documents.number(event.id)
    except ValueError:
        return None
