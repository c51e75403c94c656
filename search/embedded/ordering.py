"""Finds the best documents of a search: few are ranked by hand, many are divided by queries.

While more than `BY_HAND` documents are left, the next ranking rule divides them into buckets by
queries of the text index, the best bucket first; see `docs/embedded-search.md` for what that leaves
undecided. A query may cost some milliseconds for its filter alone, so none is asked twice.
"""

from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import combinations, groupby
from typing import Any

from msgspec import Struct
from tantivy import FieldType, Occur, Query

from .catalog import Catalog
from .evaluating import Evaluator
from .ranking import Ranker, Rule, Sort
from .term_queries import TermQueries, every, some
from .terms import Term
from .views import View, decode_document

BY_HAND = 200
CHUNK = 500
MOST_TYPOS = 2
"""Typos in sum that are told apart among many documents; more are all the same."""

MOST_EXACT = 4
"""Of more terms, among many documents, it counts only whether all match exactly."""


_Numbered = tuple[int, dict[str, Any]]


class Best(Struct):
    """How many documents match, and the numbers of the best ones in order."""

    total: int
    numbers: list[int]


class Ordering:
    """One search: the documents that match, in order."""

    def __init__(
        self,
        view: View,
        catalog: Catalog,
        *,
        evaluator: Evaluator,
        base: Sequence[tuple[Occur, Query]],
        terms: Sequence[Term],
        order: Sequence[int],
        least: int,
        queries: TermQueries,
        ranker: Ranker,
    ):
        """`order`: the terms' numbers, the last may be dropped first, but `least` remain."""
        self._view = view
        self._catalog = catalog
        self._evaluator = evaluator
        self._base = base
        self._terms = terms
        self._order = order
        self._least = least
        self._queries = queries
        self._ranker = ranker
        self._documents: dict[int, dict[str, Any]] = {}

    def best(self, rules: Sequence[Rule], need: int) -> Best:
        """The best documents by these rules."""
        if not self._terms:
            rules = [rule for rule in rules if isinstance(rule, Sort)]
        return self._best(self._with(self._least), rules, need, self._least)

    def load(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The documents with these numbers that are still there."""
        missing = [number for number in numbers if number not in self._documents]
        self._documents.update(self._read(missing))
        return [self._documents[number] for number in numbers if number in self._documents]

    def _read(self, numbers: Sequence[int]) -> Iterator[_Numbered]:
        for at in range(0, len(numbers), CHUNK):
            chunk = numbers[at : at + CHUNK]
            bodies = self._catalog.bodies(self._view.collection.iid, chunk)
            yield from ((number, decode_document(body)) for number, body in bodies.items())

    def _kept(self, count: int) -> list[Term]:
        return [self._terms[number] for number in sorted(self._order[:count])]

    def _with(self, count: int) -> Query:
        """What has at least the first so many terms."""
        found = [(Occur.Must, self._queries.term(term)) for term in self._kept(count)]
        clauses = [*self._base, *found]
        if all(occur == Occur.MustNot for occur, _ in clauses):
            clauses.append((Occur.Must, Query.all_query()))
        return Query.boolean_query(clauses)

    def _best(self, query: Query, rules: Sequence[Rule], need: int, kept: int) -> Best:
        while rules and not self._divides(rules[0], kept):
            rules = rules[1:]
        if not rules:
            return Best(*self._evaluator.first(query, need))
        first, rest = rules[0], rules[1:]
        if isinstance(first, Sort) and not any(isinstance(rule, str) for rule in rest):
            return self._by_field(query, first, rest, need, kept)
        total, numbers = self._evaluator.first(query, BY_HAND)
        if total <= BY_HAND:
            return Best(total, self._by_hand(numbers, rules, need))
        if isinstance(first, Sort):
            return self._by_field(query, first, rest, need, kept)
        found: list[int] = []
        for bucket, terms in self._buckets(first, query, kept):
            if len(found) >= need:
                break
            found += self._best(bucket, rest, need - len(found), terms).numbers
        return Best(total, found)

    def _divides(self, rule: Rule, kept: int) -> bool:
        """Whether a rule can tell documents apart that all have so many terms."""
        match rule:
            case "words":
                return kept < len(self._terms)
            case "typo":
                return any(term.typos for term in self._kept(kept))
            case "proximity":
                return kept > 1
            case "attributeRank":
                return len(self._queries.slots) > 1
        return True

    def _by_hand(self, numbers: Sequence[int], rules: Sequence[Rule], need: int) -> list[int]:
        """The best of these documents; of many, no more than a part is held at a time."""
        there: Iterator[_Numbered] = self._read(numbers)
        if len(numbers) <= CHUNK:
            self.load(numbers)
            known = self._documents
            there = ((number, known[number]) for number in numbers if number in known)
        keys = ((self._ranker.key(document, rules), number) for number, document in there)
        return [number for _, number in nsmallest(need, keys)]

    def _by_field(
        self, query: Query, sort: Sort, rest: Sequence[Rule], need: int, kept: int
    ) -> Best:
        slot = self._view.index.layout.sorts.index(sort.field)
        field = f"{'d' if sort.descending else 'a'}{slot}"
        total, pairs = self._evaluator.ordered(
            query, field, descending=sort.descending, limit=need + 1
        )
        open_end = need > 0 and len(pairs) > need and pairs[-1][0] == pairs[-2][0]
        found: list[int] = []
        for value, group in groupby(pairs[: need + open_end], key=lambda pair: pair[0]):
            if open_end and value == pairs[-1][0]:
                same = self._same(query, field, value)
                found += self._tied(same, sort, rest, need - len(found), kept, value=value)
                break
            tied = [number for _, number in group]
            found += tied if len(tied) == 1 else self._by_hand(tied, [sort, *rest], len(tied))
        return Best(total, found[:need])

    def _same(self, query: Query, field: str, value: int | None) -> Query:
        """What has (about) this value, or none."""
        if value is None:
            return every([query], [Query.exists_query(field)])
        schema = self._view.index.schema
        return every([query, Query.range_query(schema, field, FieldType.Unsigned, value, value)])

    def _tied(
        self,
        same: Query,
        sort: Sort,
        rest: Sequence[Rule],
        need: int,
        kept: int,
        *,
        value: int | None,
    ) -> list[int]:
        """The best of all documents with one rough value."""
        is_text = value is not None and bool(value >> 63) != sort.descending
        if is_text or (value is not None and self._evaluator.count(same) <= BY_HAND):
            # Strings that begin alike have one rough value.
            return self._by_hand(self._evaluator.every(same), [sort, *rest], need)
        return self._best(same, rest, need, kept).numbers

    # Buckets

    def _buckets(self, rule: str, query: Query, kept: int) -> Iterator[tuple[Query, int]]:
        """Disjoint parts of what `query` finds, the best first, each with its number of terms."""
        if rule == "words":
            yield from self._by_words(query, kept)
            return
        better: list[Query] = []
        for part in self._parts(rule, self._kept(kept)):
            yield every([query, part], better), kept
            better = [*better, part]
        yield every([query], better), kept

    def _by_words(self, query: Query, kept: int) -> Iterator[tuple[Query, int]]:
        better: list[Query] = []
        for count in range(len(self._terms), kept, -1):
            more = every([self._queries.term(term) for term in self._kept(count)])
            yield every([query, more], better), count
            better = [more]
        yield every([query], better), kept

    def _parts(self, rule: str, terms: list[Term]) -> Iterator[Query]:
        """What is better than the rest, the best first; later ones may include earlier ones."""
        if rule == "typo":
            most = sum(term.typos for term in terms)
            for count in range(min(most, MOST_TYPOS + 1)):
                yield self._queries.within(terms, count)
        elif rule == "proximity":
            if len(terms) > 1:
                yield self._queries.side_by_side(terms, 0)
                yield self._queries.side_by_side(terms, 2 * len(terms))
        elif rule in ("attribute", "attributeRank"):
            for slot in self._queries.slots[:-1]:
                yield every([self._queries.term(term, slots=[slot]) for term in terms])
        elif rule == "exactness":
            whole = [self._queries.whole(term) for term in terms]
            fewest = 1 if len(whole) <= MOST_EXACT else len(whole)
            for count in range(len(whole), fewest - 1, -1):
                yield some([every(chosen) for chosen in combinations(whole, count)])
