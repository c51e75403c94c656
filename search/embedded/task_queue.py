"""The queue of tasks that are not done: on disk before the request is answered.

A task stays here until the documents have its outcome; what was done already when the process
ended between the two is dropped at the next start, by its number.
"""

import os
import threading
from collections import deque
from pathlib import Path

from .database import Database
from .errors import ApiError
from .tasks import DOCUMENT_KINDS, Kind, Task, decode, encode, now

MAX_TASKS = 10_000
MAX_BYTES = 2 * 1024**3
BATCH_BYTES = 64 * 1024**2

_SCHEMA = "CREATE TABLE IF NOT EXISTS queue (uid INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"


class TaskQueue:
    """Tasks in order. Any thread adds, one takes."""

    def __init__(self, folder: Path, *, done: int):
        """`done` is the number of the last task that is done, -1 if none is."""
        self._database = Database(folder / "queue.db", _SCHEMA)
        self.payloads = folder / "payloads"
        self.payloads.mkdir(exist_ok=True)
        with self._database.transaction() as writer:
            writer.execute("DELETE FROM queue WHERE uid <= ?", (done,))
            rows = writer.execute("SELECT body FROM queue ORDER BY uid").fetchall()
        self._tasks = deque(decode(body) for (body,) in rows)
        self._next = self._tasks[-1].uid + 1 if self._tasks else done + 1
        self._sizes = {task.uid: self._size(task.payload) for task in self._tasks}
        self._changed = threading.Condition()
        self._stopping = False
        self._sweep()

    def _sweep(self) -> None:
        used = {task.payload for task in self._tasks}
        for file in self.payloads.iterdir():
            if file.name not in used:
                file.unlink()

    def _size(self, payload: str) -> int:
        return (self.payloads / payload).stat().st_size if payload else 0

    def add(
        self,
        kind: Kind,
        index_uid: str | None,
        *,
        work: dict[str, object],
        details: dict[str, object] | None,
        payload: str = "",
    ) -> Task:
        """Have a task on disk. Its payload is a file here that is on disk already.

        Raises `ApiError` when the queue is full.
        """
        size = self._size(payload)
        with self._changed:
            if len(self._tasks) >= MAX_TASKS or sum(self._sizes.values()) + size > MAX_BYTES:
                raise ApiError(
                    "no_space_left_on_device",
                    "Meilisearch cannot receive write operations because the limit of the task"
                    f" database has been reached ({len(self._tasks)} tasks wait). Try again later.",
                )
            task = Task(
                uid=self._next,
                kind=kind,
                index_uid=index_uid,
                enqueued_at=now(),
                work=work,
                details=details,
                payload=payload,
            )
            with self._database.transaction() as writer:
                writer.execute("INSERT INTO queue VALUES (?, ?)", (task.uid, encode(task)))
            self._next += 1
            self._tasks.append(task)
            self._sizes[task.uid] = size
            self._changed.notify_all()
        return task

    def next_batch(self) -> list[Task]:
        """Wait for tasks to do together; empty when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._tasks) or self._stopping)
            if self._stopping:
                return []
            batch: list[Task] = []
            size = 0
            for task in self._tasks:
                size += self._sizes[task.uid]
                if batch and (size > BATCH_BYTES or not _together(batch[-1], task)):
                    break
                batch.append(task)
            return batch

    def done(self, batch: list[Task]) -> None:
        """Drop tasks that are done, and their payloads."""
        with self._changed:
            with self._database.transaction() as writer:
                writer.execute("DELETE FROM queue WHERE uid <= ?", (batch[-1].uid,))
            for task in batch:
                self._tasks.popleft()
                del self._sizes[task.uid]
                if task.payload:
                    (self.payloads / task.payload).unlink(missing_ok=True)

    def all(self) -> list[Task]:
        """The tasks that are not done, the oldest first."""
        with self._changed:
            return list(self._tasks)

    def stop(self) -> None:
        """Let `next_batch` give nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _together(before: Task, task: Task) -> bool:
    """Whether two consecutive tasks may be done at once."""
    return (
        before.kind in DOCUMENT_KINDS
        and task.kind in DOCUMENT_KINDS
        and before.index_uid == task.index_uid
        and "filter" not in before.work
        and "filter" not in task.work
    )


def sync_folder(folder: Path) -> None:
    """Have new names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
