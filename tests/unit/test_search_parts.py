"""Documents, filters, settings and highlights of the search, without a server."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.messages import MARK, UNMARK, Hit, Part, parts_of
from search.documents import document_of, key, version_of
from search.filters import Question, expired_filters, filter_of, from_filter
from search.indexes import PAYLOAD_BYTES, _parts
from search.settings import missing, settings

KEY = '"[0-9a-f]{32}"'
FILTER = re.compile(
    rf"chat IN \[{KEY}(?:, {KEY})*\]( AND from = {KEY})?( AND at >= \d+)?( AND at < \d+)?"
)
HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="\"'\\[](),=<> \n"),
    st.sampled_from(
        [
            'x" OR chat EXISTS OR from = "x',
            "x' OR 1 = 1 --",
            'ends in a backslash \\"',
            '\\\\" OR at > 0 OR from = "',
            '"] OR chat NOT IN ["',
            "_geoRadius(0, 0, 1)",
            "\ud800",
        ]
    ),
)

MESSAGE: dict[str, Any] = {
    "_id": 2**62 + 1,
    "chat": "group.Sales",
    "from": "Ann",
    "at": 1_700_000_000_000,
    "seq": 7,
    "content": "Lunch on Friday?",
}


def test_a_document_has_what_is_searched_and_filtered() -> None:
    assert document_of(MESSAGE, since_ms=0) == {
        "id": str(2**62 + 1),
        "chat": key("group.Sales"),
        "from": key("Ann"),
        "at": 1_700_000_000_000,
        "seq": 7,
        "edited": 0,
        "content": "Lunch on Friday?",
    }


@pytest.mark.parametrize(
    "message",
    [
        None,
        {**MESSAGE, "deleted_seq": 9},
        {**MESSAGE, "content": ""},
        {**MESSAGE, "content": " \n"},
        {**MESSAGE, "content": "\ue000\ue001"},
        {name: value for name, value in MESSAGE.items() if name != "content"},
        {"_id": 1, "of": "group.Sales", "content": "an edit without its message", "edited_seq": 3},
        {**MESSAGE, "at": 999},
    ],
)
def test_what_is_not_to_be_found_has_no_document(message: dict[str, Any] | None) -> None:
    assert document_of(message, since_ms=1000) is None


def test_an_edit_is_another_version() -> None:
    edited = {**MESSAGE, "content": "Lunch on Monday?", "edited_seq": 12}
    document = document_of(edited, since_ms=0)
    assert document is not None
    assert (document["edited"], document["content"]) == (12, "Lunch on Monday?")
    assert version_of(edited) == 12
    assert version_of(MESSAGE) == 0


def test_marks_in_a_message_are_not_indexed() -> None:
    document = document_of({**MESSAGE, "content": f"a{MARK}b{UNMARK}c"}, since_ms=0)
    assert document is not None
    assert document["content"] == "abc"


def test_keys_tell_apart_what_meilisearch_does_not() -> None:
    names = ["group.Sales", "group.sales", "group.sales ", " group.sales", "group.ｓales"]
    assert len({key(name) for name in names}) == len(names)


@given(st.lists(HOSTILE, min_size=1, max_size=20), HOSTILE, HOSTILE)
def test_no_name_changes_the_structure_of_a_filter(
    chats: list[str], sender: str, text: str
) -> None:
    question = Question(text=text, chats=chats, sender=sender, since=5, until=2**53 - 1)
    made = filter_of(question)
    found = FILTER.fullmatch(made)
    assert found is not None
    assert all(found.groups())
    assert re.findall(KEY, made) == [f'"{key(each)}"' for each in [*chats, sender]]


def test_a_filter_has_only_what_was_asked_and_always_the_chats() -> None:
    assert FILTER.fullmatch(filter_of(Question(text="x", chats=["group.a"])))
    with pytest.raises(ValueError, match="without chats"):
        filter_of(Question(text="x", chats=[]))
    assert filter_of(Question(text="", chats=["c"], sender="u")).endswith(from_filter("u"))


def test_what_is_too_old_is_chosen_by_the_days_that_count_for_it() -> None:
    day, now = 86_400_000, 100 * 86_400_000

    def expired(**given: Any) -> list[str]:
        return expired_filters(now, **{"days": 30, "retention_days": 0, "own": {}, **given})

    month = f"at < {70 * day}"
    assert expired() == [month]
    assert expired(retention_days=60) == [month]
    assert expired(retention_days=10) == [month, f"at < {90 * day}"]
    own = {"group.a": 5.0, "group.b": 0.0, "group.c": 5.0, "group.d": 300.0}
    a, b, c, d = (f'"{key(name)}"' for name in own)
    assert expired(own=own) == [month, f"at < {95 * day} AND chat IN [{a}, {c}]"]
    assert expired(retention_days=10, own=own) == [
        month,
        f"at < {90 * day} AND chat NOT IN [{a}, {b}, {c}, {d}]",
        f"at < {95 * day} AND chat IN [{a}, {c}]",
    ]


def test_a_filter_for_many_chats_stays_small() -> None:
    chats = [f"dm.{'=E3=81=82' * 21}.{n}" for n in range(5000)]
    assert len(filter_of(Question(text="x", chats=chats))) < 200_000


def test_settings_that_differ_are_found_and_no_others() -> None:
    wanted = settings(("jpn",))
    present = {
        **wanted,
        "filterableAttributes": ["seq", "from", "chat", "at"],
        "typoTolerance": {**wanted["typoTolerance"], "disableOnWords": []},
        "stopWords": [],
    }
    assert missing(wanted, present) == {}
    worse = {**present, "rankingRules": ["words"], "filterableAttributes": ["chat"]}
    assert missing(wanted, worse).keys() == {"rankingRules", "filterableAttributes"}
    numbers = {**wanted["typoTolerance"], "minWordSizeForTypos": {"oneTypo": 4, "twoTypos": 9}}
    assert missing(wanted, {**present, "typoTolerance": numbers}).keys() == {"typoTolerance"}
    assert missing(wanted, {**present, "localizedAttributes": None}).keys() == {
        "localizedAttributes"
    }
    assert missing(wanted, {}).keys() == wanted.keys()
    assert settings(())["localizedAttributes"] is None


def test_documents_go_in_parts_that_a_request_holds() -> None:
    large = [{"id": str(n), "content": "x" * (PAYLOAD_BYTES // 3)} for n in range(7)]
    parts = list(_parts(large))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    assert [key for part in parts for key, _ in part] == [str(n) for n in range(7)]
    assert list(_parts([])) == []
    assert len(list(_parts([{"id": "1", "content": "x" * 2 * PAYLOAD_BYTES}]))) == 1


def test_a_highlight_is_taken_apart() -> None:
    text = f"see {MARK}lunch{UNMARK} and {MARK}friday{UNMARK}"
    wanted = [Part("see ", False), Part("lunch", True), Part(" and ", False), Part("friday", True)]
    assert parts_of(text) == wanted
    assert parts_of("") == []
    assert parts_of(f"{UNMARK}a{MARK}b") == [Part("a", False), Part("b", False)]


def test_a_hit_without_highlight_is_its_content() -> None:
    hit = Hit(
        id="1",
        seq=1,
        chat_id="group.a",
        from_="ann",
        content=f"a{MARK}b",
        content_type="text",
        timestamp=1,
        client_id="c",
    )
    assert hit.parts == [Part(f"a{MARK}b", False)]


@given(st.text(alphabet=f"ab{MARK}{UNMARK}"))
def test_taking_apart_loses_nothing_but_marks(text: str) -> None:
    assert "".join(part.text for part in parts_of(text)) == text.replace(MARK, "").replace(
        UNMARK, ""
    )
