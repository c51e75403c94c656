"""Where the terms of a query are in a text, with how many typos."""

from collections.abc import Sequence
from typing import NamedTuple

from .distance import typos
from .terms import Term
from .words import Word, words


class Place(NamedTuple):
    """A term was found: from which word to which (inclusive), by position, and in the text."""

    position: int
    last: int
    start: int
    end: int
    typos: int
    exact: bool


class Matcher:
    """Finds terms; what it learned of a word it remembers."""

    def __init__(self, terms: Sequence[Term], stop_words: frozenset[str] = frozenset()):
        self.terms = tuple(terms)
        self._stop_words = stop_words
        self._known: list[dict[str, int | None]] = [{} for _ in self.terms]

    def places(self, text: str, *, exact: bool = False) -> list[list[Place]]:
        """For each term where it is. `exact`: typos do not count as matches."""
        found = list(words(text))
        return self.places_in(found, exact=exact)

    def places_in(self, found: Sequence[Word], *, exact: bool = False) -> list[list[Place]]:
        """The same for the words of a text."""
        return [
            self._single(at, term, found, exact=exact)
            if term.kind == "word" or (len(term.words) == 1 and term.prefix)
            else _sequence(term, found)
            for at, term in enumerate(self.terms)
        ]

    def _single(self, at: int, term: Term, found: Sequence[Word], *, exact: bool) -> list[Place]:
        known = self._known[at]
        places = []
        for word in found:
            text = word.text
            if text in known:
                count = known[text]
            else:
                stops = text in self._stop_words
                count = None if stops else _typos_of(term, text)
                known[text] = count
            if count is None or (exact and count):
                continue
            places.append(
                Place(word.position, word.position, word.start, word.end, count, text == term.text)
            )
        return places


def _typos_of(term: Term, text: str) -> int | None:
    return typos(term.text, text, most=term.typos, prefix=term.prefix)


def _sequence(term: Term, found: Sequence[Word]) -> list[Place]:
    length = len(term.words)
    places = []
    for at in range(len(found) - length + 1):
        here = found[at : at + length]
        if here[-1].position - here[0].position != length - 1:
            continue
        if all(
            wanted is None
            or wanted == word.text
            or (term.prefix and number == length - 1 and word.text.startswith(wanted))
            for number, (wanted, word) in enumerate(zip(term.words, here, strict=True))
        ):
            places.append(
                Place(
                    here[0].position, here[-1].position, here[0].start, here[-1].end, 0, exact=True
                )
            )
    return places
