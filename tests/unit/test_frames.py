"""Frames: whatever bytes come, they are a request or a `BadFrame` that can be answered."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge import frames

GOOD: list[dict[str, Any]] = [
    {"type": "connect", "token": "t"},
    {"type": "connect", "token": "t", "device": "d", "cursor": "e:1", "id": 1},
    {"type": "chat", "client_id": "c", "to": "bob", "content": "x"},
    {"type": "chat", "client_id": "c", "to": "bob", "content": "", "attachments": ["f"]},
    {"type": "group_chat", "client_id": "c", "group_id": "g", "content": "x", "expect_seq": 7},
    {"type": "typing", "to": "bob"},
    {"type": "typing", "group_id": "g", "id": "x"},
    {"type": "group_create", "client_id": "c", "name": "n"},
    {"type": "group_create", "client_id": "c", "name": "n", "kind": "channel", "members": ["b"]},
    {"type": "group_add", "group_id": "g", "users": ["b"]},
    {"type": "group_remove", "group_id": "g", "users": ["b"]},
    {"type": "group_join", "group_id": "g"},
    {"type": "group_leave", "group_id": "g"},
    {"type": "group_members", "group_id": "g", "after": "b", "limit": 5},
    {"type": "group_info", "group_id": "g"},
    {"type": "group_update", "group_id": "g", "name": "n", "roles": {"b": "admin"}, "mute": True},
    {"type": "search", "query": ""},
    {"type": "search", "query": "q", "chat_id": "c", "from": "u", "since": 1, "until": 2},
    {"type": "search", "query": "x" * 1000, "limit": 100, "offset": 1000},
    {"type": "refresh", "token": "t"},
    {"type": "pong"},
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def decoded(data: bytes) -> frames.Request | frames.BadFrame:
    try:
        return frames.decode_request(data)
    except frames.BadFrame as bad:
        return bad


@pytest.mark.parametrize("good", GOOD, ids=lambda good: str(good["type"]))
def test_every_request_of_the_protocol_decodes(good: dict[str, Any]) -> None:
    request = frames.decode_request(json.dumps(good).encode())
    again = json.loads(msgspec.json.encode(request))
    assert good.items() <= again.items()


def test_defaults_are_those_of_the_protocol() -> None:
    chat = frames.decode_request(b'{"type":"chat","client_id":"c","to":"b","content":"x"}')
    assert isinstance(chat, frames.Chat)
    assert (chat.content_type, chat.expect_seq, chat.mentions) == ("text", None, [])
    group = frames.decode_request(b'{"type":"group_create","client_id":"c","name":"n"}')
    assert isinstance(group, frames.GroupCreate)
    assert (group.kind, group.members, group.group_id) == ("group", [], None)


def test_one_request_does_not_change_the_defaults_of_the_next() -> None:
    data = b'{"type":"chat","client_id":"c","to":"b","content":"x"}'
    first = frames.decode_request(data)
    assert isinstance(first, frames.Chat)
    first.attachments.append("mine")
    second = frames.decode_request(data)
    assert isinstance(second, frames.Chat)
    assert second.attachments == []


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"type":' * 20_000)
@example(b'{"type":"chat","id":' + b"9" * 5_000)
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    answered(decoded(data))


@given(st.dictionaries(st.sampled_from(["type", "id", "client_id", "to", "content"]), json_values))
def test_no_json_breaks_the_decoder(fields: dict[str, Any]) -> None:
    answered(decoded(json.dumps(fields).encode()))


@given(st.sampled_from(GOOD), st.data())
def test_no_wrong_field_breaks_the_decoder(good: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([*good, "id", "client_id", "group_id", "users", "roles"]))
    answered(decoded(json.dumps({**good, field: data.draw(json_values)}).encode()))


@given(st.sampled_from(GOOD), st.data())
def test_no_cut_frame_breaks_the_decoder(good: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(good).encode()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    bad = decoded(cut)
    assert isinstance(bad, frames.BadFrame)
    assert bad.code == "bad_frame"


def answered(found: frames.Request | frames.BadFrame) -> None:
    """What was found can be answered: its ids fit into an error frame that clients understand."""
    error = frames.Error(
        code=getattr(found, "code", "invalid"),
        message=getattr(found, "message", ""),
        id=getattr(found, "id", None),
        client_id=getattr(found, "client_id", None),
    )
    assert json.loads(frames.encode(error))["type"] == "error"


@pytest.mark.parametrize(
    ("text", "code", "number", "client_id"),
    [
        ('{"type":"x","id":1,"client_id":"c"}', "unknown_type", 1, "c"),
        ('{"type":"chat","id":"a","client_id":"c"}', "invalid", "a", "c"),
        ('{"type":"chat","id":1.5,"client_id":["c"]}', "invalid", None, None),
        ('{"type":"chat","id":null,"client_id":null}', "invalid", None, None),
        ('{"id":1,"client_id":"c"}', "bad_frame", None, None),
        ('{"type":{},"id":1}', "bad_frame", None, None),
        ("7", "bad_frame", None, None),
    ],
)
def test_a_bad_frame_says_which_request_it_was(
    text: str, code: str, number: object, client_id: object
) -> None:
    bad = decoded(text.encode())
    assert isinstance(bad, frames.BadFrame)
    assert (bad.code, bad.id, bad.client_id) == (code, number, client_id)


def test_a_bad_frame_names_the_field() -> None:
    bad = decoded(b'{"type":"chat","client_id":"c","to":"b","content":"x","attachments":["f",7]}')
    assert isinstance(bad, frames.BadFrame)
    assert "$.attachments[1]" in bad.message


def test_only_four_codes_are_retryable() -> None:
    assert sorted(frames.RETRYABLE) == ["overloaded", "rate_limited", "timeout", "unavailable"]


def test_an_ack_always_says_all_of_its_fields() -> None:
    ack = frames.Ack(id=None, client_id="c", message_id="1", chat_id="dm.a.b", seq=1, timestamp=2)
    assert json.loads(frames.encode(ack)) == {
        "type": "ack",
        "id": None,
        "client_id": "c",
        "message_id": "1",
        "chat_id": "dm.a.b",
        "seq": 1,
        "timestamp": 2,
        "status": "sent",
        "duplicate": False,
    }


def test_an_error_always_says_whether_it_may_be_repeated() -> None:
    for retryable in (True, False):
        error = frames.Error(code="x", message="m", retryable=retryable)
        assert json.loads(frames.encode(error))["retryable"] is retryable
