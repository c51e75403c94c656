"""What hits show: attributes, marks around matches, crops, places."""

import pytest
from meilisearch import Client

from .steps import formatted, make, texts

SENTENCES = (
    "Natalie risk her future to build a world with the boy she loves."
    " Emily Henry: The Love That Split The World."
)
INVENTION = (
    "The groundbreaking invention had the power to split the world between those who embraced"
    " progress and those who resisted change!"
)


def test_attributes_to_retrieve(client: Client) -> None:
    document = {"id": 1, "a": "x", "b": {"c": 1, "d": 2}, "e": [{"f": 1, "g": 2}, {"f": 3}]}
    index = make(client, [document])

    def hit(*names: str) -> object:
        return index.search("", {"attributesToRetrieve": list(names)})["hits"][0]

    assert hit("*") == document
    assert hit("a", "none") == {"a": "x"}
    assert hit("b") == {"b": {"c": 1, "d": 2}}
    assert hit("b.c", "id") == {"id": 1, "b": {"c": 1}}
    assert hit("e.f") == {"e": [{"f": 1}, {"f": 3}]}
    assert hit() == {}


def test_matches_are_marked(client: Client) -> None:
    index = texts(client, "Natalie and THE world, a world!")
    marked = formatted(index, "the world", attributesToHighlight=["content"])
    assert marked == "Natalie and <em>THE</em> <em>world</em>, a <em>world</em>!"
    tags = {"highlightPreTag": "\ue000", "highlightPostTag": "\ue001"}
    marked = formatted(index, "natalie", attributesToHighlight=["*"], **tags)
    assert marked == "\ue000Natalie\ue001 and THE world, a world!"


@pytest.mark.parametrize(
    ("content", "query", "wanted"),
    [
        ("Ŵôřlḑôle", "world", "<em>Ŵôřlḑ</em>ôle"),  # of a beginning only that
        ("Westfália", "westfali", "<em>Westfáli</em>a"),
        ("a knight's tale", "knigth", "a <em>knight</em>'s tale"),  # with a typo all of it
        ("the power to split", '"power to"', "the <em>power to</em> split"),
        ("nothing here", "other nothing", "<em>nothing</em> here"),
        ("<b>bold</b> move", "bold", "<b><em>bold</em></b> move"),
    ],
)
def test_what_is_marked(client: Client, content: str, query: str, wanted: str) -> None:
    index = texts(client, content)
    strategy = {"matchingStrategy": "frequency"}
    assert formatted(index, query, attributesToHighlight=["content"], **strategy) == wanted


def test_only_what_is_asked_for_is_formatted(client: Client) -> None:
    document = {"id": 852, "a": "one two", "b": "one", "n": [1, "one"], "o": {"p": "one"}}
    index = make(client, [document])
    hit = index.search("one", {"attributesToHighlight": ["a"]})["hits"][0]
    assert {name: hit[name] for name in document} == document
    assert hit["_formatted"]["a"] == "<em>one</em> two"
    assert hit["_formatted"]["b"] == "one"
    assert hit["_formatted"]["id"] == "852"  # numbers become strings
    hit = index.search("one", {"attributesToHighlight": ["*"]})["hits"][0]
    assert hit["_formatted"]["n"] == ["1", "<em>one</em>"]
    assert hit["_formatted"]["o"] == {"p": "<em>one</em>"}
    hit = index.search("one", {"attributesToRetrieve": ["id"], "attributesToHighlight": ["b"]})
    assert hit["hits"][0] == {"id": 852, "_formatted": {"id": "852", "b": "<em>one</em>"}}
    assert "_formatted" not in index.search("one")["hits"][0]


@pytest.mark.parametrize(
    ("content", "query", "wanted"),
    [
        (
            "A quick brown fox can not jump 32 feet, right? Brr, it is cold!",
            "",
            "A quick brown fox can not jump 32 feet, right…",
        ),
        (
            "Natalie risk her future. Split The World is a book written by Emily Henry."
            " I never read it.",
            "split the world",
            "…Split The World is a book written by Emily Henry…",
        ),
        (SENTENCES, "split the world", "…she loves. Emily Henry: The Love That Split The World."),
        (
            "The world split void void void void void void void void void split the world void"
            " void",
            "split the world",
            "…void void void void void split the world void void",
        ),
        (INVENTION, '"the world"', "…the power to split the world between those who embraced…"),
        ("short text", "text", "short text"),
    ],
)
def test_crops_are_around_the_best_matches(
    client: Client, content: str, query: str, wanted: str
) -> None:
    index = texts(client, content)
    assert formatted(index, query, attributesToCrop=["content"]) == wanted


def test_crop_lengths_and_markers(client: Client) -> None:
    index = texts(client, "void void split the world void void.")

    def crop(**parameters: object) -> str:
        return formatted(index, "split the world", **parameters)

    assert crop(attributesToCrop=["content"], cropLength=2) == "…split the…"
    assert crop(attributesToCrop=["content"], cropLength=1) == "…split…"
    assert crop(attributesToCrop=["content:3"], cropMarker="[…]") == "[…]split the world[…]"
    assert crop(attributesToCrop=["*:3"]) == "…split the world…"
    whole = "void void split the world void void."
    assert crop(attributesToCrop=["content"], cropLength=0) == whole
    marked = crop(attributesToCrop=["content"], cropLength=3, attributesToHighlight=["content"])
    assert marked == "…<em>split</em> <em>the</em> <em>world</em>…"


def test_places_of_matches(client: Client) -> None:
    document = {"id": 1, "cattos": "pésti, pestiféré", "dogs": [{"name": "x pesti"}], "n": 1}
    index = make(client, [document])
    hit = index.search("pésti", {"showMatchesPosition": True})["hits"][0]
    assert hit["_matchesPosition"] == {
        "cattos": [{"start": 0, "length": 6}, {"start": 8, "length": 5}],
        "dogs.name": [{"start": 2, "length": 5}],
    }
