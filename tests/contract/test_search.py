"""Words: which documents they find."""

import pytest
from meilisearch import Client
from meilisearch.index import Index

from .steps import done, found, make, refused, texts


@pytest.fixture(scope="module")
def captains(client: Client) -> Index:
    return texts(
        client,
        "Shazam!",
        "Captain Planet",
        "Captain Marvel",
        "a Captain Marvel ersatz",
        "He's not part of the Marvel Cinematic Universe",
        "a Shazam ersatz, but better than Captain Planet",
        "Capitain CAAAAAVEEERNE!!!!",
    )


@pytest.mark.parametrize(
    ("query", "strategy", "wanted"),
    [
        ("Captain Marvel", "last", [2, 3, 1, 5, 6]),
        ("Captain Marvel", "all", [2, 3]),
        ("Captain Marvel", "frequency", [2, 3, 4]),
        ("Capitain Marvel", "last", [2, 3, 6, 1, 5]),
        ("Capitain Marvel", "all", [2, 3]),
        ("Capitain Marvel", "frequency", [2, 3, 4]),
        ("Captain Supercopter Marvel", "last", [1, 2, 3, 5, 6]),
        ("Captain Supercopter Marvel", "all", []),
        ("Captain Supercopter Marvel", "frequency", [2, 3, 4]),
    ],
)
def test_how_many_words_must_match(
    captains: Index, query: str, strategy: str, wanted: list[int]
) -> None:
    assert found(captains, query, matchingStrategy=strategy) == wanted


def test_the_default_drops_words_from_the_end(captains: Index) -> None:
    assert found(captains, "Captain Marvel") == [2, 3, 1, 5, 6]


def test_case_and_diacritics_do_not_count(client: Client) -> None:
    index = texts(
        client, "L'ÉTÉ à Nîmes", "strasse", "Ärger mit ČSSR", "ПРИВЕТ мир", "e\u0301le\u0300ve"
    )
    for query in ("été", "ete", "ETE", "Été", "e\u0301te\u0301"):
        assert found(index, query) == [0]
    assert found(index, "nimes") == [0]
    assert found(index, "arger") == [2]
    assert found(index, "cssr") == [2]
    assert found(index, "привет") == [3]
    assert found(index, "élève") == [4]


def test_the_last_word_may_be_a_beginning(client: Client) -> None:
    index = texts(client, "the world", "a sword", "worldwide", "word")
    assert found(index, "wor") == [2, 3, 0]
    assert found(index, "wor the") == []
    assert found(index, "the wor") == [0]
    assert found(index, "wor ") == []  # something follows, so it is whole
    assert found(index, "word ") == [3]


def test_typos(client: Client) -> None:
    index = texts(client, "saturday", "phone", "four", "extraordinary", "phones")
    assert found(index, "saturday") == [0]
    for query in ("saturdy", "saturdday", "saturfay", "satruday"):  # one, from 5 letters on
        assert found(index, query) == [0]
    assert found(index, "satrudey") == []  # two, but fewer than 9 letters
    assert found(index, "caturday") == []  # the first letter counts as two
    assert found(index, "fuor") == []  # fewer than 5 letters
    for query in ("extraodinry", "xetraordinary", "extroardinray", "fxtraordinary"):
        assert found(index, query) == [3]
    assert found(index, "extrodinry") == []  # three
    assert found(index, "phnoe") == [1, 4]


def test_typos_in_a_beginning(client: Client) -> None:
    index = texts(client, "knowledge is power", "acknowledged")
    assert found(index, "knwole") == [0]
    assert found(index, "knowledeg") == [0]


def test_how_long_words_must_be_for_typos(client: Client) -> None:
    tolerance = {"minWordSizeForTypos": {"oneTypo": 3, "twoTypos": 5}}
    index = texts(client, "cat", "horse", typoTolerance=tolerance)
    assert found(index, "cot") == [0]
    assert found(index, "hroes") == [1]
    assert found(index, "ct") == []
    done(client, index.update_typo_tolerance({"enabled": False}))
    assert (found(index, "cot"), found(index, "hrose")) == ([], [])
    done(client, index.reset_typo_tolerance())
    assert (found(index, "cot"), found(index, "hrose")) == ([], [1])


def test_words_and_attributes_without_typos(client: Client) -> None:
    documents = [{"id": 1, "a": "telephone", "b": ""}, {"id": 2, "a": "", "b": "telephone"}]
    index = make(client, documents, typoTolerance={"disableOnWords": ["Telephon"]})
    assert found(index, "telephne") == [1, 2]
    done(client, index.update_typo_tolerance({"disableOnAttributes": ["a"]}))
    assert found(index, "telephne") == [2]
    assert found(index, "telephone") == [1, 2]
    done(client, index.update_typo_tolerance({"disableOnWords": ["telephne"]}))
    assert found(index, "telephne") == []


def test_phrases(client: Client) -> None:
    index = texts(
        client,
        "how to train your dragon",
        "train how your dragon to",
        "train. your dragon",
        "Train Your, dragon",
        "trains your dragon",
    )
    assert found(index, '"train your dragon"') == [0]
    assert sorted(found(index, '"TRAIN your"')) == [0, 3]
    assert found(index, '"train your drago"') == []
    assert found(index, '"train your" "how to"') == [0]
    assert found(index, 'dragon "how your"') == [1]
    assert found(index, '"how to train') == [0]  # not closed: to the end
    assert found(index, '"trian your"') == []


def test_a_phrase_is_never_dropped(client: Client) -> None:
    index = texts(client, "big red bus", "big blue bus", "red bus")
    assert found(index, 'big "red bus"') == [0, 2]
    assert found(index, '"red bus" big') == [0, 2]


def test_what_must_not_be_there(client: Client) -> None:
    index = texts(client, "escape room", "escape plan b", "great escapes", "a room with a view")
    assert found(index, "-escape") == [2, 3]
    assert found(index, "escape -room") == [1, 2]
    assert found(index, "escape -plan -room") == [2]
    assert found(index, '-"plan b"') == [0, 2, 3]
    assert found(index, "-escape escape") == [2]
    assert found(index, "- escape") == [0, 1, 2]  # a hyphen by itself
    assert found(index, 'escape -"escape room"') == [1, 2]


def test_stop_words(client: Client) -> None:
    index = texts(client, "to the moon", "the sun", "moon theory", stopWords=["the", "to", "a"])
    assert sorted(found(index, "the moon ")) == [0, 2]
    assert found(index, "to the ") == [0, 1, 2]  # nothing is left to look for
    assert found(index, "to the") == [2]  # the last may be a beginning
    done(client, index.reset_stop_words())
    assert sorted(found(index, "the ")) == [0, 1]


def test_a_stop_word_in_a_phrase_stands_for_any_word(client: Client) -> None:
    index = texts(client, "shoot the moon", "shoot moon", "shoot big moon", stopWords=["the"])
    assert sorted(found(index, '"shoot the moon"')) == [0, 2]
    assert found(index, '"shoot moon"') == [1]


def test_ten_words_count(client: Client) -> None:
    ten = "one two three four five six seven eight nine ten"
    index = texts(client, ten, f"{ten} eleven")
    assert found(index, f"{ten} eleven", matchingStrategy="all") == [0, 1]
    assert found(index, f"{ten} nothing", matchingStrategy="all") == [0, 1]


def test_prefixes_can_be_switched_off(client: Client) -> None:
    index = texts(client, "worldwide", "world", prefixSearch="disabled")
    assert found(index, "world") == [1]
    assert found(index, "worl") == []


def test_only_searchable_attributes_are_searched(client: Client) -> None:
    documents = [{"id": 1, "title": "red", "body": "blue"}, {"id": 2, "title": "blue", "body": "x"}]
    index = make(client, documents, searchableAttributes=["title", "body"])
    assert found(index, "blue") == [2, 1]  # the first attribute counts more
    assert found(index, "blue", attributesToSearchOn=["body"]) == [1]
    assert found(index, "1") == []
    done(client, index.update_searchable_attributes(["body"]))
    assert found(index, "blue") == [1]
    assert found(index, "red") == []
    wrong = (400, "invalid_search_attributes_to_search_on")
    assert refused(index.search, "blue", {"attributesToSearchOn": ["title"]}) == wrong


def test_all_attributes_are_searched_unless_set(client: Client) -> None:
    documents = [
        {"id": 1, "a": "alpha", "n": 4711, "deep": {"er": ["beta", {"est": "gamma"}]}, "b": True},
        *({"id": n, f"field_{n}": f"value{n}"} for n in range(2, 40)),
    ]
    index = make(client, documents)
    assert found(index, "alpha") == found(index, "4711") == found(index, "beta") == [1]
    assert found(index, "gamma") == [1]
    assert found(index, "value37 ")[0] == 37
    done(client, index.add_documents([{"id": 100, "new": "delta"}]))
    assert (found(index, "delta"), found(index, "alpha")) == ([100], [1])


def test_separators(client: Client) -> None:
    index = texts(client, "snake_case and kebab-case", "user@example.org", "a/b/path.txt", "don't")
    for query, wanted in {"snake": 0, "case": 0, "kebab": 0, "example": 1, "org": 1}.items():
        assert found(index, query) == [wanted]
    assert found(index, "path") == [2]
    assert found(index, "user@example.org") == [1]
    assert found(index, "don't", matchingStrategy="all") == [3]
    assert found(index, "!?") == [0, 1, 2, 3]


def test_empty_queries_find_everything(client: Client) -> None:
    index = texts(client, "one", "two")
    for query in ("", " ", "\n", '""', "…"):
        assert found(index, query) == [0, 1]
    assert index.http.post(f"indexes/{index.uid}/search", {})["hits"] != []
