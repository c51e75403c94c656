"""Tasks: what a request asks for, done in order and later, and kept with how it went."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

Kind = Literal[
    "documentAdditionOrUpdate",
    "documentDeletion",
    "indexCreation",
    "indexUpdate",
    "indexDeletion",
    "indexSwap",
    "settingsUpdate",
]

KINDS: tuple[Kind, ...] = (
    "documentAdditionOrUpdate",
    "documentDeletion",
    "indexCreation",
    "indexUpdate",
    "indexDeletion",
    "indexSwap",
    "settingsUpdate",
)

OTHER_KINDS = (
    "documentEdition",
    "taskCancelation",
    "taskDeletion",
    "dumpCreation",
    "snapshotCreation",
    "export",
    "upgradeDatabase",
    "indexCompaction",
)
"""Types that Meilisearch has and this server never makes; filters may name them."""

STATUSES = ("enqueued", "processing", "succeeded", "failed", "canceled")

DOCUMENT_KINDS = ("documentAdditionOrUpdate", "documentDeletion")
"""Consecutive ones on one index are done together."""


class Task(Struct, kw_only=True):
    """One task. `work` is what it needs to be done, `payload` the file with its documents."""

    uid: int
    kind: Kind
    index_uid: str | None
    enqueued_at: str
    status: str = "enqueued"
    details: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    started_at: str | None = None
    finished_at: str | None = None
    batch_uid: int | None = None
    work: dict[str, Any] = msgspec.field(default_factory=dict)
    payload: str = ""

    def summary(self) -> dict[str, Any]:
        """As it is answered to the request that made it."""
        return {
            "taskUid": self.uid,
            "indexUid": self.index_uid,
            "status": "enqueued",
            "type": self.kind,
            "enqueuedAt": self.enqueued_at,
        }

    def view(self) -> dict[str, Any]:
        """As it is answered to a question about it."""
        return {
            "uid": self.uid,
            "batchUid": self.batch_uid,
            "indexUid": self.index_uid,
            "status": self.status,
            "type": self.kind,
            "canceledBy": None,
            "details": self.details,
            "error": self.error,
            "duration": _duration(self.started_at, self.finished_at),
            "enqueuedAt": self.enqueued_at,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
        }


encode = msgspec.json.Encoder().encode
"""A task as it is kept."""

decode = msgspec.json.Decoder(Task).decode
"""A task that was kept."""


def now() -> str:
    """The time as tasks, indexes and keys say it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _duration(started: str | None, finished: str | None) -> str | None:
    if started is None or finished is None:
        return None
    length = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
    return f"PT{length.total_seconds():f}S"
