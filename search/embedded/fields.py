"""A JSON document as attributes: nested objects become `a.b`, and each value is of some kind."""

import math
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

MAX_FACET_BYTES = 468
"""Longer strings are cut before they are filtered or sorted by, as in Meilisearch."""

_HIGH = 1 << 63


class Attributes(Struct):
    """The attributes of a document; arrays are several values, objects are attributes below."""

    values: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    null: set[str] = msgspec.field(default_factory=set)
    empty: set[str] = msgspec.field(default_factory=set)


def flatten(document: dict[str, Any]) -> Attributes:
    """The attributes of a document, those of inner objects named like `a.b`."""
    found = Attributes()
    for name, value in document.items():
        if isinstance(value, str) and value:
            found.values[name] = [value]
        else:
            _add(found, name, value)
    return found


def _add(found: Attributes, name: str, value: Any) -> None:
    stack = [(name, value, True)]
    while stack:
        here, given, direct = stack.pop()
        values = found.values.setdefault(here, [])
        if direct and given is None:
            found.null.add(here)
        elif direct and given in ("", [], {}):
            found.empty.add(here)
        if isinstance(given, dict):
            items = reversed(given.items())
            stack += [(f"{here}.{key}", below, True) for key, below in items]
        elif isinstance(given, list):
            stack += [(here, item, False) for item in reversed(given)]
        elif given is not None:
            values.append(given)


def facet(text: str) -> str:
    """The form in which strings are compared by filters and sorting: case does not count."""
    text = text.strip()
    return text.lower() if text.isascii() else unicodedata.normalize("NFKD", text).lower()


def stored_facet(text: str) -> str:
    """The same, cut to what is kept of a value."""
    folded = facet(text)
    if len(folded) * 4 <= MAX_FACET_BYTES:
        return folded
    return folded.encode("utf-8", "surrogatepass")[:MAX_FACET_BYTES].decode("utf-8", "ignore")


def number(text: str) -> float | None:
    """The finite number that a filter's value is, if it is one."""
    if "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def as_text(value: Any) -> str | None:
    """A value as a string for filters, None for what is no string there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def as_number(value: Any) -> float | None:
    """A value as a number for filters, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def searchable(values: Iterable[Any]) -> Iterator[str]:
    """The texts of an attribute, as words are taken from them."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool):
            yield "true" if value else "false"
        elif isinstance(value, int | float):
            yield str(value)


def sort_key(value: Any) -> tuple[int, float, str] | None:
    """Orders values ascending: numbers before strings; None if there is nothing to sort by."""
    found = as_number(value)
    if found is not None:
        return (0, found, "")
    text = as_text(value)
    return None if text is None else (1, 0.0, stored_facet(text))


def rough_key(key: tuple[int, float, str]) -> int:
    """A 64-bit number in the same order as sort keys; what differs little may be equal."""
    kind, value, text = key
    if kind == 0:
        bits: int = struct.unpack(">Q", struct.pack(">d", value + 0.0))[0]
        ordered = (~bits & (2**64 - 1)) if bits & _HIGH else bits | _HIGH
        return ordered >> 1
    head: int = struct.unpack(">Q", text.encode("utf-8", "ignore")[:8].ljust(8, b"\0"))[0]
    return _HIGH | head >> 1
