"""Words of the embedded search server: folding, pairs of characters, typos, matching."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.embedded.distance import typos
from search.embedded.matching import Matcher
from search.embedded.settings import DEFAULTS
from search.embedded.terms import MAX_TERMS, Reader, Term
from search.embedded.words import MAX_WORD_BYTES, fold, is_unspaced, words

UNSPACED = "東京都庁大阪明日会議天気ひらがなカタカナ안녕하세요회의สวัสดี"
LATIN = "abcdeéÄß1"
MIXED = st.text(st.sampled_from(UNSPACED + LATIN + " .,-'\n"), max_size=40)


def plain(text: str) -> list[str]:
    return [word.text for word in words(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("L'ÉTÉ à Nîmes", ["l", "ete", "a", "nimes"]),
        ("snake_case user@example.org", ["snake", "case", "user", "example", "org"]),
        ("e\u0301te\u0301", ["ete"]),
        ("Straße Łódź ﬁn", ["strasse", "lodz", "fin"]),
        ("東京都", ["東京", "京都", "都"]),
        ("東", ["東"]),
        ("ABC東京123", ["abc", "東京", "京", "123"]),
        ("안녕 세계", ["안녕", "녕", "세계", "계"]),
        ("ﾊﾟｿｺﾝ", ["パソ", "ソコ", "コン", "ン"]),
        ("がガ", ["がガ", "ガ"]),
        ("か\u3099き", ["がき", "き"]),
        (unicodedata.normalize("NFD", "안녕하세요"), ["안녕", "녕하", "하세", "세요", "요"]),
        ("नमस्ते", ["नमसते"]),
        ("…!? 🎉", []),
    ],
)
def test_texts_become_words(text: str, wanted: list[str]) -> None:
    assert plain(text) == wanted


@given(st.text(max_size=40))
def test_words_are_inside_the_text_and_in_order(text: str) -> None:
    found = list(words(text))
    for word in found:
        assert 0 <= word.start < word.end <= len(text)
        assert word.text
        assert not any(char.isspace() for char in word.text)
    positions = [word.position for word in found]
    assert positions == sorted(set(positions))
    starts = [word.start for word in found]
    assert starts == sorted(starts)


@given(st.text(max_size=20))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(MIXED)
def test_composed_or_not_the_words_are_the_same(text: str) -> None:
    forms = {tuple(plain(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@given(st.text(st.sampled_from(UNSPACED), min_size=1, max_size=20))
def test_pairs_give_back_the_run(run: str) -> None:
    found = plain(run)
    assert "".join(word[0] for word in found) == unicodedata.normalize("NFKC", run)
    assert all(len(word) == 2 for word in found[:-1])
    assert len(found[-1]) == 1
    assert all(map(is_unspaced, found))


def test_long_words_are_left_out() -> None:
    long = "a" * MAX_WORD_BYTES
    assert plain(f"x {long} {long}a y") == ["x", long, "y"]
    assert [word.position for word in words(f"x {long}a y")] == [0, 2]


def test_the_end_of_a_sentence_is_far() -> None:
    assert [word.position for word in words("one two. three, four 5.5")] == [0, 1, 9, 17, 18, 19]


# --- queries ---


def read(query: str, **settings: object) -> tuple[Term, ...]:
    return Reader({**DEFAULTS, **settings}).read(query).terms


def test_a_query_becomes_terms() -> None:
    first, second, third = read('Grüße "an alle" wor')
    assert (first.kind, first.words, first.prefix, first.typos) == ("word", ("grusse",), False, 1)
    assert (second.kind, second.words) == ("phrase", ("an", "alle"))
    assert (third.words, third.prefix, third.typos) == (("wor",), True, 0)
    (run,) = read("東京都庁")
    assert (run.kind, run.words) == ("run", ("東京", "京都", "都庁"))
    assert read("東")[0].prefix


@given(st.text(max_size=100))
def test_any_text_is_a_query(text: str) -> None:
    asked = Reader(DEFAULTS).read(text)
    assert len(asked.terms) <= MAX_TERMS
    assert len(asked.without) <= MAX_TERMS


@given(st.text(st.sampled_from(UNSPACED), min_size=1, max_size=20), st.data())
def test_any_part_of_a_run_is_found_in_it(run: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(run) - 1))
    end = data.draw(st.integers(start + 1, len(run)))
    part = unicodedata.normalize("NFKC", run)[start:end]
    matcher = Matcher(read(part))
    assert all(matcher.places(f"text {run} text"))
    places = [place for each in matcher.places(run) for place in each]
    assert any(run[place.start : place.end].startswith(part[0]) for place in places)


@given(st.text(st.sampled_from(UNSPACED), min_size=2, max_size=6), st.text(max_size=10))
def test_what_is_not_in_a_text_is_not_found(run: str, text: str) -> None:
    if run not in unicodedata.normalize("NFKC", text):
        assert not any(Matcher(read(f'"{run}"')).places(text))


# --- typos ---


def reference(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps, each as slow as it can be."""
    table = {(-1, -1): 0}
    for i in range(len(one)):
        table[i, -1] = i + 1
    for j in range(len(other)):
        table[-1, j] = j + 1
    for i, letter in enumerate(one):
        for j, else_ in enumerate(other):
            best = min(table[i - 1, j] + 1, table[i, j - 1] + 1)
            best = min(best, table[i - 1, j - 1] + (letter != else_))
            if i and j and letter == other[j - 1] and one[i - 1] == else_:
                best = min(best, table[i - 2, j - 2] + 1)
            table[i, j] = best
    return table[len(one) - 1, len(other) - 1]


def wanted(asked: str, found: str, most: int, *, prefix: bool) -> int | None:
    ends = range(len(found) + 1) if prefix else (len(found),)
    least = min(reference(asked, found[:end]) for end in ends)
    if least and asked[0] != found[0]:
        least = 2 if least == 1 else 3
    return least if least <= most else None


LETTERS = st.text("abc", min_size=1, max_size=7)


@given(LETTERS, LETTERS, st.integers(0, 2), st.booleans())
def test_typos_are_counted(asked: str, found: str, most: int, prefix: bool) -> None:
    assert typos(asked, found, most=most, prefix=prefix) == wanted(
        asked, found, most, prefix=prefix
    )
