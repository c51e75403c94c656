"""A batch of changes to the documents of one collection, and what they change beside them."""

from collections.abc import Iterable
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import msgspec
from msgspec.structs import replace

from .catalog import SPARE, Catalog, Collection
from .errors import ApiError
from .fields import Attributes, flatten
from .filter_parser import parse
from .filters import Filters
from .ids import guessed_key, id_of
from .payloads import documents
from .tasks import Task, now
from .views import View, decode_document, numbers_of

MAX_FIELDS = 1000
"""Attributes that the documents of a collection may have in all, inner ones included."""

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class DocumentBatch:
    """Tasks are taken with `do`, in order, and written with `flush`."""

    def __init__(
        self, catalog: Catalog, writer: Connection, view: View, *, payloads: Path, missing: bool
    ):
        self._catalog = catalog
        self._writer = writer
        self._index = view.index
        self._collection = view.collection
        self._payloads = payloads
        self._missing = missing
        self._changes: dict[str, bytes | None] = {}
        self._key = view.collection.primary_key
        self._fields = dict.fromkeys(view.collection.fields)
        self._counts = dict(view.collection.counts)
        self._several = set(view.collection.several)
        self.touched = False
        self.outgrown = False
        self.all_failed = True

    def do(self, task: Task) -> None:
        """Take the changes of one task; if it fails, none of them."""
        try:
            if self._missing and not task.work.get("create"):
                uid = self._collection.uid
                raise ApiError("index_not_found", f"Index `{uid}` not found.")
            if task.kind == "documentAdditionOrUpdate":
                self._add(task)
            else:
                self._delete(task)
        except ApiError as error:
            task.status, task.error = "failed", error.body()
            adds = task.kind == "documentAdditionOrUpdate"
            nothing = {"indexedDocuments" if adds else "deletedDocuments": 0}
            task.details = {**(task.details or {}), **nothing}
        else:
            task.status = "succeeded"
            self._missing = self.all_failed = False

    def _add(self, task: Task) -> None:
        wanted = task.work.get("primaryKey")
        if wanted is not None and self._key is not None and wanted != self._key:
            raise ApiError(
                "index_primary_key_already_exists",
                f"Index `{self._collection.uid}`: Index already has a primary key: `{self._key}`.",
            )
        key = self._key or wanted
        found: dict[str, bytes] = {}
        fields = dict(self._fields)
        received = 0
        lines = task.work.get("lines", False)
        for raw in documents(self._payloads / task.payload, lines=lines):
            body = bytes(raw).strip()
            document = decode_document(body)
            received += 1
            key = self._guessed(document) if key is None else key
            name = id_of(document, key, body)
            if task.work.get("partial"):
                before = found.get(name) or self._present(name)
                body = body if before is None else _merged(before, body)
            found[name] = body
            _learn(fields, document)
        self._key, self._fields = key, fields
        self._changes.update(found)
        task.details = {"receivedDocuments": received, "indexedDocuments": received}

    def _guessed(self, document: dict[str, Any]) -> str:
        try:
            return guessed_key(document)
        except ApiError as error:
            uid = self._collection.uid
            raise ApiError(error.code, f"Index `{uid}`: {error.message}") from None

    def _present(self, name: str) -> bytes | None:
        if name in self._changes:
            return self._changes[name]
        found = self._catalog.find(self._writer, self._collection.iid, name)
        return None if found is None else found[1]

    def _delete(self, task: Task) -> None:
        if task.work.get("all"):
            names: Iterable[str] = self._everything()
        elif "filter" in task.work:
            names = self._matching(task.work["filter"])
        else:
            names = task.work["ids"]
        deleted = 0
        for name in dict.fromkeys(names):
            if self._present(name) is not None:
                self._changes[name] = None
                deleted += 1
        task.details = {**(task.details or {}), "deletedDocuments": deleted}

    def _everything(self) -> list[str]:
        rows = self._writer.execute(
            "SELECT id FROM documents WHERE iid = ?", (self._collection.iid,)
        )
        return [*(row[0] for row in rows), *self._changes]

    def _matching(self, given: Any) -> list[str]:
        condition = parse(given, code="invalid_document_filter")
        if condition is None:
            return []
        query = Filters(self._index, "invalid_document_filter").query(condition)
        numbers = numbers_of(self._index.searcher(), query)
        return self._catalog.ids(self._writer, self._collection.iid, numbers)

    def flush(self) -> Collection:
        """Write all changes, the text index's without a commit; gives the changed collection.

        If it is `outgrown` the text index must be made anew, with the slots of the collection.
        """
        changed = self._grown()
        size, number = changed.size, changed.next_number
        for name, body in self._changes.items():
            old = self._catalog.find(self._writer, changed.iid, name)
            if old is None and body is None:
                continue
            self.touched = True
            if old is not None:
                self._count(flatten(decode_document(old[1])), -1)
                self._forget(old[0], gone=body is None)
            if body is None:
                size -= 1
                continue
            if old is None:
                here, number, size = number, number + 1, size + 1
            else:
                here = old[0]
            self._write(here, name, body)
        return replace(
            changed,
            primary_key=self._key,
            several=frozenset(self._several),
            counts={name: count for name, count in self._counts.items() if count > 0},
            size=size,
            next_number=number,
            updated_at=now() if self.touched else changed.updated_at,
        )

    def _grown(self) -> Collection:
        """The collection with all attributes; where all are searched, each needs a slot."""
        changed = replace(self._collection, fields=tuple(self._fields))
        layout = changed.layout()
        if layout.text_slots > self._index.layout.text_slots:
            self.outgrown = True
            return replace(changed, slots=(len(self._fields) // SPARE + 2) * SPARE)
        self._index.relayout(layout)
        return changed

    def _write(self, number: int, name: str, body: bytes) -> None:
        self._catalog.put(self._writer, self._collection.iid, number, name, body)
        attributes = flatten(decode_document(body))
        self._count(attributes, 1)
        self._several.update(each for each, found in attributes.values.items() if len(found) > 1)
        if not self.outgrown:
            self._index.add(number, attributes)

    def _forget(self, number: int, *, gone: bool) -> None:
        if gone:
            self._catalog.remove(self._writer, self._collection.iid, number)
        if not self.outgrown:
            self._index.delete([number])

    def _count(self, attributes: Attributes, change: int) -> None:
        for name in attributes.values:
            self._counts[name] = self._counts.get(name, 0) + change


def _learn(fields: dict[str, None], document: dict[str, Any]) -> None:
    """Add the attributes of a document. Raises `ApiError` when there are too many."""
    nested = any(isinstance(value, dict | list) for value in document.values())
    if not nested and fields.keys() >= document.keys():
        return
    fields.update(dict.fromkeys(flatten(document).values))
    if len(fields) > MAX_FIELDS:
        raise ApiError(
            "max_fields_limit_exceeded",
            f"The documents of an index cannot have more than {MAX_FIELDS} fields here.",
        )


def _merged(before: bytes, change: bytes) -> bytes:
    """A document after a partial update: attributes at the top are replaced."""
    return msgspec.json.encode({**_raws(before), **_raws(change)})
