"""Terms as queries of the text index."""

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement

import tantivy
from tantivy import Occur, Query

from .terms import Term
from .text_index import spelled


def every(queries: Iterable[Query], without: Iterable[Query] = ()) -> Query:
    """What matches all, and none of `without`."""
    clauses = [(Occur.Must, query) for query in queries]
    clauses += [(Occur.MustNot, query) for query in without]
    return Query.boolean_query(clauses)


def some(queries: Sequence[Query]) -> Query:
    """What matches any."""
    if len(queries) == 1:
        return queries[0]
    return Query.boolean_query([(Occur.Should, query) for query in queries])


class TermQueries:
    """Makes queries of terms for some attributes, given by their slots.

    In those of `exact` typos do not count as matches.
    """

    def __init__(self, schema: tantivy.Schema, slots: Sequence[int], exact: frozenset[int]):
        self._schema = schema
        self.slots = tuple(slots)
        self._exact = exact

    def term(
        self, term: Term, *, typos: int | None = None, slots: Sequence[int] | None = None
    ) -> Query:
        """What has the term with at most `typos`; the term's own if None."""
        most = term.typos if typos is None else min(typos, term.typos)
        return some(
            [
                self._in(f"t{slot}", term, 0 if slot in self._exact else most)
                for slot in (self.slots if slots is None else slots)
            ]
            or [Query.empty_query()]
        )

    def whole(self, term: Term) -> Query:
        """What has the term just as it is, not as the beginning of another word."""
        return self.term(Term(term.kind, term.words), typos=0)

    def within(self, terms: Sequence[Term], typos: int) -> Query:
        """What has all terms with at most so many typos in sum."""
        free = [at for at, term in enumerate(terms) if term.typos]
        found = []
        for chosen in combinations_with_replacement(free, typos):
            counts = [chosen.count(at) for at in range(len(terms))]
            if all(count <= term.typos for count, term in zip(counts, terms, strict=True)):
                parts = zip(terms, counts, strict=True)
                found.append(every([self.term(term, typos=count) for term, count in parts]))
        return some(found) if found else every([self.term(term) for term in terms])

    def side_by_side(self, terms: Sequence[Term], slop: int) -> Query:
        """What has all words of the terms in this order, no more than `slop` apart."""
        words = [word for term in terms for word in term.words]
        phrase = Term("phrase", tuple(words))
        return some([self._phrase(f"t{slot}", phrase, slop) for slot in self.slots])

    def _in(self, field: str, term: Term, typos: int) -> Query:
        if term.kind == "word":
            return self._word(field, term, typos)
        if len(term.words) == 1 and term.prefix:
            return self._beginning(field, spelled(term.text))
        return self._phrase(field, term, 0)

    def _word(self, field: str, term: Term, typos: int) -> Query:
        text = spelled(term.text)
        if typos == 0:
            if term.prefix:
                return self._beginning(field, text)
            return Query.term_query(self._schema, field, text)
        near = Query.fuzzy_term_query(self._schema, field, text, distance=typos, prefix=term.prefix)
        return some([near, self._other_letter(field, term)]) if typos == 2 else near

    def _beginning(self, field: str, text: str) -> Query:
        return Query.fuzzy_term_query(self._schema, field, text, distance=0, prefix=True)

    def _other_letter(self, field: str, term: Term) -> Query:
        """One typo, in the first letter: that counts as two."""
        first, rest = term.text[0], term.text[1:]
        forms = [
            f"...{rest}",
            spelled(rest),
            f"...{term.text}",
            f"{spelled(rest[0])}{first}{rest[1:]}",
        ]
        end = ".*" if term.prefix else ""
        pattern = "|".join(f"{form}{end}" for form in forms)
        return Query.regex_query(self._schema, field, pattern)

    def _phrase(self, field: str, term: Term, slop: int) -> Query:
        words: list[str | tuple[int, str]] = [
            (at, spelled(word)) for at, word in enumerate(term.words) if word is not None
        ]
        if len(words) == 1:
            return Query.term_query(self._schema, field, words[0][1])
        if term.prefix:
            return Query.phrase_prefix_query(self._schema, field, words)
        return Query.phrase_query(self._schema, field, words, slop=slop)
