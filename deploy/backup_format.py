"""What a backup is: a folder of data files, and a manifest that says what belongs to it.

    manifest.json, manifest.sha256      written last: a folder without them is no backup
    streams/CHAT.snapshot ...           JetStream's own format
    database/messages.bson ...          BSON documents, as of `mongodump`
    objects/files.jsonl, objects/files/ a line for each object (key, size, sha256), and the objects

It is made under another name and renamed when all of it is on disk. See `docs/recovery.md`.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from .errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
PART = ".part"
"""How the folder of a backup ends that is not complete."""

READ_BYTES = 1024 * 1024


class Damaged(UserError):
    """A backup, or a file of one, is not what its manifest says."""

    exit_code = 1


class DataFile(Struct, kw_only=True, frozen=True):
    """A file of the backup, by its path below the folder."""

    path: str
    size: int
    sha256: str


class StreamPart(Struct, kw_only=True, frozen=True):
    """A stream or bucket; `config` and `state` are as the server told them."""

    file: DataFile
    config: dict[str, Any]
    state: dict[str, Any]


class CollectionPart(Struct, kw_only=True, frozen=True):
    """A collection of MongoDB."""

    name: str
    file: DataFile
    documents: int
    indexes: list[dict[str, Any]]


class ObjectsPart(Struct, kw_only=True, frozen=True):
    """Objects of one store; `index` lists them. `missing` were deleted while they were copied."""

    store: str
    index: DataFile
    objects: int
    bytes: int
    missing: int


class ObjectLine(Struct, frozen=True):
    """An object in an index."""

    key: str
    size: int
    sha256: str


class LogPart(Struct, kw_only=True, frozen=True):
    """The log: a cursor of this epoch up to `last_seq` is good after a restore."""

    epoch: str
    first_seq: int
    last_seq: int
    persisted_seq: int


class Manifest(Struct, kw_only=True, frozen=True):
    """All of a backup. Times are Unix milliseconds; `layout` is that of the streams."""

    format: int
    version: str
    site: str
    layout: int
    layout_least: int
    created_ms: int
    finished_ms: int
    log: LogPart
    streams: list[StreamPart]
    collections: list[CollectionPart]
    objects: list[ObjectsPart]

    @property
    def files(self) -> list[DataFile]:
        """The files of streams and collections."""
        streams = [each.file for each in self.streams]
        return streams + [each.file for each in self.collections]

    @property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(each.size for each in self.files) + sum(
            each.index.size + each.bytes for each in self.objects
        )


class _Format(Struct):
    format: int


class Writing:
    """A new data file: `write` to it, then `close` gives what the manifest says of it."""

    def __init__(self, folder: Path, path: str):
        self._path = path
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> DataFile:
        """Make it durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return DataFile(path=self._path, size=self.size, sha256=self._hash.hexdigest())


def object_path(store: str, key: str) -> str:
    """Where an object lies. Raises `Damaged` for a key that leads out of the folder."""
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Damaged(f"the backup has an object with the key {key!r}, which no store gave it")
    return f"objects/{store}/{key}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last step: from now on the folder is a backup."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    for name, content in ((MANIFEST, data), (CHECKSUM, _sum(data).encode() + b"\n")):
        with (folder / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for each in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(each)


def publish(part: Path, folder: Path) -> None:
    """Give a complete backup its name."""
    part.rename(folder)
    _sync(folder.parent)


def counted(number: int, what: str) -> str:
    """As `1 object`, `2 objects`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def read_manifest(folder: Path) -> Manifest:
    """The manifest. Raises `UserError` for what is no backup, `Damaged` if it was changed."""
    try:
        data = (folder / MANIFEST).read_bytes()
        checksum = (folder / CHECKSUM).read_text().strip()
    except FileNotFoundError as error:
        if not folder.exists():
            raise UserError(f"there is no folder {folder}") from None
        why = "it was not finished" if folder.name.endswith(PART) else "it has no manifest"
        raise UserError(f"{folder} is not a backup: {why} ({error.filename})") from None
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    if _sum(data) != checksum:
        raise Damaged(f"{folder / MANIFEST} is damaged: it is not what {CHECKSUM} says")
    known = msgspec.json.decode(data, type=_Format).format
    if known != FORMAT:
        raise UserError(f"{folder} has format {known}; this version reads format {FORMAT}")
    return msgspec.json.decode(data, type=Manifest)


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest. Raises `Damaged` that names the first that differs."""
    for each in manifest.files:
        _verify(folder, each)
    for part in manifest.objects:
        _verify(folder, part.index)
        count = 0
        for line in object_lines(folder, part):
            path = object_path(part.store, line.key)
            _verify(folder, DataFile(path=path, size=line.size, sha256=line.sha256))
            count += 1
        if count != part.objects:
            raise Damaged(f"{folder / part.index.path} lists {count} objects, not {part.objects}")


def object_lines(folder: Path, part: ObjectsPart) -> Iterator[ObjectLine]:
    """The objects that an index lists."""
    with (folder / part.index.path).open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line, type=ObjectLine)


def pieces(file: BinaryIO, size: int = READ_BYTES) -> Iterator[bytes]:
    """A file, piece by piece."""
    while piece := file.read(size):
        yield piece


def _verify(folder: Path, expected: DataFile) -> None:
    path = folder / expected.path
    found = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            for piece in pieces(file):
                found.update(piece)
                size += len(piece)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except OSError as error:
        raise Damaged(f"cannot read {path}: {error.strerror}") from None
    if size != expected.size:
        raise Damaged(f"{path} is damaged: it has {size} bytes, not {expected.size}")
    if found.hexdigest() != expected.sha256:
        raise Damaged(f"{path} is damaged: its SHA-256 is not what the manifest says")


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
