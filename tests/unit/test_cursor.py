"""Cursors: what was made is read back; nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cursor import Cursor, parse_cursor


@given(st.text(max_size=40), st.integers(0, 2**63 - 1))
def test_a_cursor_is_read_as_it_was_written(epoch: str, seq: int) -> None:
    assert parse_cursor(str(Cursor(epoch, seq))) == (epoch, seq)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    found = parse_cursor(text)
    assert found is None or parse_cursor(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", ":", "e", "e:", "e:-1", "e:+1", "e: 1", "e:1 ", "e:1.0", "e:1e3", "e:0x1", "e:٣", "e:²",
     "e:" + "1" * 20, "e:1\n", "e:1_000", "e:1:"],
)  # fmt: skip
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert parse_cursor(text) is None
