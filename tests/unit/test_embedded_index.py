"""The text index and the ranking by hand say the same of the same documents.

Few hits are looked at one by one, many are divided by queries: both must choose and order alike.
"""

import math
from collections.abc import Sequence
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.embedded import ordering
from search.embedded.engine import Engine
from search.embedded.fields import flatten
from search.embedded.filter_parser import And, Between, Compare, Condition, Has, In, Not, Or
from search.embedded.filters import Filters
from search.embedded.matching import Matcher
from search.embedded.search_request import SearchRequest
from search.embedded.searching import search
from search.embedded.settings import DEFAULTS
from search.embedded.term_queries import TermQueries
from search.embedded.terms import Reader
from search.embedded.text_index import Layout, TextIndex
from search.embedded.views import numbers_of

FEW = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

ALIKE = st.sampled_from(
    [
        "alpha",
        "alphas",
        "alhpa",
        "alph",
        "beta",
        "betas",
        "bet",
        "gamma",
        "extraordinary",
        "extraordinari",
        "dxtraordinary",
    ]
)
WORD = ALIKE | st.text("abé", min_size=1, max_size=12) | st.text("東京都大", min_size=1, max_size=5)
SENTENCE = st.lists(WORD, max_size=6).map(" ".join)


def indexed(folder: Path, documents: Sequence[dict[str, Any]], layout: Layout) -> TextIndex:
    index = TextIndex(folder, layout)
    index.delete(range(100))
    for number, document in enumerate(documents):
        index.add(number, flatten(document))
    index.commit()
    return index


# --- terms ---


@FEW
@given(
    st.lists(SENTENCE, min_size=1, max_size=8),
    st.lists(WORD, min_size=1, max_size=3),
    st.sampled_from(["", " ", '"']),
)
def test_terms_are_found_where_they_match(
    tmp_path: Path, contents: list[str], query: list[str], ending: str
) -> None:
    layout = Layout(texts=("t",), filters=(), sorts=())
    index = indexed(tmp_path / "index", [{"t": text} for text in contents], layout)
    try:
        text = " ".join(query)
        terms = Reader(DEFAULTS).read(f'"{text}"' if ending == '"' else text + ending).terms
        queries, matcher = TermQueries(index.schema, [0], frozenset()), Matcher(terms)
        places = [matcher.places(content) for content in contents]
        for at, term in enumerate(terms):
            for most in range(term.typos + 1):
                by_index = numbers_of(index.searcher(), queries.term(term, typos=most))
                by_hand = [
                    number
                    for number, found in enumerate(places)
                    if any(place.typos <= most for place in found[at])
                ]
                assert by_index == by_hand, (term, most)
    finally:
        index.close()


def test_a_typo_in_the_first_letter_of_a_long_word(tmp_path: Path) -> None:
    contents = ["extraordinary", "dxtraordinary", "xtraordinary", "xetraordinary", "wextraordinary"]
    contents += ["dxtraordinay", "extraordinari", "extraordinry things"]
    index = indexed(
        tmp_path, [{"t": text} for text in contents], Layout(texts=("t",), filters=(), sorts=())
    )
    queries = TermQueries(index.schema, [0], frozenset())
    (term,) = Reader(DEFAULTS).read("extraordinary ").terms
    assert numbers_of(index.searcher(), queries.term(term, typos=1)) == [0, 6, 7]
    assert numbers_of(index.searcher(), queries.term(term)) == [0, 1, 2, 3, 4, 6, 7]
    index.close()


# --- filters ---

NAMES = ("a", "b.c")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2.0, -1.5, 2**53, -(2**53)]),
    st.sampled_from(["", " ", "x", "X ", "1", "2.0", "é", "É", "true", "nan", "inf", "0x1", "1_0"]),
)
VALUES: st.SearchStrategy[Any] = SCALARS | st.lists(SCALARS, max_size=3) | st.just({})
DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"a": VALUES, "b": st.fixed_dictionaries({}, optional={"c": VALUES}) | SCALARS},
    ),
    max_size=6,
)
NUMBERS = st.sampled_from(["0", "1", "-1.5", "2", "1e3", "-3", str(2**53)])
ASKED = NUMBERS | st.sampled_from(["", "x", "X", " x", "é", "true", "nan", "inf", "none", "1_0"])
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(
        st.builds(Compare, st.sampled_from(NAMES), st.sampled_from(["=", "!="]), ASKED),
        st.builds(
            Compare, st.sampled_from(NAMES), st.sampled_from(["<", "<=", ">", ">="]), NUMBERS
        ),
        st.builds(Between, st.sampled_from(NAMES), NUMBERS, NUMBERS),
        st.builds(In, st.sampled_from(NAMES), st.lists(ASKED, max_size=4).map(tuple)),
        st.builds(Has, st.sampled_from(NAMES), st.sampled_from(["EXISTS", "NULL", "EMPTY"])),
    ),
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


def given_at(document: dict[str, Any], name: str) -> tuple[bool, Any]:
    """Whether an attribute is there, and its value."""
    value: Any = document
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def scalars(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and "_" not in text else None


def equal(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == text.strip().lower()
    if isinstance(value, int | float):
        return as_number(text) == value
    return isinstance(value, str) and value.strip().lower() == text.strip().lower()


def holds(document: dict[str, Any], condition: Condition) -> bool:
    """What the documentation says of a condition, document by document."""
    match condition:
        case And(all=parts):
            return all(holds(document, part) for part in parts)
        case Or(any=parts):
            return any(holds(document, part) for part in parts)
        case Not(inner=inner):
            return not holds(document, inner)
        case Compare(field=field, op="!=", value=value):
            return not holds(document, Compare(field, "=", value))
        case In(field=field, values=values):
            return any(holds(document, Compare(field, "=", value)) for value in values)
        case Between(field=field, low=low, high=high):
            _, found = given_at(document, field)
            return any(
                not isinstance(each, bool)
                and isinstance(each, int | float)
                and float(low) <= each <= float(high)
                for each in scalars(found)
            )
        case Has(field=field, state=state):
            there, found = given_at(document, field)
            wanted = {"EXISTS": there, "NULL": there and found is None}
            return wanted.get(state, there and found in ("", [], {}))
        case Compare(field=field, op="=", value=value):
            _, found = given_at(document, field)
            return any(equal(each, value) for each in scalars(found))
        case Compare(field=field, op=op, value=value):
            _, found = given_at(document, field)
            compare = {"<": lt, "<=": le, ">": gt, ">=": ge}[op]
            return any(
                not isinstance(each, bool)
                and isinstance(each, int | float)
                and compare(each, float(value))
                for each in scalars(found)
            )


@FEW
@given(DOCUMENTS, CONDITIONS)
def test_filters_choose_what_they_say(
    tmp_path: Path, documents: list[dict[str, Any]], condition: Condition
) -> None:
    layout = Layout(texts=(), filters=NAMES, sorts=(), salt="salt")
    index = indexed(tmp_path / "index", documents, layout)
    try:
        found = numbers_of(index.searcher(), Filters(index).query(condition))
    finally:
        index.close()
    assert found == [n for n, document in enumerate(documents) if holds(document, condition)]


# --- order ---


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


def load(engine: Engine, uid: str, documents: list[dict[str, Any]], **changes: Any) -> None:
    payload = engine.queue.payloads / uid
    payload.write_bytes(msgspec.json.encode(documents))
    work = {"settings": changes, "create": True}
    engine.queue.add("settingsUpdate", uid, work=work, details=None)
    work = {"create": True, "primaryKey": "id"}
    last = engine.queue.add("documentAdditionOrUpdate", uid, work=work, details=None, payload=uid)
    while (task := engine.task(last.uid)).finished_at is None:
        pass
    assert task.status == "succeeded", task.error


RULES = st.lists(
    st.sampled_from(["words", "typo", "sort", "n:desc", "s:asc"]),
    unique=True,
    max_size=5,
)
counter = iter(range(10**6))


@FEW
@given(
    st.lists(
        st.fixed_dictionaries(
            {"t": st.lists(ALIKE, max_size=4).map(" ".join)},
            optional={
                "n": st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2) | st.just("x"),
                "s": st.sampled_from(["alike-but-1", "alike-but-2", "other", 5, None]),
                "chat": st.sampled_from(["c1", "c2", "c3"]),
            },
        ),
        min_size=1,
        max_size=14,
    ),
    st.lists(ALIKE, max_size=3).map(" ".join),
    RULES,
    st.sampled_from(["last", "all"]),
    st.sampled_from([(), ("n:asc",), ("s:desc", "n:desc")]),
    st.sampled_from([None, "chat IN [c1, c2]", "chat = c1 OR n > 1"]),
)
def test_many_are_ordered_as_few_are(
    engine: Engine,
    documents: list[dict[str, Any]],
    query: str,
    rules: list[str],
    strategy: str,
    sort: tuple[str, ...],
    filter: str | None,
) -> None:
    uid = f"index-{next(counter)}"
    load(
        engine,
        uid,
        [{"id": number, **document} for number, document in enumerate(documents)],
        rankingRules=rules,
        searchableAttributes=["t"],
        sortableAttributes=["n", "s"],
        filterableAttributes=["chat", "n"],
    )
    request = SearchRequest(
        q=query,
        matching_strategy=strategy,
        sort=sort if "sort" in rules else (),
        filter=filter,
        limit=50,
    )
    answers = []
    for by_hand in (1000, 1, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ordering, "BY_HAND", by_hand)
            patch.setattr("search.embedded.filters.MANY", by_hand)
            answer = search(engine.view(uid), engine.catalog, request)
            # A part must be as the same part of everything.
            part = search(
                engine.view(uid),
                engine.catalog,
                msgspec.structs.replace(request, limit=3, offset=1),
            )
        ids = [hit["id"] for hit in answer["hits"]]
        assert len(ids) == answer["estimatedTotalHits"]
        assert [hit["id"] for hit in part["hits"]] == ids[1:4]
        answers.append(ids)
    assert answers[0] == answers[1] == answers[2]


def test_among_many_more_exact_words_come_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "BY_HAND", 0)
    contents = ["alphas betas", "alphas beta", "alpha beta", "alpha betas", "x alpha beta"]
    documents = [{"id": number, "t": text} for number, text in enumerate(contents)]
    load(engine, "exact", documents, rankingRules=["exactness"], searchableAttributes=["t"])
    answer = search(engine.view("exact"), engine.catalog, SearchRequest(q="alpha beta"))
    assert [hit["id"] for hit in answer["hits"]] == [2, 4, 1, 3, 0]
