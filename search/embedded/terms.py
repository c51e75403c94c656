"""What a query asks for: words, runs without spaces, phrases, and what must not be there."""

import re
from typing import Any, Literal

from msgspec import Struct

from .words import Word, fold, groups, is_unspaced

MAX_TERMS = 10
"""Further words of a query are not looked at, as in Meilisearch."""

MAX_TYPO_WORD = 60
"""Longer words are compared without typos: automata for them would be large."""


class Term(Struct, frozen=True):
    """One thing to be found.

    `words` are as they follow each other in a text, None is any word. `prefix`: what begins with
    the last word will do. `typos`: at most this many in the (only) word. `position`: of the first
    word in the query.
    """

    kind: Literal["word", "run", "phrase"]
    words: tuple[str | None, ...]
    prefix: bool = False
    typos: int = 0
    position: int = 0

    @property
    def text(self) -> str:
        """The first word."""
        return self.words[0] or ""


class Asked(Struct, frozen=True):
    """A query, understood."""

    terms: tuple[Term, ...]
    without: tuple[Term, ...] = ()


_PHRASE = re.compile(r'(?P<minus>(?<!\S)-)?"(?P<inside>[^"]*)(?:"|$)')


class Reader:
    """Reads queries by the settings of an index."""

    def __init__(self, settings: dict[str, Any]):
        tolerance = settings["typoTolerance"]
        sizes = tolerance["minWordSizeForTypos"]
        self._one, self._two = sizes["oneTypo"], sizes["twoTypos"]
        self._tolerant = tolerance["enabled"]
        self._exact_words = {fold(word) for word in tolerance["disableOnWords"]}
        self._exact_numbers = tolerance["disableOnNumbers"]
        self._stop_words = {fold(word) for word in settings["stopWords"]}
        self._prefixes = settings["prefixSearch"] != "disabled"
        self._base = 0

    def read(self, query: str) -> Asked:
        """The terms of a query, the first ones if there are many."""
        terms: list[Term] = []
        without: list[Term] = []
        at = self._base = 0
        for quoted in _PHRASE.finditer(query):
            self._plain(query[at : quoted.start()], terms, without, last=False)
            if len(terms) >= MAX_TERMS:
                break
            phrase = self._phrase(quoted["inside"])
            if phrase is not None:
                (without if quoted["minus"] else terms).append(phrase)
            at = quoted.end()
        else:
            self._plain(query[at:], terms, without, last=True)
        return Asked(tuple(terms[:MAX_TERMS]), tuple(without[:MAX_TERMS]))

    def _plain(self, text: str, terms: list[Term], without: list[Term], *, last: bool) -> None:
        base = self._base
        for group in groups(text):
            self._base = base + group[-1].position + 1
            if len(terms) >= MAX_TERMS:
                return
            start, end = group[0].start, group[-1].end
            is_last = last and end == len(text)
            if text[start - 1 : start] == "-" and not text[max(0, start - 2) : start - 1].strip():
                without.append(self._term(group, base, prefix=False, exact=True))
            elif is_last or group[0].text not in self._stop_words:
                terms.append(self._term(group, base, prefix=is_last and self._prefixes))

    def _term(self, group: list[Word], base: int, *, prefix: bool, exact: bool = False) -> Term:
        word, position = group[0].text, base + group[0].position
        if not is_unspaced(word):
            typos = 0 if exact else self._typos(word)
            return Term("word", (word,), prefix, typos, position)
        if len(group) == 1:
            return Term("run", (word,), prefix=True, position=position)
        return Term("run", tuple(each.text for each in group[:-1]), position=position)

    def _typos(self, word: str) -> int:
        if not self._tolerant or word in self._exact_words or len(word) > MAX_TYPO_WORD:
            return 0
        if self._exact_numbers and word.isdecimal():
            return 0
        return int(len(word) >= self._one) + int(len(word) >= max(self._one, self._two))

    def _phrase(self, text: str) -> Term | None:
        found = list(groups(text))
        if not found:
            return None
        words: list[str | None] = []
        for group in found:
            words += [None if word.text in self._stop_words else word.text for word in group]
        position = self._base
        self._base += found[-1][-1].position + 1
        prefix = False
        if is_unspaced(found[-1][0].text):
            if len(found[-1]) > 1:
                words.pop()
            else:
                prefix = True
        while words and words[-1] is None:
            words.pop()
        while words and words[0] is None:
            del words[0]
            position += 1
        return Term("phrase", tuple(words), prefix=prefix, position=position) if words else None
