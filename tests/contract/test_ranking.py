"""The order of hits: ranking rules, sorting, pages."""

from typing import Any

import pytest
from meilisearch import Client
from meilisearch.index import Index

from .steps import Document, done, found, make, refused, texts


def test_more_words_come_first(client: Client) -> None:
    index = texts(client, "red", "red green", "red green blue", "red blue")
    assert found(index, "red green blue") == [2, 1, 0, 3]


def test_fewer_typos_come_first(client: Client) -> None:
    index = texts(client, "hallo world", "hello world", "hallo warld")
    assert found(index, "hello world", matchingStrategy="all") == [1, 0, 2]


def test_nearer_words_come_first(client: Client) -> None:
    index = texts(
        client,
        "shoes that are not quite so very much running at all",
        "running my shoes",
        "running shoes",
        "shoes running",
    )
    hits = found(index, "running shoes")
    assert (hits[0], hits[-1]) == (2, 0)


def test_words_near_the_beginning_come_first(client: Client) -> None:
    index = texts(client, "a b c d e f g h target", "target a b c d e f g h", "a b c target d e")
    assert found(index, "target") == [1, 2, 0]


def test_exact_matches_come_first(client: Client) -> None:
    index = texts(client, "knights", "knight", "knight rider", rankingRules=["exactness"])
    assert found(index, "knight") == [1, 2, 0]


def test_newest_first_among_equals(client: Client) -> None:
    rules = ["words", "typo", "proximity", "sort", "exactness", "at:desc"]
    documents = [
        {"id": n, "content": f"deploy {'failed' if n % 2 else 'done'}", "at": n * 7 % 10}
        for n in range(10)
    ]
    index = make(
        client,
        documents,
        searchableAttributes=["content"],
        sortableAttributes=["at"],
        rankingRules=rules,
    )
    assert found(index, "deploy failed") == [7, 1, 5, 9, 3, 4, 8, 2, 6, 0]
    assert found(index, "deploy failed", matchingStrategy="all") == [7, 1, 5, 9, 3]
    assert found(index, "") == [7, 4, 1, 8, 5, 2, 9, 6, 3, 0]
    done(client, index.update_ranking_rules(["at:asc", "words"]))
    assert found(index, "deploy failed") == [0, 3, 6, 9, 2, 5, 8, 1, 4, 7]


BOOKS: list[Document] = [
    {"id": 1, "author": "Lem", "price": 5.0, "tags": ["b", "z"], "rating": {"users": 87}},
    {"id": 2, "author": "butler", "price": 10, "tags": ["a"], "rating": {"users": 92}},
    {"id": 3, "author": "zola", "price": "cheap", "rating": {"users": 80}},
    {"id": 4, "author": "Butler", "price": -1, "tags": [], "rating": {"users": 73}},
    {"id": 5, "price": None},
]


@pytest.fixture(scope="module")
def books(client: Client) -> Index:
    return make(client, BOOKS, sortableAttributes=["author", "price", "tags", "rating.users"])


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        (["price:asc"], [4, 1, 2, 3, 5]),  # numbers, strings, nothing
        (["price:desc"], [2, 1, 4, 3, 5]),
        (["rating.users:desc"], [2, 1, 3, 4, 5]),
        (["author:asc", "price:asc"], [4, 2, 1, 3, 5]),  # without regard to case, by bytes
        (["author:asc", "price:desc"], [2, 4, 1, 3, 5]),
        (["tags:asc"], [2, 1, 3, 4, 5]),
        (["tags:desc"], [1, 2, 3, 4, 5]),
    ],
)
def test_sorting(books: Index, sort: list[str], wanted: list[int]) -> None:
    assert found(books, sort=sort) == wanted


@pytest.mark.parametrize(
    "sort", [["price"], ["price:up"], ["unknown:asc"], ["_geoPoint(1,2):asc"], "price:asc", [5]]
)
def test_sorting_that_cannot_be(books: Index, sort: Any) -> None:
    assert refused(books.search, "", {"sort": sort}) == (400, "invalid_search_sort")


def test_sorting_needs_its_rule(client: Client) -> None:
    index = make(client, BOOKS, sortableAttributes=["price"], rankingRules=["words", "typo"])
    assert refused(index.search, "", {"sort": ["price:asc"]}) == (400, "invalid_search_sort")


def test_strings_that_begin_alike_are_sorted(client: Client) -> None:
    documents = [{"id": n, "name": f"conversation-{n * 37 % 700:03}"} for n in range(700)]
    index = make(client, documents, sortableAttributes=["name"])
    ordered = sorted(range(700), key=lambda n: n * 37 % 700)
    assert found(index, sort=["name:asc"], limit=700) == ordered
    assert found(index, sort=["name:desc"], limit=7, offset=3) == ordered[::-1][3:10]


def test_pages_by_offset(client: Client) -> None:
    documents = [{"id": n, "at": n, "content": "same"} for n in range(25)]
    index = make(client, documents, rankingRules=["words", "at:desc"])
    answer = index.search("same", {"limit": 10, "offset": 20})
    assert [hit["id"] for hit in answer["hits"]] == [4, 3, 2, 1, 0]
    assert (answer["limit"], answer["offset"], answer["estimatedTotalHits"]) == (10, 20, 25)
    assert answer["query"] == "same"
    assert answer["processingTimeMs"] >= 0
    assert not {"page", "totalHits", "totalPages", "hitsPerPage"} & answer.keys()
    assert len(found(index, "same")) == 20
    assert found(index, "same", offset=25) == []
    assert found(index, "same", limit=0) == []


def test_pages_by_number(client: Client) -> None:
    index = make(client, [{"id": n, "content": "same"} for n in range(25)])
    answer = index.search("same", {"page": 2, "hitsPerPage": 10})
    assert [hit["id"] for hit in answer["hits"]] == list(range(10, 20))
    assert (answer["page"], answer["hitsPerPage"]) == (2, 10)
    assert (answer["totalPages"], answer["totalHits"]) == (3, 25)
    assert not {"limit", "offset", "estimatedTotalHits"} & answer.keys()
    answer = index.search("same", {"page": 0})
    assert (answer["hits"], answer["page"], answer["totalPages"]) == ([], 0, 2)
    answer = index.search("same", {"hitsPerPage": 0})
    assert (answer["hits"], answer["totalHits"], answer["totalPages"]) == ([], 25, 0)


def test_a_thousand_hits_at_most(client: Client) -> None:
    index = make(client, [{"id": n, "content": "I am unique!"} for n in range(1200)])
    for query in ("", "unique"):
        assert len(found(index, query, limit=1500)) == 1000
        assert len(found(index, query, offset=800, limit=400)) == 200
        assert found(index, query, offset=1000) == []
        assert index.search(query)["estimatedTotalHits"] == 1000
        assert index.search(query, {"page": 1})["totalHits"] == 1000
    done(client, index.update_pagination_settings({"maxTotalHits": 1100}))
    assert len(found(index, "unique", offset=1000, limit=400)) == 100


def test_many_hits_are_ordered_as_few_are(client: Client) -> None:
    """More documents than a server would look at one by one."""
    contents = ["alpha beta", "alpha gamma beta", "alphas beta", "alpha", "alhpa beta"]
    times = [(n * 7919) % 3000 for n in range(3000)]
    documents = [{"id": n, "content": contents[n % 5], "at": times[n]} for n in range(3000)]
    index = make(
        client,
        documents,
        searchableAttributes=["content"],
        rankingRules=["words", "typo", "proximity", "exactness", "at:desc"],
    )

    def newest(*kinds: int) -> list[int]:
        chosen = [n for n in range(3000) if n % 5 in kinds]
        return sorted(chosen, key=lambda n: -times[n])

    hits = found(index, "alpha beta", limit=1000)
    assert hits[:600] == newest(0)
    assert hits[600:] == newest(1)[:400]
    hits = found(index, "alpha beta", limit=400, offset=550)
    assert hits == newest(0)[550:] + newest(1)[:350]
