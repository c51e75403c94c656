"""The filter of a question, built from typed values only.

Nothing that a client wrote stands in it: chats and users are keys of hexadecimal digits, times are
integers. The chats come from the server, never from the client, and are always there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from .documents import key

DAY_MS = 86_400_000

_KEY = re.compile(r"[0-9a-f]{32}")


class Question(Struct, frozen=True, kw_only=True):
    """What is looked for, in which chats. `since` belongs to the time, `until` does not."""

    text: str
    chats: Sequence[str]
    sender: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 20
    offset: int = 0


def filter_of(question: Question) -> str:
    """The filter of a question. Raises `ValueError` without chats: nothing may be found then."""
    if not question.chats:
        raise ValueError("a question without chats finds nothing")
    parts = [f"chat IN {_keys(question.chats)}"]
    if question.sender is not None:
        parts.append(from_filter(question.sender))
    if question.since is not None:
        parts.append(f"at >= {int(question.since)}")
    if question.until is not None:
        parts.append(f"at < {int(question.until)}")
    return " AND ".join(parts)


def from_filter(sender: str) -> str:
    """What a user wrote."""
    return f"from = {_quoted(key(sender))}"


def expired_filters(
    now_ms: int, *, days: float, retention_days: float, own: Mapping[str, float]
) -> list[str]:
    """What is too old to be found: each filter chooses a part of it.

    That is what is older than `days`, or than it is kept: `retention_days` (0: for ever), but for
    the chats that have days of their `own`.
    """

    def before(age_days: float) -> str:
        return f"at < {now_ms - int(age_days * DAY_MS)}"

    found = [before(days)]
    if 0 < retention_days < days:
        others = f" AND chat NOT IN {_keys(own)}" if own else ""
        found.append(before(retention_days) + others)
    for each in sorted({value for value in own.values() if 0 < value < days}):
        chats = [chat for chat, value in own.items() if value == each]
        found.append(f"{before(each)} AND chat IN {_keys(chats)}")
    return found


def _keys(names: Iterable[str]) -> str:
    return f"[{', '.join(_quoted(key(name)) for name in names)}]"


def _quoted(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is no key")
    return f'"{text}"'
