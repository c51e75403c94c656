"""Settings: shown, changed one by one or together, reset, refused."""

from typing import Any

import pytest
from meilisearch import Client

from .steps import done, found, make, new_uid, refused

RULES = ["words", "typo", "proximity", "attribute", "sort", "exactness"]

DEFAULTS: dict[str, Any] = {
    "displayedAttributes": ["*"],
    "searchableAttributes": ["*"],
    "filterableAttributes": [],
    "sortableAttributes": [],
    "rankingRules": RULES,
    "stopWords": [],
    "synonyms": {},
    "distinctAttribute": None,
    "pagination": {"maxTotalHits": 1000},
    "localizedAttributes": None,
    "prefixSearch": "indexingTime",
    "proximityPrecision": "byWord",
}

CHANGES: dict[str, tuple[str, Any]] = {
    "displayedAttributes": ("displayed-attributes", ["b", "a"]),
    "searchableAttributes": ("searchable-attributes", ["b", "a"]),
    "filterableAttributes": ("filterable-attributes", ["a", "b.c"]),
    "sortableAttributes": ("sortable-attributes", ["a", "b.c"]),
    "rankingRules": ("ranking-rules", ["words", "at:desc", "sort", "a.b:asc"]),
    "stopWords": ("stop-words", ["a", "the"]),
    "localizedAttributes": (
        "localized-attributes",
        [{"attributePatterns": ["content"], "locales": ["jpn", "eng"]}],
    ),
    "prefixSearch": ("prefix-search", "disabled"),
}


def test_defaults(client: Client) -> None:
    shown = make(client, []).get_settings()
    assert {name: shown[name] for name in DEFAULTS} == DEFAULTS
    tolerance = shown["typoTolerance"]
    assert tolerance["enabled"] is True
    assert tolerance["minWordSizeForTypos"] == {"oneTypo": 5, "twoTypos": 9}
    assert (tolerance["disableOnWords"], tolerance["disableOnAttributes"]) == ([], [])


@pytest.mark.parametrize("name", CHANGES)
def test_each_by_itself(client: Client, name: str) -> None:
    path, value = CHANGES[name]
    index = make(client, [])
    url = f"indexes/{index.uid}/settings/{path}"
    assert client.http.get(url) == DEFAULTS[name]
    task = done(client, client.http.put(url, value))
    assert (task.type, task.details) == ("settingsUpdate", {name: value})
    assert client.http.get(url) == value
    assert index.get_settings()[name] == value
    done(client, client.http.delete(url))
    assert client.http.get(url) == DEFAULTS[name]


def test_together_and_in_part(client: Client) -> None:
    index = make(client, [])
    values = {name: value for name, (_, value) in CHANGES.items()}
    done(client, index.update_settings(values))
    shown = index.get_settings()
    assert {name: shown[name] for name in values} == values
    done(client, index.update_settings({"stopWords": ["x"], "rankingRules": None}))
    shown = index.get_settings()
    assert (shown["stopWords"], shown["rankingRules"]) == (["x"], RULES)
    assert shown["sortableAttributes"] == values["sortableAttributes"]
    done(client, index.reset_settings())
    shown = index.get_settings()
    assert {name: shown[name] for name in DEFAULTS} == DEFAULTS


def test_settings_of_several_parts_are_changed_in_part(client: Client) -> None:
    index = make(client, [])
    done(client, index.update_typo_tolerance({"minWordSizeForTypos": {"twoTypos": 12}}))
    done(client, index.update_typo_tolerance({"disableOnWords": ["b", "a"]}))
    tolerance = index.get_settings()["typoTolerance"]
    assert tolerance["minWordSizeForTypos"] == {"oneTypo": 5, "twoTypos": 12}
    assert tolerance["disableOnWords"] == ["a", "b"]
    done(client, index.update_settings({"typoTolerance": {"disableOnWords": None}}))
    tolerance = index.get_settings()["typoTolerance"]
    assert (tolerance["disableOnWords"], tolerance["enabled"]) == ([], True)
    done(client, index.update_pagination_settings({"maxTotalHits": 5}))
    assert index.get_pagination_settings().max_total_hits == 5


def test_an_index_is_made_by_its_settings(client: Client) -> None:
    index = client.index(new_uid())
    done(client, index.update_settings({"stopWords": ["a"]}))
    assert index.get_stop_words() == ["a"]
    assert client.get_raw_index(index.uid)["primaryKey"] is None


def test_documents_that_are_there_follow_new_settings(client: Client) -> None:
    documents = [{"id": n, "a": f"x{n}", "b": 5 - n} for n in range(5)]
    index = make(client, documents)
    done(client, index.update_settings({"searchableAttributes": ["b"]}))
    assert found(index, "x1") == []
    done(client, index.update_settings({"searchableAttributes": ["a"]}))
    assert found(index, "x1") == [1]
    done(client, index.update_settings({"sortableAttributes": ["b"]}))
    assert found(index, sort=["b:asc"]) == [4, 3, 2, 1, 0]
    done(client, index.update_settings({"filterableAttributes": ["b"]}))
    assert found(index, filter="b > 3") == [0, 1]
    assert index.get_stats().number_of_documents == 5


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"unknown": 1}, "bad_request"),
        ([], "bad_request"),
        ("text", "bad_request"),
        ({"displayedAttributes": "a"}, "invalid_settings_displayed_attributes"),
        ({"searchableAttributes": [1]}, "invalid_settings_searchable_attributes"),
        ({"filterableAttributes": "a"}, "invalid_settings_filterable_attributes"),
        ({"sortableAttributes": {"a": 1}}, "invalid_settings_sortable_attributes"),
        ({"rankingRules": "words"}, "invalid_settings_ranking_rules"),
        ({"rankingRules": ["word"]}, "invalid_settings_ranking_rules"),
        ({"rankingRules": ["at:up"]}, "invalid_settings_ranking_rules"),
        ({"stopWords": "the"}, "invalid_settings_stop_words"),
        ({"stopWords": [5]}, "invalid_settings_stop_words"),
        ({"synonyms": "a"}, "invalid_settings_synonyms"),
        ({"distinctAttribute": ["a"]}, "invalid_settings_distinct_attribute"),
        ({"typoTolerance": "off"}, "invalid_settings_typo_tolerance"),
        ({"typoTolerance": {"enabled": "no"}}, "invalid_settings_typo_tolerance"),
        ({"typoTolerance": {"unknown": 1}}, "invalid_settings_typo_tolerance"),
        (
            {"typoTolerance": {"minWordSizeForTypos": {"oneTypo": 9, "twoTypos": 5}}},
            "invalid_settings_typo_tolerance",
        ),
        (
            {"typoTolerance": {"minWordSizeForTypos": {"oneTypo": 300}}},
            "invalid_settings_typo_tolerance",
        ),
        ({"faceting": "a"}, "invalid_settings_faceting"),
        ({"pagination": {"maxTotalHits": -1}}, "invalid_settings_pagination"),
        ({"pagination": {"maxTotalHits": "x"}}, "invalid_settings_pagination"),
        ({"pagination": 5}, "invalid_settings_pagination"),
        ({"localizedAttributes": "jpn"}, "invalid_settings_localized_attributes"),
        ({"prefixSearch": "sometimes"}, "invalid_settings_prefix_search"),
        ({"searchCutoffMs": "x"}, "invalid_settings_search_cutoff_ms"),
    ],
)
def test_settings_that_cannot_be(client: Client, body: Any, code: str) -> None:
    index = make(client, [])
    assert refused(client.http.patch, f"indexes/{index.uid}/settings", body) == (400, code)


def test_one_setting_that_cannot_be(client: Client) -> None:
    url = f"indexes/{make(client, []).uid}/settings"
    code = "invalid_settings_ranking_rules"
    assert refused(client.http.put, f"{url}/ranking-rules", ["word"]) == (400, code)
    code = "invalid_settings_typo_tolerance"
    assert refused(client.http.patch, f"{url}/typo-tolerance", {"a": 1}) == (400, code)
