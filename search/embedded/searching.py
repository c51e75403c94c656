"""Answers a search of one collection."""

import re
import time
from collections.abc import Sequence
from typing import Any

from tantivy import Occur, Query

from .catalog import Catalog
from .errors import ApiError
from .evaluating import Evaluator
from .filter_parser import parse
from .filters import Filters
from .formatting import Formatter
from .matching import Matcher
from .ordering import Ordering
from .ranking import Ranker, Sort, rules_of
from .search_request import SearchRequest
from .term_queries import TermQueries
from .terms import Asked, Reader, Term
from .views import View

_SORT = re.compile(r"^(.+):(asc|desc)$", re.DOTALL)


def search(view: View, catalog: Catalog, request: SearchRequest) -> dict[str, Any]:
    """The answer to a request. Raises `ApiError`."""
    begin = time.perf_counter()
    settings = view.collection.settings
    asked = Reader(settings).read(request.q or "")
    matcher = Matcher(asked.terms, view.index.layout.stop_words)
    ordering = _ordering(view, catalog, request, asked, matcher)
    rules = rules_of(settings["rankingRules"], _sorts(view, request))
    most = settings["pagination"]["maxTotalHits"]
    offset, limit = _part(request)
    reach = min(offset + limit, most)
    best = ordering.best(rules, reach if reach > offset else 0)
    total, numbers = min(best.total, most), best.numbers[offset:reach]
    formatter = Formatter(request, matcher, settings["displayedAttributes"])
    hits = [formatter.hit(document) for document in ordering.load(numbers)]
    answer: dict[str, Any] = {
        "hits": hits,
        "query": request.q or "",
        "processingTimeMs": int((time.perf_counter() - begin) * 1000),
    }
    return answer | _pages(request, total)


def _part(request: SearchRequest) -> tuple[int, int]:
    if not request.by_page:
        return request.offset, request.limit
    page = 1 if request.page is None else request.page
    size = 20 if request.hits_per_page is None else request.hits_per_page
    return (page - 1) * size if page else 0, size if page else 0


def _pages(request: SearchRequest, total: int) -> dict[str, Any]:
    if not request.by_page:
        return {"limit": request.limit, "offset": request.offset, "estimatedTotalHits": total}
    size = 20 if request.hits_per_page is None else request.hits_per_page
    return {
        "hitsPerPage": size,
        "page": 1 if request.page is None else request.page,
        "totalPages": -(-total // size) if size else 0,
        "totalHits": total,
    }


def _sorts(view: View, request: SearchRequest) -> list[Sort]:
    settings = view.collection.settings
    if request.sort and "sort" not in settings["rankingRules"]:
        raise ApiError(
            "invalid_search_sort",
            "You must specify where `sort` is listed in the rankingRules setting to use the sort"
            " parameter at search time.",
        )
    sorts = []
    for text in request.sort:
        found = _SORT.match(text)
        if found is None:
            raise ApiError(
                "invalid_search_sort",
                f"Invalid syntax for the sort parameter: expected expression ending by `:asc` or"
                f" `:desc`, found `{text}`.",
            )
        if found[1] not in settings["sortableAttributes"]:
            names = ", ".join(f"`{name}`" for name in settings["sortableAttributes"])
            others = (
                f"Available sortable attributes are: {names}."
                if names
                else "This index does not have configured sortable attributes."
            )
            raise ApiError(
                "invalid_search_sort", f"Attribute `{found[1]}` is not sortable. {others}"
            )
        sorts.append(Sort(found[1], found[2] == "desc"))
    return sorts


def _ordering(
    view: View, catalog: Catalog, request: SearchRequest, asked: Asked, matcher: Matcher
) -> Ordering:
    index, settings = view.index, view.collection.settings
    names = _searched(view, request)
    layout = index.layout
    slots = [layout.texts.index(name) for name in names]
    exact = frozenset(settings["typoTolerance"]["disableOnAttributes"])
    queries = TermQueries(
        index.schema,
        slots,
        frozenset(slot for slot, name in zip(slots, names, strict=True) if name in exact),
    )
    base: list[tuple[Occur, Query]] = []
    condition = None if request.filter is None else parse(request.filter)
    membership = None
    if condition is not None:
        rest, membership = Filters(index).split(condition, view.collection.several)
        base += [] if rest is None else [(Occur.Must, rest)]
    base += [(Occur.MustNot, queries.term(term)) for term in asked.without]
    evaluator = Evaluator(index.searcher(), membership, selective=bool(asked.terms))
    order, least = _order(
        request.matching_strategy,
        asked.terms,
        [evaluator.count(queries.term(term)) for term in asked.terms]
        if request.matching_strategy == "frequency"
        else (),
    )
    return Ordering(
        view,
        catalog,
        evaluator=evaluator,
        base=base,
        terms=asked.terms,
        order=order,
        least=least,
        queries=queries,
        ranker=Ranker(matcher, attributes=names, exact=exact, order=order),
    )


def _order(strategy: str, terms: Sequence[Term], counts: Sequence[int]) -> tuple[list[int], int]:
    """The terms' numbers, those first that are dropped last, and how many must remain."""
    numbers = list(range(len(terms)))
    if strategy == "all":
        return numbers, len(numbers)
    if strategy == "frequency":
        numbers.sort(key=lambda at: (counts[at] == 0, counts[at]))
    needed = [at for at in numbers if terms[at].kind == "phrase"]
    others = [at for at in numbers if terms[at].kind != "phrase"]
    return needed + others, max(len(needed), min(1, len(numbers)))


def _searched(view: View, request: SearchRequest) -> list[str]:
    texts = view.index.layout.texts
    wanted = request.attributes_to_search_on
    if wanted is None or "*" in wanted:
        return list(texts)
    for name in wanted:
        if name not in texts:
            known = ", ".join(f"`{each}`" for each in sorted(texts))
            raise ApiError(
                "invalid_search_attributes_to_search_on",
                f"Attribute `{name}` is not searchable. Available searchable attributes are:"
                f" `{known}`.",
            )
    return [name for name in texts if name in wanted]
