"""What is true: collections with their documents, and how tasks went, in one SQLite file."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import msgspec
from msgspec import Struct

from .database import Database
from .settings import DEFAULTS, custom_rule
from .tasks import Task, decode, encode
from .text_index import Layout
from .words import fold

SPARE = 8
KEPT_TASKS = 100_000
_CHUNK = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (iid INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS documents (
  iid INTEGER NOT NULL, n INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (iid, n)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS by_id ON documents (iid, id);
CREATE TABLE IF NOT EXISTS done (
  uid INTEGER PRIMARY KEY, batch_uid INTEGER NOT NULL, index_uid TEXT, kind TEXT NOT NULL,
  status TEXT NOT NULL,
  enqueued_at TEXT NOT NULL, started_at TEXT NOT NULL, finished_at TEXT NOT NULL,
  body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""


class Collection(Struct, frozen=True, kw_only=True):
    """An index: all but its documents. `fields` are the attributes in the order of appearance.

    `several` are those that had more than one value in some document.
    """

    iid: int
    uid: str
    primary_key: str | None
    created_at: str
    updated_at: str
    settings: dict[str, Any] = msgspec.field(default_factory=lambda: dict(DEFAULTS))
    fields: tuple[str, ...] = ()
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    size: int = 0
    next_number: int = 0
    generation: int = 0
    slots: int = SPARE
    several: frozenset[str] = frozenset()
    salt: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))

    def layout(self) -> Layout:
        """Which attribute has which place in the text index."""
        searched = self.settings["searchableAttributes"]
        dynamic = searched == ["*"]
        texts = self.fields if dynamic else tuple(searched)
        rules = [found[0] for rule in self.settings["rankingRules"] if (found := custom_rule(rule))]
        sorts = dict.fromkeys([*self.settings["sortableAttributes"], *rules])
        return Layout(
            texts=texts,
            filters=tuple(self.settings["filterableAttributes"]),
            sorts=tuple(sorts),
            spare=max(0, self.slots - len(texts)) if dynamic else 0,
            stop_words=frozenset(fold(word) for word in self.settings["stopWords"]),
            salt=self.salt,
        )


_decode = msgspec.json.Decoder(Collection).decode


class Catalog:
    """The file. One thread writes; any reads."""

    def __init__(self, folder: Path):
        self._database = Database(folder / "documents.db", _SCHEMA)

    def transaction(self) -> AbstractContextManager[Connection]:
        """What the writer does inside is on disk afterwards, or nothing of it is."""
        return self._database.transaction()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # Collections

    def collections(self) -> list[Collection]:
        """All of them."""
        with self._database.reading() as reader:
            rows = reader.execute("SELECT body FROM collections ORDER BY iid").fetchall()
        return [_decode(body) for (body,) in rows]

    def next_iid(self, writer: Connection) -> int:
        """A number that no collection ever had."""
        row = writer.execute("SELECT value FROM facts WHERE name = 'iid'").fetchone()
        iid: int = (row[0] if row else 0) + 1
        writer.execute("INSERT OR REPLACE INTO facts VALUES ('iid', ?)", (iid,))
        return iid

    def save(self, writer: Connection, collection: Collection) -> None:
        """Write a collection, new or changed."""
        body = msgspec.json.encode(collection)
        writer.execute("INSERT OR REPLACE INTO collections VALUES (?, ?)", (collection.iid, body))

    def drop(self, writer: Connection, collection: Collection) -> None:
        """Remove a collection with its documents."""
        writer.execute("DELETE FROM documents WHERE iid = ?", (collection.iid,))
        writer.execute("DELETE FROM collections WHERE iid = ?", (collection.iid,))

    # Documents, as the writer sees them

    def find(self, writer: Connection, iid: int, id: str) -> tuple[int, bytes] | None:
        """Number and body of a document."""
        found: tuple[int, bytes] | None = writer.execute(
            "SELECT n, body FROM documents WHERE iid = ? AND id = ?", (iid, id)
        ).fetchone()
        return found

    def put(self, writer: Connection, iid: int, number: int, id: str, body: bytes) -> None:
        """Write a document, new or changed."""
        writer.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (iid, number, id, body)
        )

    def remove(self, writer: Connection, iid: int, number: int) -> None:
        """Remove a document."""
        writer.execute("DELETE FROM documents WHERE iid = ? AND n = ?", (iid, number))

    def clear(self, writer: Connection, iid: int) -> int:
        """Remove all documents of a collection; gives how many there were."""
        return writer.execute("DELETE FROM documents WHERE iid = ?", (iid,)).rowcount

    def every(self, iid: int) -> Iterator[tuple[int, bytes]]:
        """Number and body of all documents, also of those in the open transaction."""
        yield from self._database.writer.execute(
            "SELECT n, body FROM documents WHERE iid = ? ORDER BY n", (iid,)
        )

    def ids(self, writer: Connection, iid: int, numbers: Sequence[int]) -> list[str]:
        """The ids of documents."""
        return [row[1] for row in _by_number(writer, "n, id", iid, numbers)]

    # Documents, as readers see them

    def bodies(self, iid: int, numbers: Sequence[int]) -> dict[int, bytes]:
        """The bodies of documents that are still there."""
        with self._database.reading() as reader:
            return dict(_by_number(reader, "n, body", iid, numbers))

    def one(self, iid: int, id: str) -> bytes | None:
        """The body of a document."""
        with self._database.reading() as reader:
            found = self.find(reader, iid, id)
        return None if found is None else found[1]

    def some(self, iid: int, ids: Sequence[str]) -> list[bytes]:
        """The bodies of documents with these ids, in the order of their numbers."""
        found: dict[int, bytes] = {}
        with self._database.reading() as reader:
            for at in range(0, len(ids), _CHUNK):
                chunk = ids[at : at + _CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT n, body FROM documents WHERE iid = ? AND id IN ({marks})"  # noqa: S608
                found.update(reader.execute(query, (iid, *chunk)))
        return [found[number] for number in sorted(found)]

    def id_of(self, iid: int, number: int) -> str | None:
        """The id of a document."""
        with self._database.reading() as reader:
            found = next(_by_number(reader, "n, id", iid, [number]), None)
        return None if found is None else str(found[1])

    def page(self, iid: int, offset: int, limit: int) -> list[bytes]:
        """The bodies of documents in the order of their numbers."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT body FROM documents WHERE iid = ? ORDER BY n LIMIT ? OFFSET ?",
                (iid, limit, offset),
            )
            return [body for (body,) in rows]

    def bytes_on_disk(self) -> int:
        """What the file takes."""
        with self._database.reading() as reader:
            (pages,) = reader.execute("PRAGMA page_count").fetchone()
            (size,) = reader.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    # Tasks that are done

    def last_done(self) -> int:
        """The number of the last task that is done, -1 if none is."""
        with self._database.reading() as reader:
            row = reader.execute("SELECT value FROM facts WHERE name = 'done'").fetchone()
        return int(row[0]) if row else -1

    def finish(self, writer: Connection, tasks: Iterable[Task]) -> None:
        """Keep how tasks went. The oldest are forgotten."""
        for task in tasks:
            writer.execute(
                "INSERT INTO done VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    task.uid,
                    task.batch_uid,
                    task.index_uid,
                    task.kind,
                    task.status,
                    task.enqueued_at,
                    task.started_at,
                    task.finished_at,
                    encode(task),
                ),
            )
            writer.execute("INSERT OR REPLACE INTO facts VALUES ('done', ?)", (task.uid,))
            writer.execute("DELETE FROM done WHERE uid <= ?", (task.uid - KEPT_TASKS,))

    def rename_in_tasks(self, writer: Connection, names: dict[str, str]) -> None:
        """Let the history of tasks say the other name, after a swap."""
        marks = ",".join("?" * len(names))
        rows = writer.execute(
            f"SELECT uid, body FROM done WHERE index_uid IN ({marks})",  # noqa: S608
            tuple(names),
        ).fetchall()
        for uid, body in rows:
            task = decode(body)
            task.index_uid = names[str(task.index_uid)]
            writer.execute(
                "UPDATE done SET index_uid = ?, body = ? WHERE uid = ?",
                (task.index_uid, encode(task), uid),
            )

    def task(self, uid: int) -> Task | None:
        """One task that is done."""
        with self._database.reading() as reader:
            row = reader.execute("SELECT body FROM done WHERE uid = ?", (uid,)).fetchone()
        return decode(row[0]) if row else None

    def tasks(
        self,
        where: str,
        values: Sequence[Any],
        *,
        start: int | None,
        descending: bool,
        limit: int,
    ) -> tuple[list[Task], int]:
        """Tasks that are done and match, from number `start` on, and how many match at all."""
        order, reach = ("DESC", "<=") if descending else ("ASC", ">=")
        begin = "" if start is None else f" AND uid {reach} {int(start)}"
        with self._database.reading() as reader:
            rows = reader.execute(
                f"SELECT body FROM done WHERE {where}{begin} ORDER BY uid {order} LIMIT ?",  # noqa: S608
                (*values, limit),
            ).fetchall()
            query = f"SELECT count(*) FROM done WHERE {where}"  # noqa: S608
            (total,) = reader.execute(query, values).fetchone()
        return [decode(body) for (body,) in rows], total


def _by_number(
    connection: Connection, columns: str, iid: int, numbers: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    for at in range(0, len(numbers), _CHUNK):
        chunk = numbers[at : at + _CHUNK]
        marks = ",".join("?" * len(chunk))
        yield from connection.execute(
            f"SELECT {columns} FROM documents WHERE iid = ? AND n IN ({marks})",  # noqa: S608
            (iid, *chunk),
        )
