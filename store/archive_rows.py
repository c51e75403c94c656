"""Messages as rows of a Parquet file and back, without loss: pure functions.

A field that is not of the type its column has, or has no column, goes as BSON into `rest`, so that
what later versions add to a document survives here too.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import bson
import pyarrow as pa
import pyarrow.parquet as pq
from bson.codec_options import CodecOptions
from bson.int64 import Int64

from .documents import CONTENT

Document = dict[str, Any]

GROUP_ROWS = 1000
GROUP_BYTES = 1024 * 1024
ZSTD_LEVEL = 6

CHANGING = ("edited_seq", "deleted_seq", "reactions")
"""Every change of a message shows in one of these."""

BASE = ("chat", "at", "seq", "from", "to", "group_id", "client_id", "thread", "reply_to")
"""What a message has from its beginning; without them a document is only a change."""

_TEXTS = (
    *("chat", "from", "to", "group_id", "client_id", "reply_to"),
    *("content", "content_type", "deleted_by"),
)
_NUMBERS = ("_id", "seq", "at", "thread", "edited_at", "edited_seq", "deleted_at", "deleted_seq")
_LISTS = ("attachments", "mentions")
_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True)
_REACTION = {"key": str, "emoji": str, "user": str, "seq": int, "on": bool}

_REACTIONS = pa.list_(
    pa.struct(
        [
            ("key", pa.string()),
            ("emoji", pa.string()),
            ("user", pa.string()),
            ("seq", pa.int64()),
            ("on", pa.bool_()),
        ]
    )
)
SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in _NUMBERS),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.list_(pa.string())) for name in _LISTS),
        ("reactions", _REACTIONS),
        ("rest", pa.binary()),
    ]
)


class Group(NamedTuple):
    """Rows of a file that are stored, and so read, together."""

    documents: list[Document]


class Packed(NamedTuple):
    """A finished file. The last `footer` bytes of `data` say where everything is."""

    data: bytes
    footer: int
    groups: list[Group]


def size(document: Document) -> int:
    """About how many bytes a document takes before it is compressed."""
    return len(bson.encode(document))


def order(document: Document) -> tuple[str, int]:
    """Where a message stands in its file."""
    return document["chat"], int(document["seq"])


def pack(documents: Iterable[Document]) -> Packed:
    """A Parquet file of documents, which must stand in their order."""
    groups = list(_grouped(documents))
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["chat", "from", "to", "group_id", "content_type"],
        write_statistics=["_id", "seq"],
    ) as writer:
        for group in groups:
            rows = [_row(document) for document in group.documents]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=GROUP_ROWS)
    data = sink.getvalue()
    return Packed(data, int.from_bytes(data[-8:-4], "little") + 8, groups)


def _grouped(documents: Iterable[Document]) -> Iterator[Group]:
    rows: list[Document] = []
    room = GROUP_BYTES
    for document in documents:
        rows.append(document)
        room -= size(document)
        if len(rows) == GROUP_ROWS or room <= 0:
            yield Group(rows)
            rows, room = [], GROUP_BYTES
    if rows:
        yield Group(rows)


def unpack(table: pa.Table) -> list[Document]:
    """The documents of a table with this schema."""
    return [_document(row) for row in table.to_pylist()]


def _row(document: Document) -> Document:
    row: Document = {}
    rest: Document = {}
    for name, value in document.items():
        if name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            row[name] = int(value)
        elif (name in _TEXTS and isinstance(value, str)) or (name in _LISTS and _is_texts(value)):
            row[name] = value
        elif name == "reactions" and _is_reactions(value):
            row[name] = [{"key": key, **each} for key, each in value.items()]
        else:
            rest[name] = value
    if rest:
        row["rest"] = bson.encode(rest)
    return row


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_reactions(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, dict)
        and {"key", *each} == _REACTION.keys()
        and all(isinstance(each[name], _REACTION[name]) for name in each)
        for each in value.values()
    )


def _document(row: Document) -> Document:
    document = {name: value for name, value in row.items() if value is not None}
    rest = document.pop("rest", None)
    if "reactions" in document:
        document["reactions"] = {
            each["key"]: {name: each[name] for name in each if name != "key"}
            for each in document["reactions"]
        }
    if rest is not None:
        document.update(bson.decode(rest, _AWARE))
    return document


class Digest:
    """A hash of documents in order, the same for equal documents however they are stored."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0

    def add(self, documents: Iterable[Document]) -> None:
        """The next documents."""
        for each in documents:
            self._hash.update(bson.encode(_normal(each)))
            self.rows += 1

    @property
    def hex(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _normal(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_normal(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return Int64(value)
    return value


def merged(document: Document, other: Document) -> Document:
    """A message together with another state of it, or with changes that came after it.

    The same whichever way round, and again: every field is decided by the sequence of its change.
    """
    result = {**other, **document}
    result.pop("of", None)
    first, second = document.get("deleted_seq"), other.get("deleted_seq")
    if first is not None or second is not None:
        for name in (*CONTENT, "reactions", "edited_at", "edited_seq"):
            result.pop(name, None)
        if first is None or (second is not None and second < first):
            _take(result, other, ("deleted_at", "deleted_by", "deleted_seq"))
        return result
    if other.get("edited_seq", 0) > document.get("edited_seq", 0):
        _take(result, other, ("content", "edited_at", "edited_seq"))
    reactions = dict(document.get("reactions", {}))
    for key, each in other.get("reactions", {}).items():
        if key not in reactions or reactions[key]["seq"] < each["seq"]:
            reactions[key] = each
    if reactions:
        result["reactions"] = reactions
    return result


def _take(result: Document, source: Document, names: Iterable[str]) -> None:
    for name in names:
        result.pop(name, None)
        if name in source:
            result[name] = source[name]
