"""Searches as requests: both methods, several at once, and what is refused."""

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from meilisearch import Client
from meilisearch.index import Index

from .steps import make, new_uid, refused


@pytest.fixture(scope="module")
def index(client: Client) -> Index:
    documents = [{"id": n, "a": f"red {n}", "n": n} for n in range(10)]
    return make(client, documents, filterableAttributes=["n"], sortableAttributes=["n"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "bad_request"),
        ("red", "bad_request"),
        ({"marin": "hello"}, "bad_request"),
        ({"q": ["red"]}, "invalid_search_q"),
        ({"q": 5}, "invalid_search_q"),
        ({"offset": "1"}, "invalid_search_offset"),
        ({"offset": -1}, "invalid_search_offset"),
        ({"limit": 1.5}, "invalid_search_limit"),
        ({"limit": True}, "invalid_search_limit"),
        ({"page": "1"}, "invalid_search_page"),
        ({"hitsPerPage": -5}, "invalid_search_hits_per_page"),
        ({"attributesToRetrieve": "a"}, "invalid_search_attributes_to_retrieve"),
        ({"attributesToRetrieve": [1]}, "invalid_search_attributes_to_retrieve"),
        ({"attributesToCrop": "a"}, "invalid_search_attributes_to_crop"),
        ({"cropLength": "a"}, "invalid_search_crop_length"),
        ({"cropMarker": ["a"]}, "invalid_search_crop_marker"),
        ({"attributesToHighlight": "a"}, "invalid_search_attributes_to_highlight"),
        ({"highlightPreTag": ["a"]}, "invalid_search_highlight_pre_tag"),
        ({"highlightPostTag": 5}, "invalid_search_highlight_post_tag"),
        ({"showMatchesPosition": "yes"}, "invalid_search_show_matches_position"),
        ({"sort": "n:asc"}, "invalid_search_sort"),
        ({"matchingStrategy": "some"}, "invalid_search_matching_strategy"),
        ({"matchingStrategy": {"a": 1}}, "invalid_search_matching_strategy"),
        ({"attributesToSearchOn": "a"}, "invalid_search_attributes_to_search_on"),
        ({"facets": "a"}, "invalid_search_facets"),
        ({"rankingScoreThreshold": "a"}, "invalid_search_ranking_score_threshold"),
        ({"retrieveVectors": "a"}, "invalid_search_retrieve_vectors"),
    ],
)
def test_requests_that_cannot_be(client: Client, index: Index, body: Any, code: str) -> None:
    assert refused(client.http.post, f"indexes/{index.uid}/search", body) == (400, code)


def test_null_is_as_not_given(client: Client, index: Index) -> None:
    names = ("q", "filter", "sort", "page", "hitsPerPage", "attributesToHighlight", "facets")
    answer = client.http.post(f"indexes/{index.uid}/search", dict.fromkeys(names))
    assert len(answer["hits"]) == 10


def test_by_get(client: Client, index: Index) -> None:
    def get(**parameters: str) -> Any:
        return client.http.get(f"indexes/{index.uid}/search?{urlencode(parameters)}")

    assert [hit["id"] for hit in get(q="red 3 ", matchingStrategy="all")["hits"]] == [3]
    assert [hit["n"] for hit in get(filter="n > 3 AND n < 6", sort="n:desc")["hits"]] == [5, 4]
    assert [hit["n"] for hit in get(filter='[["n = 1", "n = 2"], "n != 1"]')["hits"]] == [2]
    assert get(limit="1", offset="2", attributesToRetrieve="id,a")["hits"] == [
        {"id": 2, "a": "red 2"}
    ]
    hit = get(q="red", attributesToHighlight="a", highlightPreTag="<", highlightPostTag=">")
    assert hit["hits"][0]["_formatted"]["a"] == "<red> 0"
    assert get(page="2", hitsPerPage="4")["hits"][0]["id"] == 4
    assert "_matchesPosition" in get(q="red", showMatchesPosition="true")["hits"][0]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=x", "invalid_search_limit"),
        ("limit=", "invalid_search_limit"),
        ("offset=-1", "invalid_search_offset"),
        ("page=x", "invalid_search_page"),
        ("hitsPerPage=x", "invalid_search_hits_per_page"),
        ("cropLength=x", "invalid_search_crop_length"),
        ("showMatchesPosition=x", "invalid_search_show_matches_position"),
        ("matchingStrategy=x", "invalid_search_matching_strategy"),
        ("filter=n+%3D", "invalid_search_filter"),
        ("sort=n", "invalid_search_sort"),
        ("unknown=1", "bad_request"),
    ],
)
def test_gets_that_cannot_be(client: Client, index: Index, query: str, code: str) -> None:
    assert refused(client.http.get, f"indexes/{index.uid}/search?{query}") == (400, code)


def test_several_searches_at_once(client: Client, index: Index) -> None:
    queries = [
        {"indexUid": index.uid, "q": "red", "filter": "n = 4"},
        {"indexUid": index.uid, "q": "blue"},
    ]
    results = client.multi_search(queries)["results"]
    assert [result["indexUid"] for result in results] == [index.uid, index.uid]
    assert [[hit["id"] for hit in result["hits"]] for result in results] == [[4], []]
    missing = [{"indexUid": new_uid(), "q": ""}]
    assert refused(client.multi_search, missing)[1] == "index_not_found"
    assert refused(client.multi_search, [{"q": "red"}]) == (400, "missing_index_uid")
    assert refused(client.multi_search, [{"indexUid": index.uid, "limit": "x"}]) == (
        400,
        "invalid_search_limit",
    )


def test_quotes_and_the_like_in_names_are_no_paths(client: Client) -> None:
    for name in ("../indexes", "a/../b", "%", "a%2Fb", "\u2028", "a\nb"):
        path = f"indexes/{quote(name, safe='')}/search"
        status, code = refused(client.http.post, path, {})
        assert (status, code) in ((400, "invalid_index_uid"), (404, "not_found"))
