"""Documents as rows and back, and what two states of one message make together."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from broker import events
from store import archive_rows, documents
from store.archive_files import _Cache, _Piece
from store.archive_manifest import parts_of
from store.archive_objects import Objects
from store.archive_rows import Digest, merged, pack, unpack
from store.documents import Entry

TEXT = st.text(max_size=8)
NUMBER = st.integers(0, 2**63 - 1)
REACTION = st.fixed_dictionaries({"emoji": TEXT, "user": TEXT, "seq": NUMBER, "on": st.booleans()})
DOCUMENT = st.fixed_dictionaries(
    {"_id": NUMBER, "chat": TEXT, "seq": NUMBER},
    optional={
        "at": NUMBER,
        "from": TEXT,
        "content": st.one_of(TEXT, st.none(), st.integers(0, 5)),
        "thread": NUMBER,
        "attachments": st.lists(TEXT, max_size=3),
        "mentions": st.one_of(st.lists(TEXT, max_size=3), st.lists(st.integers(0, 3))),
        "edited_seq": NUMBER,
        "deleted_at": NUMBER,
        "reactions": st.dictionaries(st.sampled_from(["a_b", "c_d"]), REACTION, max_size=2),
        "later": st.recursive(
            st.one_of(st.booleans(), NUMBER, TEXT, st.binary(max_size=4), st.none()),
            lambda inner: st.lists(inner, max_size=3),
        ),
    },
)


@given(st.lists(DOCUMENT, max_size=20))
def test_nothing_is_lost(found: list[dict[str, Any]]) -> None:
    packed = pack(found)
    back = read(packed.data)
    assert back == found
    first, second = Digest(), Digest()
    first.add(found)
    second.add(back)
    assert (first.hex, first.rows) == (second.hex, len(found))


def read(data: bytes) -> list[dict[str, Any]]:
    import io

    import pyarrow.parquet as pq

    return unpack(pq.read_table(io.BytesIO(data)))


def test_times_keep_their_zone() -> None:
    document = {"_id": 1, "chat": "c", "seq": 1, "when": datetime(2026, 1, 2, tzinfo=UTC)}
    assert read(pack([document]).data) == [document]


def test_equal_documents_have_equal_digests() -> None:
    first, second = Digest(), Digest()
    first.add([{"_id": Int64(5), "chat": "c", "x": {"b": 1, "a": [2]}}])
    second.add([{"chat": "c", "x": {"a": [Int64(2)], "b": Int64(1)}, "_id": 5}])
    assert first.hex == second.hex
    second.add([{"_id": 6}])
    assert first.hex != second.hex


def test_groups_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_rows, "GROUP_ROWS", 4)
    monkeypatch.setattr(archive_rows, "GROUP_BYTES", 2000)
    small = [{"_id": n, "chat": "a", "seq": n} for n in range(9)]
    large = [{"_id": n, "chat": "b", "seq": n, "content": "x" * 1500} for n in range(9, 12)]
    packed = pack([*small, *large])
    assert [len(each.documents) for each in packed.groups] == [4, 4, 3, 1]
    one, two = parts_of("key", packed)
    assert (one.chat, one.rows, one.first, one.last) == ("a", 9, 0, 2)
    assert (two.chat, two.rows, two.first, two.last) == ("b", 3, 2, 3)
    assert (two.min_id, two.max_id, two.min_seq, two.max_seq) == (9, 11, 9, 11)


CHANGE = st.one_of(
    st.builds(
        lambda content: events.MessageEdited(
            id="1", chat_id="group.g", from_="a", content=content, edited_at=1, client_id="c"
        ),
        TEXT,
    ),
    st.just(
        events.MessageDeleted(id="1", chat_id="group.g", from_="a", deleted_at=1, client_id="c")
    ),
    st.builds(
        lambda emoji, removed: events.Reaction(
            id="1",
            chat_id="group.g",
            from_="a",
            emoji=emoji,
            removed=removed,
            timestamp=1,
            client_id="c",
        ),
        st.sampled_from(["x", "y"]),
        st.booleans(),
    ),
)


def message() -> dict[str, Any]:
    event = events.GroupChat(
        id="1",
        chat_id="group.g",
        group_id="g",
        from_="a",
        content="first",
        content_type="text",
        timestamp=1,
        client_id="m",
    )
    return documents.new(Entry(1, event))


@given(
    st.lists(CHANGE, max_size=7), st.lists(CHANGE, max_size=7), st.randoms(use_true_random=False)
)
def test_changes_in_two_places_are_all_changes(
    first: list[events.Change], second: list[events.Change], some: random.Random
) -> None:
    """Some changes were made to the row, some to a document beside it: together they are all."""
    changes = list(enumerate([*first, *second], 2))
    some.shuffle(changes)
    row, beside, both = message(), {"_id": 1, "of": "group.g"}, message()
    for number, (seq, event) in enumerate(changes):
        documents.apply(both, seq, event)
        documents.apply(row if number < len(first) else beside, seq, event)
    assert documents.view(merged(row, beside)) == documents.view(both)
    assert documents.view(merged(beside, row)) == documents.view(both)
    assert merged(merged(row, beside), beside) == merged(row, beside)
    assert "of" not in merged(row, beside)


def test_the_cache_forgets_what_was_not_used() -> None:
    cache: _Cache[str] = _Cache(10)
    cache.put("a", "first", 4)
    cache.put("b", "second", 4)
    assert cache.get("a") == "first"
    cache.put("c", "third", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("first", None, "third")
    cache.put("d", "too large", 11)
    assert cache.get("d") is None


def test_only_what_was_fetched_can_be_read() -> None:
    piece = _Piece(10, b"0123456789", 100)
    piece.seek(12)
    assert piece.read(3) == b"234"
    assert piece.tell() == 15
    for start, length in ((9, 2), (18, 5), (10, -1)):
        piece.seek(start)
        with pytest.raises(ValueError, match="not fetched"):
            piece.read(length)


@pytest.mark.parametrize("url", ["http://host/x", "folder", "", "gs://bucket"])
def test_unknown_stores_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Objects(url)
