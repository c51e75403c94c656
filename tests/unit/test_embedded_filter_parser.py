"""The filter parser of the embedded search server: any tree survives being written and read."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.embedded.errors import ApiError
from search.embedded.filter_parser import (
    And,
    Between,
    Compare,
    Condition,
    Has,
    In,
    Not,
    Or,
    parse,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORD = st.from_regex(r"[A-Za-z0-9_.\-éß東]{1,8}", fullmatch=True)
VALUE = TEXT | WORD
KEYWORDS = {"AND", "OR", "IN", "NOT", "TO", "EXISTS", "IS", "NULL", "EMPTY", "CONTAINS", "STARTS"}

LEAVES = st.one_of(
    st.builds(Compare, VALUE, st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), VALUE),
    st.builds(Between, VALUE, VALUE, VALUE),
    st.builds(In, VALUE, st.lists(VALUE, max_size=4).map(tuple)),
    st.builds(Has, VALUE, st.sampled_from(["EXISTS", "NULL", "EMPTY"])),
)


def negated(inner: Condition) -> Condition:
    return inner.inner if isinstance(inner, Not) else Not(inner)


def joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | inner.map(negated)


TREES: st.SearchStrategy[Condition] = st.recursive(LEAVES, joined, max_leaves=12)


def quoted(text: str, *, quote: str) -> str:
    inside = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    return f"{quote}{inside}{quote}"


def written(condition: Condition, quote: str) -> str:
    """A tree as text, every value in quotes and everything in parentheses."""

    def q(text: str) -> str:
        return quoted(text, quote=quote)

    match condition:
        case Compare(field=field, op=op, value=value):
            return f"{q(field)}{op}{q(value)}"
        case Between(field=field, low=low, high=high):
            return f"{q(field)} {q(low)} TO {q(high)}"
        case In(field=field, values=values):
            return f"{q(field)} IN [{', '.join(map(q, values))}]"
        case Has(field=field, state="EXISTS"):
            return f"{q(field)} EXISTS"
        case Has(field=field, state=state):
            return f"{q(field)} IS {state}"
        case Not(inner=inner):
            return f"NOT ({written(inner, quote)})"
        case And(all=parts):
            return " AND ".join(f"({written(part, quote)})" for part in parts)
        case Or(any=parts):
            return " OR ".join(f"({written(part, quote)})" for part in parts)


@given(TREES, st.sampled_from("'\""))
def test_what_is_written_is_read(tree: Condition, quote: str) -> None:
    assert parse(written(tree, quote)) == tree


@given(TREES, st.sampled_from(" \n\t"))
def test_spaces_do_not_count(tree: Condition, space: str) -> None:
    text = written(tree, "'")
    assert parse(f"{space * 3}{text}{space * 2}") == tree


@given(WORD.filter(lambda word: word not in KEYWORDS), WORD.filter(lambda w: w not in KEYWORDS))
def test_words_need_no_quotes(field: str, value: str) -> None:
    assert parse(f"{field} = {value}") == Compare(field, "=", value)
    assert parse(f"{field} IN [{value},{value}]") == In(field, (value, value))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ApiError):
        parse(text)


@given(st.text(alphabet="abAND OR()[]=<>!,'\"\\TOIN EXISTS NULL1._", max_size=40))
def test_text_of_the_grammar_is_read_or_refused(text: str) -> None:
    with suppress(ApiError):
        parse(text)


@given(TEXT, st.sampled_from("'\""))
def test_a_quoted_value_cannot_leave_its_quotes(text: str, quote: str) -> None:
    """Whatever a name is, in quotes it is one value, so that no condition can be slipped in."""
    condition = parse(f"chat = {quoted(text, quote=quote)} AND from = x")
    assert condition == And((Compare("chat", "=", text), Compare("from", "=", "x")))


def test_an_error_says_where() -> None:
    with pytest.raises(ApiError) as caught:
        parse("channel = mv OR followers >")
    assert str(caught.value).startswith("Was expecting a value but instead got nothing.\n28:28 ")


@pytest.mark.parametrize("depth", [40, 49])
def test_parentheses_may_be_deep(depth: int) -> None:
    assert parse("(" * depth + "a = 1" + ")" * depth) == Compare("a", "=", "1")


@pytest.mark.parametrize("text", ["(" * 51 + "a = 1" + ")" * 51, "NOT " * 201 + "a = 1"])
def test_but_not_too_deep(text: str) -> None:
    with pytest.raises(ApiError, match="maximum depth"):
        parse(text)


def test_thousands_of_conditions_side_by_side() -> None:
    condition = parse(" OR ".join(f"a = {number}" for number in range(5000)))
    assert isinstance(condition, Or)
    assert len(condition.any) == 5000
