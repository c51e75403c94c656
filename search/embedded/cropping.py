"""Crops a text to some words around its best matches, as Meilisearch does."""

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple

from .matching import Place
from .words import Word, words

FAR = 7

Match = tuple[Place, int]
"""A place and the number of its term."""


class _Token(NamedTuple):
    """A word, or what stands between two; `hard` at the end of a sentence."""

    is_word: bool
    hard: bool
    start: int
    end: int


def window(text: str, matches: Sequence[Match], length: int) -> tuple[int, int]:
    """The part of a text, from where to where, that has `length` words; 0 means all."""
    tokens = _tokens(text, list(words(text)))
    if length == 0 or sum(token.is_word for token in tokens) <= length:
        return 0, len(text)
    if not matches:
        return _grown(tokens, 0, 0, length)
    first, last = _best(tokens, matches, length)
    return _grown(tokens, first, last, length)


def _tokens(text: str, found: Sequence[Word]) -> list[_Token]:
    """All of a text. Of words that overlap (pairs of characters) each reaches to the next."""
    tokens: list[_Token] = []
    at, position = 0, 0
    for word, after in zip_longest(found, found[1:]):
        if word.start > at:
            tokens.append(_Token(False, word.position > position, at, word.start))
        at = word.end if after is None else min(word.end, after.start)
        tokens.append(_Token(True, False, word.start, at))
        position = word.position + 1
    if at < len(text):
        tokens.append(_Token(False, False, at, len(text)))
    return tokens


def _best(tokens: Sequence[_Token], matches: Sequence[Match], length: int) -> tuple[int, int]:
    """The tokens from the first to the end of the last match that belong together best."""
    ordinals = {token.start: at for at, token in enumerate(tokens)}
    number = {at: count for count, at in enumerate(a for a, t in enumerate(tokens) if t.is_word)}
    spans = []
    for place, term in matches:
        first = ordinals[place.start]
        last = max(at for at in range(first, len(tokens)) if tokens[at].start < place.end)
        spans.append((first, last, term, number[first], number[last]))
    best, best_score = (0, 0), (0, 0, 0)
    begin = 0
    for end in range(len(spans)):
        while begin < end and spans[end][4] - spans[begin][3] >= length:
            begin += 1
        score = _score(spans[begin : end + 1])
        if score > best_score or end == 0:
            best, best_score = (begin, end), score
    first, last = spans[best[0]][0], spans[best[1]][1]
    return first, last + 1


def _score(spans: Sequence[tuple[int, int, int, int, int]]) -> tuple[int, int, int]:
    """Words of the query, then nearness, then order."""
    pairs = list(pairwise(spans))
    apart = sum(min(after[3] - before[4], FAR) for before, after in pairs)
    inside = sum(span[4] - span[3] for span in spans)
    ordered = sum(after[2] > before[2] for before, after in pairs)
    covered = sum({span[2]: span[4] - span[3] + 1 for span in spans}.values())
    return covered, -apart - inside, ordered + inside


def _grown(tokens: Sequence[_Token], first: int, end: int, length: int) -> tuple[int, int]:
    """From the tokens `first` to before `end`, grown (or cut) to `length` words."""
    left = length - sum(token.is_word for token in tokens[first:end])
    while left < 0:
        end -= 1
        left += tokens[end].is_word
    while left > 0:
        before = tokens[first - 1] if first > 0 else None
        after = tokens[end] if end < len(tokens) else None
        if before is None and after is None:
            break
        go_left, go_right = _sides(before, after, left)
        if go_left:
            first -= 1
            left -= tokens[first].is_word
        if go_right and left > 0:
            left -= tokens[end].is_word
            end += 1
    return tokens[first].start, tokens[end - 1].end


def _sides(before: _Token | None, after: _Token | None, left: int) -> tuple[bool, bool]:
    """Where to grow: to the word, not to the separator, and not over the end of a sentence."""
    if before is None or after is None:
        return before is not None, after is not None
    if before.is_word or after.is_word:
        return before.is_word, after.is_word
    if before.hard == after.hard:
        # Without the last condition a separator would stand before the marker.
        return True, left > 1
    return after.hard, before.hard
