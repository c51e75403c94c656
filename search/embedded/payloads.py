"""Documents as they come in: JSON or one object on each line, on disk, read without a copy."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .errors import ApiError

_list = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, Any])
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def documents(file: Path, *, lines: bool) -> Iterator[memoryview]:
    """Each document of a payload as JSON. Raises `ApiError` when the payload is no such JSON."""
    if file.stat().st_size == 0:
        return iter(())
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    # The mapping goes away with the last view of it.
    return _lines(mapped) if lines else _array(mapped)


def count(file: Path, *, lines: bool) -> int:
    """How many documents there are. Raises `ApiError` when one is no JSON object."""
    found = 0
    for document in documents(file, lines=lines):
        try:
            _object.decode(document)
        except _FAULTS as error:
            raise _malformed(error, lines=lines) from None
        found += 1
    return found


def _array(mapped: mmap.mmap) -> Iterator[memoryview]:
    view = memoryview(mapped)
    try:
        single = bytes(view[:64]).lstrip()[:1] == b"{"
        raws = [_any.decode(view)] if single else _list.decode(view)
    except _FAULTS as error:
        raise _malformed(error, lines=False) from None
    return map(memoryview, raws)


def _lines(mapped: mmap.mmap) -> Iterator[memoryview]:
    view = memoryview(mapped)
    at = 0
    while at < len(view):
        end = mapped.find(b"\n", at)
        end = len(view) if end < 0 else end
        line = view[at:end]
        if bytes(line[:64]).strip() or bytes(line).strip():
            yield line
        at = end + 1


def _malformed(error: Exception, *, lines: bool) -> ApiError:
    kind = "ndjson" if lines else "json"
    return ApiError("malformed_payload", f"The `{kind}` payload provided is malformed. `{error}`.")
