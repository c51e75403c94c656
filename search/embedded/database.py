"""SQLite as it is used here: every commit is on disk, readers do not wait for the writer."""

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 30.0
_READERS = 8


class Database:
    """One file: a connection for the one writer, some for readers."""

    def __init__(self, path: Path, schema: str):
        self._path = path
        self.writer = self._connect()
        self.writer.execute("PRAGMA journal_mode=WAL")
        self.writer.executescript(schema)
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(_READERS):
            self._readers.put(None)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-16000")
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is written inside is on disk afterwards, all or, after an error, nothing."""
        self.writer.execute("BEGIN IMMEDIATE")
        try:
            yield self.writer
        except BaseException:
            self.writer.execute("ROLLBACK")
            raise
        self.writer.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file throughout."""
        connection = self._readers.get(timeout=WAIT_S)
        try:
            if connection is None:
                connection = self._connect()
                connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")
        finally:
            self._readers.put(connection)

    def close(self) -> None:
        """Close all connections that are not in use."""
        for _ in range(_READERS):
            connection = self._readers.get(timeout=WAIT_S)
            if connection is not None:
                connection.close()
        self.writer.close()
