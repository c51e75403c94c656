"""Conditional and partial requests (RFC 9110, sections 13 and 14): pure functions."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class Part(NamedTuple):
    """The bytes from `start` to before `end` of `size`; `asked`: a range named them.

    Players look at the status to know whether they can seek, also when the range is all of it.
    """

    start: int
    end: int
    size: int
    asked: bool = True

    @property
    def content_range(self) -> str:
        """As the answer says it."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def not_modified(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client has it already."""
    given = headers.get("if-none-match")
    if given is None:
        return False
    return given.strip() == "*" or any(tag == etag for _, tag in _TAG.findall(given))


def wanted(headers: Mapping[str, str], etag: str, size: int) -> Part | None:
    """Which part is asked for, or None for one that there is not.

    Several parts, or what is no range, are answered whole, as the RFC allows.
    """
    whole = Part(0, size, size, asked=False)
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or not any(found.groups()) or not _may(headers, etag):
        return whole
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return Part(size - length, size, size) if length else None
    start, end = int(first), int(last or size) + 1
    if last and end <= start:
        return whole
    return Part(start, min(end, size), size) if start < size else None


def _may(headers: Mapping[str, str], etag: str) -> bool:
    """`If-Range`: only of the same, and only a strong tag says so."""
    condition = headers.get("if-range")
    return condition is None or condition.strip() == etag
