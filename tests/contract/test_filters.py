"""Filters: the whole grammar, and values of all kinds."""

from typing import Any

import pytest
from meilisearch import Client
from meilisearch.index import Index

from .steps import Document, found, make, refused

MOVIES: list[Document] = [
    {"id": 1, "genres": ["horror", "Comedy"], "year": 1980, "director": "Jordan Peele"},
    {"id": 2, "genres": ["horror"], "year": 1990, "director": "Tim Burton"},
    {"id": 3, "genres": ["comedy"], "year": 2000, "director": 'it\'s "me"'},
    {"id": 4, "genres": [], "year": None, "director": ""},
    {"id": 5, "year": 2010.5, "rating": {"users": 85}, "director": "AND"},
    {"id": 6, "genres": "drama", "year": "2020", "rating": {"users": 90}, "director": "\\ [x]"},
    {"id": 7, "genres": {}, "year": [1, 5000], "flag": True, "director": "Ä ÖÜ"},
]


@pytest.fixture(scope="module")
def movies(client: Client) -> Index:
    names = ["genres", "year", "director", "rating.users", "flag"]
    return make(client, MOVIES, filterableAttributes=names)


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        # equality: of a value, of one of several, without regard to case
        ("genres = horror", [1, 2]),
        ("genres=comedy", [1, 3]),
        ("genres = COMEDY", [1, 3]),
        ("genres != horror", [3, 4, 5, 6, 7]),
        ("director = 'Jordan Peele'", [1]),
        ('director = "tim burton"', [2]),
        ("director = 'ä öü'", [7]),
        ("flag = true", [7]),
        # quotes inside quotes, and words of the grammar as values
        ('director = "it\'s \\"me\\""', [3]),
        ("director = 'it\\'s \"me\"'", [3]),
        ("director = 'AND'", [5]),
        ("director = '\\\\ [x]'", [6]),
        # numbers, as numbers and as strings
        ("year = 1980", [1]),
        ("year = 1980.0", [1]),
        ("year = 2010.5", [5]),
        ("year = '2020'", [6]),
        ("year = 5000", [7]),
        ("year > 1990", [3, 5, 7]),
        ("year >= 1990", [2, 3, 5, 7]),
        ("year < 1990", [1, 7]),
        ("year <= 1990", [1, 2, 7]),
        ("year > -1 AND year < 2", [7]),
        ("year 1990 TO 2000", [2, 3]),
        ("rating.users 80 TO 89", [5]),
        # lists
        ("year IN [1980, 2000, 7]", [1, 3]),
        ("genres IN [drama, 'comedy']", [1, 3, 6]),
        ("genres IN[ horror , drama , ]", [1, 2, 6]),
        ("genres IN []", []),
        ("genres NOT IN [horror, drama]", [3, 4, 5, 7]),
        ("NOT genres IN [horror, drama]", [3, 4, 5, 7]),
        ("director IN ['nobody', \"Jordan Peele\"]", [1]),
        # what is there, null, empty
        ("genres EXISTS", [1, 2, 3, 4, 6, 7]),
        ("genres NOT EXISTS", [5]),
        ("NOT genres EXISTS", [5]),
        ("rating.users EXISTS", [5, 6]),
        ("year IS NULL", [4]),
        ("year IS NOT NULL", [1, 2, 3, 5, 6, 7]),
        ("genres IS EMPTY", [4, 7]),
        ("genres IS NOT EMPTY", [1, 2, 3, 5, 6]),
        ("director IS EMPTY", [4]),
        ("year IS EMPTY", []),
        # AND binds more than OR, NOT more than both
        ("genres = horror AND year = 1980", [1]),
        ("genres = drama OR genres = comedy", [1, 3, 6]),
        ("genres = drama OR genres = comedy AND year = 2000", [3, 6]),
        ("(genres = drama OR genres = comedy) AND year = 2000", [3]),
        ("NOT genres = horror AND year = 2000", [3]),
        ("NOT (genres = horror OR year = 2000)", [4, 5, 6, 7]),
        ("NOT NOT genres = drama", [6]),
        ("((((genres = drama))))", [6]),
        # arrays: AND outside, OR inside
        (["genres = horror", "year = 1990"], [2]),
        ([["genres = drama", "year = 1990"]], [2, 6]),
        ([["genres = drama", "genres = comedy"], "year = 2000"], [3]),
        ([["genres = comedy", "genres = horror"], "NOT director = 'Jordan Peele'"], [2, 3]),
        # nothing asked for
        ("", [1, 2, 3, 4, 5, 6, 7]),
        ("   ", [1, 2, 3, 4, 5, 6, 7]),
        ([], [1, 2, 3, 4, 5, 6, 7]),
        ([[]], [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_filters_choose(movies: Index, filter: Any, wanted: list[int]) -> None:
    assert found(movies, filter=filter) == wanted


@pytest.mark.parametrize(
    "filter",
    [
        "genres",
        "genres =",
        "= horror",
        "genres horror",
        "genres = horror AND",
        "genres = horror AND AND year = 1",
        "genres = horror year = 1",
        "genres = horror & year = 1",
        "genres = horror OR",
        "NOT",
        "genres = AND",
        "AND = horror",
        "genres = 'horror",
        'genres = "horror',
        "genres = 'it's'",
        "(genres = horror",
        "genres = horror)",
        "()",
        "genres IN horror",
        "genres IN [horror",
        "genres IN [horror comedy]",
        "genres IN [horror, AND]",
        "genres NOT",
        "genres IS horror",
        "year 1990 TO",
        "title = horror",
        "genre = horror",
        "_geo = 1",
        "genres = _geoRadius(1, 2, 3)",
        "genres = 🦀",
        "genres == horror",
        "genres = horror; DROP",
        5,
        True,
        {"genres": "horror"},
        [5],
        [["genres = horror", 5]],
        [[["genres = horror"]]],
        " NOT" * 300 + " genres = horror",
        "(" * 300 + "genres = horror" + ")" * 300,
    ],
)
def test_filters_that_cannot_be(movies: Index, filter: Any) -> None:
    search = lambda: movies.search("", {"filter": filter})  # noqa: E731
    assert refused(search) == (400, "invalid_search_filter")


def test_an_index_without_filters(client: Client) -> None:
    index = make(client, [{"id": 1, "a": 1}])
    assert refused(index.search, "", {"filter": "a = 1"}) == (400, "invalid_search_filter")


def test_filters_and_words_together(client: Client) -> None:
    documents = [
        {"id": n, "chat": f"c{n % 3}", "text": "hello" if n % 2 else "bye"} for n in range(12)
    ]
    index = make(client, documents, filterableAttributes=["chat"], searchableAttributes=["text"])
    assert found(index, "hello", filter="chat = c0") == [3, 9]
    assert found(index, "c0") == []
    answer = index.search("hello", {"filter": "chat IN [c0, c1]", "limit": 1})
    assert answer["estimatedTotalHits"] == 4


def test_a_thousand_values(client: Client) -> None:
    documents = [{"id": n, "chat": f"{n % 2000:032x}", "text": f"t{n % 7}"} for n in range(3000)]
    index = make(client, documents, filterableAttributes=["chat"])
    chosen = [f"{n:032x}" for n in range(0, 2000, 2)]
    listed = ", ".join(f'"{chat}"' for chat in chosen)
    answer = index.search("", {"filter": f"chat IN [{listed}]", "limit": 1000})
    assert answer["estimatedTotalHits"] == 1000  # at most
    assert {hit["chat"] for hit in answer["hits"]} <= set(chosen)
    wanted = [d["id"] for d in documents if d["chat"] in set(chosen) and d["text"] == "t3"]
    assert found(index, "t3", filter=f"chat IN [{listed}]", limit=1000) == wanted
    answer = index.search("t3", {"filter": f"chat NOT IN [{listed}]", "limit": 1000})
    assert not {hit["chat"] for hit in answer["hits"]} & set(chosen)


def test_strings_of_468_bytes_can_be_filtered(client: Client) -> None:
    long = "ab" * 234
    documents = [{"id": 1, "s": long}, {"id": 2, "s": long[:-1] + "x"}, {"id": 3, "s": "a" * 468}]
    index = make(client, documents, filterableAttributes=["s"])
    assert found(index, filter=f"s = '{long}'") == [1]
    assert found(index, filter=f"s IN ['{'a' * 468}', '{long[:-1]}x']") == [2, 3]


def test_what_can_be_filtered_can_change(client: Client) -> None:
    index = make(client, MOVIES)
    assert refused(index.search, "", {"filter": "year = 1980"}) == (400, "invalid_search_filter")
    task = index.update_filterable_attributes(["year"])
    client.wait_for_task(task.task_uid, timeout_in_ms=20_000, interval_in_ms=5)
    assert found(index, filter="year = 1980") == [1]
