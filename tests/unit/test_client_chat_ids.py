"""Chat ids: the same as the server's, and taken apart again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import subjects
from client import dm_chat_id, group_chat_id
from client.chat_ids import group_of, other_of

IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16)


@given(IDS, IDS)
def test_they_are_the_server_s_and_name_the_other_one(me: str, other: str) -> None:
    chat_id = dm_chat_id(me, other)
    assert chat_id == subjects.dm(me, other) == dm_chat_id(other, me)
    assert other_of(chat_id, me) == other
    assert group_of(chat_id) is None


@given(IDS)
def test_groups(group_id: str) -> None:
    assert group_chat_id(group_id) == subjects.group(group_id)
    assert group_of(group_chat_id(group_id)) == group_id


@pytest.mark.parametrize("chat_id", ["", "dm", "dm.a", "dm.a.b.c", "dm.b.c", "user.a", "group.a"])
def test_what_is_no_conversation_with_me(chat_id: str) -> None:
    assert other_of(chat_id, "a") is None


@pytest.mark.parametrize("chat_id", ["", "group", "group.a.b", "user.a", "\ud800"])
def test_what_is_no_group(chat_id: str) -> None:
    assert group_of(chat_id) is None
