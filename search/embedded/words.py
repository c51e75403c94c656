"""Text to words, the same for documents and queries.

Words of scripts with spaces are folded: lower case, no diacritics. Scripts without spaces (and
Korean) become overlapping pairs of characters, so that a part of a sentence is found without a
dictionary; the last character stands alone, so that a single one is found as a prefix.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_POSITIONS = 65_535
"""Words of an attribute after these are not indexed, as in Meilisearch."""

MAX_WORD_BYTES = 250
"""Longer words are not indexed, as in Meilisearch."""

HARD_GAP = 8
"""Distance that the end of a sentence puts between two words."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Myanmar
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc"  # Hangul
    "\u1780-\u17ff"  # Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u303c"  # radicals, marks of repetition
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)


def _marks() -> str:
    """All combining characters, as the inside of a character class."""
    found = [code for code in range(sys.maxunicode) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in found:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


_MARKS = _marks()
_PIECE = re.compile(
    f"(?P<run>[{_UNSPACED}](?:[{_UNSPACED}]|[{_MARKS}])*)"
    f"|(?P<word>(?:(?![{_UNSPACED}])[^\\W_][{_MARKS}]*)+)"
    r"|(?P<hard>[.!?;:,][\s]|[\n\r|。！？；：，、…(){}\[\]])"
)
_FOLDED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)


class Word(NamedTuple):
    """A word of a text: folded, where it stands among words, and where in the text."""

    text: str
    position: int
    start: int
    end: int


@lru_cache(maxsize=65_536)
def fold(word: str) -> str:
    """The form in which a word of a script with spaces is compared."""
    if word.isascii():
        return word.lower()
    plain = unicodedata.normalize("NFKD", word.casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return plain.casefold().translate(_FOLDED)


def is_unspaced(text: str) -> bool:
    """Whether a folded word is (a pair of) characters of a script without spaces."""
    return _RUN_START.match(text) is not None


_RUN_START = re.compile(f"[{_UNSPACED}]")


def clusters(run: str, start: int) -> list[tuple[str, int, int]]:
    """The composed characters of a run without spaces, each with its place in the text.

    Marks, and parts of a Korean syllable, are joined with what is before them.
    """
    if unicodedata.is_normalized("NFKC", run):
        return [(char, at, at + 1) for at, char in enumerate(run, start)]
    found: list[tuple[str, int, int]] = []
    for at, char in enumerate(run, start):
        for part in unicodedata.normalize("NFKC", char):
            before, first, _ = found[-1] if found else ("", at, at)
            joined = unicodedata.normalize("NFKC", before + part)
            if before and len(joined) == 1:
                found[-1] = (joined, first, at + 1)
            else:
                found.append((part, at, at + 1))
    return found


def groups(text: str) -> Iterator[list[Word]]:
    """The words of a text, in order; those of one run without spaces are together."""
    position = 0
    for piece in _PIECE.finditer(text):
        kind = piece.lastgroup
        if kind == "hard":
            position += HARD_GAP - 1 if position else 0
        elif kind == "word":
            folded = fold(piece[0])
            if folded and len(folded.encode()) <= MAX_WORD_BYTES:
                yield [Word(folded, position, piece.start(), piece.end())]
            position += 1
        else:
            chars = clusters(piece[0].lower(), piece.start())
            following = [*chars[1:], ("", 0, 0)]
            yield [
                Word(char + after, at, start, after_end or end)
                for at, ((char, start, end), (after, _, after_end)) in enumerate(
                    zip(chars, following, strict=True), position
                )
            ]
            position += len(chars)
        if position >= MAX_POSITIONS:
            return


def words(text: str) -> Iterator[Word]:
    """The words of a text, in order."""
    for group in groups(text):
        yield from group
