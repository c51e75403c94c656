"""Evaluates queries of one search: how many documents match, and the first ones by some order.

A filter with many values (all chats of a user) costs some milliseconds in each query, for each
value is looked up. Where few documents match without it, it is tried on those instead.
"""

from collections.abc import Sequence
from typing import Any

import tantivy
from tantivy import Order, Query

from .filters import Membership
from .term_queries import every

FEW = 4000

Pair = tuple[int | None, int]
"""A value to order by, None for none, and the number of a document."""


class Evaluator:
    """Evaluates queries that leave the membership out, and takes care of it."""

    def __init__(
        self, searcher: tantivy.Searcher, membership: Membership | None, *, selective: bool
    ):
        """`selective`: few documents may match the queries without the membership."""
        self.searcher = searcher
        self._membership = membership
        self._most = FEW if selective else 0

    def first(self, query: Query, limit: int) -> tuple[int, list[int]]:
        """How many documents match, and the least of their numbers, at most `limit`."""
        total, pairs = self.ordered(query, "n", descending=False, limit=limit)
        return total, [number for _, number in pairs]

    def every(self, query: Query) -> list[int]:
        """The numbers of all documents that match, ascending."""
        return self.first(query, self.searcher.num_docs)[1]

    def count(self, query: Query) -> int:
        """How many documents match."""
        return self.first(query, 0)[0]

    def ordered(
        self, query: Query, field: str, *, descending: bool, limit: int
    ) -> tuple[int, list[Pair]]:
        """How many documents match, and the first ones by a field; those without it come last."""
        order = Order.Desc if descending else Order.Asc
        if self._membership is None:
            return self._asked(query, field, order, limit)
        filtered = every([query, self._membership.query])
        if not self._most:
            return self._asked(filtered, field, order, limit)
        result: Any = self.searcher.search(
            query, limit=self._most, order_by_field=field, order=order
        )
        if result.count > self._most:
            return self._asked(filtered, field, order, limit)
        kept = self._membership.keeps(self.searcher, [address for _, address in result.hits])
        hits = [hit for hit, keep in zip(result.hits, kept, strict=True) if keep]
        return len(hits), self._pairs(hits[:limit], field)

    def _asked(self, query: Query, field: str, order: Order, limit: int) -> tuple[int, list[Pair]]:
        result: Any = self.searcher.search(
            query, limit=max(1, limit), order_by_field=field, order=order
        )
        return int(result.count), self._pairs(result.hits[:limit], field)

    def _pairs(self, hits: Sequence[Any], field: str) -> list[Pair]:
        if field == "n":
            return [(number, number) for number, _ in hits]
        addresses = [address for _, address in hits]
        numbers = self.searcher.fast_field_values("n", addresses) if addresses else []
        return [(hit[0], int(number or 0)) for hit, number in zip(hits, numbers, strict=True)]
