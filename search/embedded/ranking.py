"""Ranks documents by hand: what the ranking rules say of the places of terms in a document."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from .fields import Attributes, flatten, searchable, sort_key
from .matching import Matcher, Place
from .settings import custom_rule
from .terms import Term
from .text_index import values_below
from .words import words

MAX_DISTANCE = 8

Key = tuple[Any, ...]
_Places = list[list[tuple[int, Place]]]
"""For each term where it is: rank of the attribute, and place."""


class Sort(Struct, frozen=True):
    """Order by the values of an attribute."""

    field: str
    descending: bool


Rule = str | Sort
"""A ranking rule by its name, or an order."""


def rules_of(names: Sequence[str], sorts: Sequence[Sort]) -> list[Rule]:
    """The rules in force for a search with these sorts.

    How many words match comes before what else is said of words, also where that is not set.
    """
    found: list[Rule] = []
    for name in names:
        custom = custom_rule(name)
        if name == "sort":
            found += sorts
        elif custom:
            found.append(Sort(*custom))
        else:
            found += [name] if "words" in (name, *found) else ["words", name]
    return found


class _Found(Struct):
    """The terms that count, where they are, how many were asked for, and words by attribute."""

    terms: list[Term]
    places: _Places
    asked: int
    lengths: dict[int, int]


class Ranker:
    """Gives a document its key; the least key is the best document."""

    def __init__(
        self,
        matcher: Matcher,
        *,
        attributes: Sequence[str],
        exact: frozenset[str],
        order: Sequence[int],
    ):
        """`order` are the numbers of the terms in the order in which they may not be dropped."""
        self._matcher = matcher
        self._attributes = attributes
        self._exact = exact
        self._order = order

    def key(self, document: dict[str, Any], rules: Sequence[Rule]) -> Key:
        """The key by these rules."""
        attributes = flatten(document)
        found = None
        if self._matcher.terms and any(isinstance(rule, str) for rule in rules):
            found = self._found(attributes)
        return tuple(
            _order_key(attributes.values.get(rule.field, ()), descending=rule.descending)
            if isinstance(rule, Sort)
            else _TEXT_RULES[rule](found)
            if found
            else 0
            for rule in rules
        )

    def _found(self, attributes: Attributes) -> _Found:
        places: _Places = [[] for _ in self._matcher.terms]
        lengths: dict[int, int] = {}
        for rank, name in enumerate(self._attributes):
            for text in searchable(values_below(attributes, name)):
                found = list(words(text))
                lengths[rank] = found[-1].position + 1 if found else 0
                there = self._matcher.places_in(found, exact=name in self._exact)
                for number, here in enumerate(there):
                    places[number] += [(rank, place) for place in here]
        kept = self._kept(places)
        terms = [self._matcher.terms[number] for number in kept]
        return _Found(terms, [places[number] for number in kept], len(places), lengths)

    def _kept(self, places: _Places) -> list[int]:
        """The numbers of the terms that count: those before the first one that is missing."""
        kept = []
        for number in self._order:
            if not places[number]:
                break
            kept.append(number)
        return sorted(kept)


def _order_key(values: Sequence[Any], *, descending: bool) -> Key:
    """Numbers before strings before nothing, whatever the direction."""
    keys = [key for value in values if (key := sort_key(value))]
    if not keys:
        return (2, 0.0, _Descending(""))
    kind = min(key[0] for key in keys)
    same = [key for key in keys if key[0] == kind]
    if descending:
        _, number, text = max(same)
        return (kind, -number, _Descending(text))
    _, number, text = min(same)
    return (kind, number, text)


class _Descending:
    __slots__ = ("_text",)

    def __init__(self, text: str):
        self._text = text

    def __lt__(self, other: "_Descending") -> bool:
        return self._text > other._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self._text == other._text

    __hash__ = None  # type: ignore[assignment]


def _words(found: _Found) -> int:
    return found.asked - len(found.places)


def _typos(found: _Found) -> int:
    return sum(min(place.typos for _, place in each) for each in found.places)


def _proximity(found: _Found) -> int:
    pairs = zip(found.places, found.places[1:], strict=False)
    return sum(_distance(first, second) for first, second in pairs)


def _distance(first: list[tuple[int, Place]], second: list[tuple[int, Place]]) -> int:
    least = MAX_DISTANCE
    for rank, one in first:
        for other_rank, other in second:
            if rank == other_rank:
                ahead = other.position - one.last
                apart = ahead if ahead > 0 else one.position - other.last + 1
                if 0 < apart < least:
                    least = apart
    return least


def _attribute_rank(found: _Found) -> int:
    return sum(min(rank for rank, _ in each) for each in found.places)


def _word_position(found: _Found) -> int:
    return sum(
        min(_position_cost(abs(place.position - term.position)) for _, place in each)
        for term, each in zip(found.terms, found.places, strict=True)
    )


def _position_cost(distance: int) -> int:
    for cost, bound in enumerate((0, 1, 4, 7, 11, 16, 24, 64, 256, 1024)):
        if distance <= bound:
            return cost
    return 10


def _attribute(found: _Found) -> Key:
    return (_attribute_rank(found), _word_position(found))


def _exactness(found: _Found) -> Key:
    exact = sum(any(place.exact for _, place in each) for each in found.places)
    return (_exact_attribute(found), found.asked - exact)


def _exact_attribute(found: _Found) -> int:
    """0 if an attribute is just the query, 1 if it begins with it, else 2."""
    if len(found.places) < found.asked:
        return 2
    best = 2
    for first_rank, first in found.places[0]:
        if first.position != 0 or not first.exact:
            continue
        last: int | None = first.last
        for each in found.places[1:]:
            last = next(
                (
                    place.last
                    for rank, place in each
                    if rank == first_rank and place.exact and place.position - 1 == last
                ),
                None,
            )
        if last is not None:
            best = min(best, 0 if last + 1 == found.lengths[first_rank] else 1)
    return best


_TEXT_RULES: dict[str, Callable[[_Found], Any]] = {
    "words": _words,
    "typo": _typos,
    "proximity": _proximity,
    "attribute": _attribute,
    "attributeRank": _attribute_rank,
    "wordPosition": _word_position,
    "exactness": _exactness,
}
