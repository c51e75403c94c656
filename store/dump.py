"""All of the database as files, as of one moment, and back.

A collection is a file of BSON documents one after the other, as `mongodump` writes them and
`mongorestore` reads them; its indexes are data for the backup's manifest. Memory is bounded by one
batch, whatever the size.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from bson import decode_file_iter
from bson.codec_options import CodecOptions
from bson.json_util import dumps, loads
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from .database import Database, Document, Session
from .errors import StoreError

BATCH_DOCUMENTS = 1000
BATCH_BYTES = 8 * 1024 * 1024

MOMENTARY = frozenset({"leases", "file_uploads"})
"""Not kept: who runs the archive just now, and uploads whose parts are on their way."""

_TOO_OLD = 239
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class TooSlow(StoreError):
    """MongoDB did not keep the moment of the backup for as long as reading it took."""


class Moment:
    """The database as it was at one moment."""

    def __init__(self, database: Database, session: Session):
        self._database = database
        self._session = session

    async def names(self) -> list[str]:
        """The collections that a backup has."""
        return [name for name in await self._database.names() if name not in MOMENTARY]

    async def indexes(self, name: str) -> list[Document]:
        """The indexes of a collection but for that of `_id`, as they are made, in plain JSON."""
        answer = await self._database.command({"listIndexes": name})
        found = [dict(each) for each in answer["cursor"]["firstBatch"]]
        kept = [each for each in found if each["name"] != "_id_"]
        for each in kept:
            each.pop("v", None)
            each.pop("ns", None)
        plain: list[Document] = json.loads(dumps(kept))
        return plain

    async def write(self, name: str, write: Callable[[bytes], None]) -> int:
        """Give the documents of a collection to `write`, and how many there were."""
        count = 0
        with self._errors():
            cursor = self._database[name].find_raw_batches(
                {}, session=self._session, batch_size=BATCH_DOCUMENTS
            )
            async for batch in cursor:
                count += _documents_in(batch)
                write(batch)
        return count

    async def values(self, name: str, *fields: str) -> AsyncIterator[Document]:
        """These fields, and `_id`, of all documents of a collection."""
        with self._errors():
            wanted = dict.fromkeys(fields, 1) or {"_id": 1}
            async for each in self._database[name].find({}, wanted, session=self._session):
                yield each

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._database.errors():
                yield
        except OperationFailure as error:
            if error.code != _TOO_OLD:
                raise
            raise TooSlow(
                "MongoDB keeps a moment for minSnapshotHistoryWindowInSeconds only, and reading"
                " all of it took longer: set that parameter of mongod to more seconds"
            ) from error


@asynccontextmanager
async def moment(database: Database) -> AsyncIterator[Moment]:
    """The database as it is now. Raises `TooSlow` where this is left open for too long."""
    async with database.snapshot() as session:
        # The first read fixes the moment.
        with database.errors():
            await database["log"].find_one({}, session=session)
        yield Moment(database, session)


async def filled(database: Database) -> list[str]:
    """The collections that have any document."""
    found = []
    for name in await database.names():
        with database.errors():
            if name not in MOMENTARY and await database[name].find_one({}, {"_id": 1}) is not None:
                found.append(name)
    return found


async def load(database: Database, name: str, file: Any, indexes: Iterable[Document]) -> int:
    """Fill an empty collection from a file of BSON documents; how many there were."""
    count = 0
    for batch in _batches(file):
        with database.errors():
            await database[name].insert_many(batch, ordered=False)
        count += len(batch)
    wanted = loads(json.dumps(list(indexes)))
    if wanted:
        await database.command({"createIndexes": name, "indexes": wanted})
    return count


def _batches(file: Any) -> Iterable[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for each in decode_file_iter(file, _RAW):
        batch.append(each)
        size += len(each.raw)
        if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _documents_in(batch: bytes) -> int:
    count = at = 0
    while at < len(batch):
        at += int.from_bytes(batch[at : at + 4], "little")
        count += 1
    return count
