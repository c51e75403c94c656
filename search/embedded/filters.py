"""Filters as queries of the text index."""

from collections.abc import Collection, Iterable, Sequence

import tantivy
from msgspec import Struct
from tantivy import FieldType, Occur, Query

from .errors import ApiError
from .fields import facet, number
from .filter_parser import And, Between, Compare, Condition, Has, In, Not, Or
from .text_index import EMPTY, EXISTS, NULL, TextIndex, hashed

MANY = 32
"""So many values make a condition costly: each is looked up in each segment of the index."""

_STATES = {"EXISTS": EXISTS, "NULL": NULL, "EMPTY": EMPTY}


class Membership(Struct, frozen=True):
    """A costly condition, as a query and so that it can be tried on single documents."""

    query: Query
    slot: int
    hashes: frozenset[int]
    numbers: frozenset[float]

    def keeps(self, searcher: tantivy.Searcher, found: Sequence[tantivy.DocAddress]) -> list[bool]:
        """Which documents it holds for."""
        if not found:
            return []
        strings = searcher.fast_field_values(f"h{self.slot}", list(found))
        kept = [value in self.hashes for value in strings]
        if self.numbers:
            numbers = searcher.fast_field_values(f"x{self.slot}", list(found))
            pairs = zip(kept, numbers, strict=True)
            kept = [before or value in self.numbers for before, value in pairs]
        return kept


class Filters:
    """Makes queries of filters. Raises `ApiError` with `code`."""

    def __init__(self, index: TextIndex, code: str = "invalid_search_filter"):
        self._schema = index.schema
        self._names = index.layout.filters
        self._salt = index.layout.salt
        self._code = code

    def split(
        self, condition: Condition, several: Collection[str]
    ) -> tuple[Query | None, Membership | None]:
        """A query for all but one costly condition that must hold, and that one.

        Attributes in `several` may have many values in a document: theirs cannot be tried.
        """
        parts = condition.all if isinstance(condition, And) else (condition,)
        for at, part in enumerate(parts):
            if isinstance(part, In) and len(part.values) >= MANY and part.field not in several:
                rest = (*parts[:at], *parts[at + 1 :])
                return self._all(rest) if rest else None, self._membership(part)
        return self.query(condition), None

    def _membership(self, condition: In) -> Membership:
        hashes, numbers = self._values(condition.values)
        return Membership(
            query=self.query(condition),
            slot=self._slot(condition.field),
            hashes=frozenset(hashes),
            numbers=frozenset(numbers),
        )

    def query(self, condition: Condition) -> Query:
        """A query for what matches."""
        match condition:
            case And(all=parts):
                return self._all(parts)
            case Or(any=parts):
                return Query.boolean_query([(Occur.Should, self.query(part)) for part in parts])
            case Not(inner=inner):
                return self._all((condition,)) if inner else Query.empty_query()
            case In(field=field, values=values):
                return self._any(field, values)
            case Has(field=field, state=state):
                return self._terms(f"s{self._slot(field)}", [_STATES[state]])
            case Compare(field=field, op="=", value=value):
                return self._any(field, (value,))
            case Compare(field=field, op="!=", value=value):
                return self._all((Not(Compare(field, "=", value)),))
            case Compare(field=field, op=op, value=value):
                bound = self._bound(value)
                low, high = (bound, None) if op[0] == ">" else (None, bound)
                return self._range(field, low, high, inclusive=op.endswith("="))
            case Between(field=field, low=below, high=above):
                return self._range(field, self._bound(below), self._bound(above), inclusive=True)

    def _all(self, parts: Iterable[Condition]) -> Query:
        clauses = [
            (Occur.MustNot, self.query(part.inner))
            if isinstance(part, Not)
            else (Occur.Must, self.query(part))
            for part in parts
        ]
        if all(occur == Occur.MustNot for occur, _ in clauses):
            clauses.append((Occur.Must, Query.all_query()))
        return Query.boolean_query(clauses)

    def _any(self, field: str, values: Sequence[str]) -> Query:
        slot = self._slot(field)
        hashes, numbers = self._values(values)
        strings = self._terms(f"h{slot}", hashes)
        if not numbers:
            return strings
        parts = (strings, self._terms(f"x{slot}", numbers))
        return Query.boolean_query([(Occur.Should, part) for part in parts])

    def _values(self, values: Sequence[str]) -> tuple[list[int], list[float]]:
        """Values of a filter as hashed strings and, those that are numbers, as these too."""
        hashes = [hashed(facet(value), self._salt) for value in values]
        return hashes, [found + 0.0 for value in values if (found := number(value)) is not None]

    def _terms(self, field: str, terms: Sequence[float]) -> Query:
        if len(terms) == 1:
            return Query.term_query(self._schema, field, terms[0])
        return Query.term_set_query(self._schema, field, terms)

    def _range(
        self, field: str, low: float | None, high: float | None, *, inclusive: bool
    ) -> Query:
        return Query.range_query(
            self._schema,
            f"x{self._slot(field)}",
            FieldType.Float,
            low,
            high,
            include_lower=inclusive or low is None,
            include_upper=inclusive or high is None,
        )

    def _slot(self, field: str) -> int:
        if field in self._names:
            return self._names.index(field)
        patterns = ", ".join(f"`{name}`" for name in sorted(self._names))
        others = (
            f"Available filterable attribute patterns are: {patterns}."
            if patterns
            else "This index does not have configured filterable attributes."
        )
        raise ApiError(self._code, f"Attribute `{field}` is not filterable. {others}")

    def _bound(self, value: str) -> float:
        found = number(value)
        if found is None:
            raise ApiError(
                self._code,
                f"This server compares numbers only, and `{value}` is none: use `=` or `IN`.",
            )
        return found
