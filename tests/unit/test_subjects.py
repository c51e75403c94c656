"""Names on the bus: any id becomes one harmless token, and no two ids the same one."""

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from broker import subjects
from broker.errors import InvalidName

NASTY = " .*>=$@/\\%\"'_-|\u00a0\u200b\u2028\u3000\ufeff飛脚é😀"
HARMLESS = re.compile(r"[A-Za-z0-9_=-]+", re.ASCII)

unhurried = settings(deadline=None)


def fits(text: str) -> bool:
    return 1 <= len(text.encode()) <= subjects.MAX_ID_BYTES


characters = st.one_of(
    st.sampled_from(NASTY), st.characters(exclude_categories=["Cs", "Cc"]), st.sampled_from("aB1")
)
ids = st.text(characters, min_size=1, max_size=64).filter(fits)
alike = st.text(st.sampled_from("=.ADE234é"), min_size=1, max_size=6)
"""Few characters, among them those of escapes: unlike ids whose tokens could be the same."""


@unhurried
@given(ids | alike)
@example("a.b")
@example("*")
@example(">")
@example("=41")
@example("=3D")
@example("$JS")
@example("飛脚")
@example("a b")
@example("x" * 64)
@example("飛" * 21 + "x")
def test_an_id_survives_its_token(name: str) -> None:
    assert subjects.decode(subjects.encode(name)) == name


@unhurried
@given(ids)
def test_a_token_has_only_harmless_characters(name: str) -> None:
    token = subjects.encode(name)
    assert HARMLESS.fullmatch(token)
    assert len(token) <= 3 * subjects.MAX_ID_BYTES


@unhurried
@given(alike, alike)
@example("A", "=41")
@example("=", "=3D")
@example(".", "=2E")
def test_two_ids_never_share_a_token(one: str, other: str) -> None:
    assume(one != other)
    assert subjects.encode(one) != subjects.encode(other)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("alice", "alice"),
        ("a.b", "a=2Eb"),
        ("*", "=2A"),
        (">", "=3E"),
        ("=41", "=3D41"),
        ("$JS", "=24JS"),
        ("bob@site", "bob=40site"),
        ("a b", "a=20b"),
        ("脚", "=E8=84=9A"),
        ("A_z-9", "A_z-9"),
    ],
)
def test_tokens_are_these(name: str, token: str) -> None:
    # Tokens are in stored subjects: another encoding would orphan every chat.
    assert subjects.encode(name) == token


@pytest.mark.parametrize("name", ["", "x" * 65, "飛" * 22, "é" * 33], ids=len)
def test_ids_have_1_to_64_bytes(name: str) -> None:
    with pytest.raises(InvalidName, match="1 to 64 bytes"):
        subjects.encode(name)


@unhurried
@given(ids, st.characters(categories=["Cc"]), st.integers(0, 64))
def test_control_characters_are_refused(name: str, control: str, place: int) -> None:
    spoilt = name[:place] + control + name[place:]
    assume(fits(spoilt))
    with pytest.raises(InvalidName, match="control characters"):
        subjects.encode(spoilt)


@unhurried
@given(st.text(), st.characters(categories=["Cs"]))
def test_what_is_not_unicode_is_refused(text: str, surrogate: str) -> None:
    with pytest.raises(InvalidName, match="valid Unicode"):
        subjects.encode(text + surrogate)


def test_the_error_names_the_field() -> None:
    with pytest.raises(InvalidName) as caught:
        subjects.encode("", "peer")
    assert caught.value.field == "peer"
    assert not caught.value.retryable


@unhurried
@given(st.text(st.sampled_from("=.*>ABCDEFabcdef0123456789_-é x"), max_size=12))
@example("=4")
@example("=4g")
@example("=41")
@example("=2e")
@example("=FF")
@example("=0A")
@example("")
@example("a\n")
@example("٣")
def test_decode_takes_only_what_encode_makes(token: str) -> None:
    try:
        name = subjects.decode(token)
    except InvalidName:
        return
    assert subjects.encode(name) == token


@unhurried
@given(ids, ids)
def test_a_dm_has_one_subject_from_both_sides(user: str, peer: str) -> None:
    subject = subjects.dm(user, peer)
    assert subject == subjects.dm(peer, user)
    chat = subjects.parse(subject)
    assert chat.kind == "dm"
    assert {subjects.decode(token) for token in chat.tokens} == {user, peer}


@unhurried
@given(ids)
def test_groups_and_users_are_parsed_back(name: str) -> None:
    token = subjects.encode(name)
    assert subjects.parse(subjects.group(name)) == ("group", (token,))
    assert subjects.parse(subjects.user(name)) == ("user", (token,))


@unhurried
@given(ids, ids, ids)
def test_a_users_filters_match_own_chats_only(user: str, peer: str, stranger: str) -> None:
    assume(user not in (peer, stranger))
    filters = subjects.user_feed(user)
    assert any(_matches(each, subjects.dm(user, peer)) for each in filters)
    assert any(_matches(each, subjects.dm(user, user)) for each in filters)
    assert any(_matches(each, subjects.user(user)) for each in filters)
    assert not any(_matches(each, subjects.dm(peer, stranger)) for each in filters)
    assert not any(_matches(each, subjects.user(peer)) for each in filters)
    assert not any(_matches(each, subjects.group(user)) for each in filters)


def _matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    return len(wanted) == len(given) and all(
        one in ("*", other) for one, other in zip(wanted, given, strict=True)
    )


@unhurried
@given(ids, ids)
def test_subjects_have_as_many_tokens_as_the_stream_listens_to(user: str, peer: str) -> None:
    for subject in (subjects.dm(user, peer), subjects.group(user), subjects.user(user)):
        assert sum(_matches(each, subject) for each in subjects.CHAT_SUBJECTS) == 1
        assert len(subject.encode()) <= 512


@pytest.mark.parametrize(
    "chat_id",
    [
        "",
        "dm",
        "dm.a",
        "dm.a.b.c",
        "dm.b.a",
        "dm..a",
        "dm.*.a",
        "group",
        "group.",
        "group.>",
        "group.a.b",
        "group.a b",
        "user.=2e",
        "live.group.a",
        "$JS.API.STREAM.DELETE.CHAT",
        "group.a\r\nPUB x 0",
    ],
)
def test_what_is_no_chat_is_refused(chat_id: str) -> None:
    with pytest.raises(InvalidName):
        subjects.parse(chat_id)


def test_core_subjects() -> None:
    assert subjects.ephemeral(subjects.group("g.1")) == "eph.group.g=2E1"
    assert subjects.service("directory", "chats") == "svc.directory.chats"


# --- message ids ---


@unhurried
@given(st.text(st.sampled_from("ab:1é"), min_size=2, max_size=8))
def test_the_message_id_tells_sender_and_client_id_apart(text: str) -> None:
    """However one text is cut into sender and client id, each cut has its own message id."""
    cuts = [(text[:at], text[at:]) for at in range(1, len(text) + 1)]
    headers = [subjects.message_id_header(*cut) for cut in cuts]
    assert len(set(headers)) == len(cuts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b1"), ("ab", "1")),
        (("1", "1:x"), ("11", ":x")),
        (("a", "1:a"), ("a1", ":a")),
        (("é", "x"), ("éx", "")),
    ],
)
def test_message_ids_of_equal_concatenations_differ(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert subjects.message_id_header(*one) != subjects.message_id_header(*other)


@unhurried
@given(ids, st.text(st.characters(), max_size=200))
def test_a_message_id_is_safe_in_a_header(sender: str, client_id: str) -> None:
    header = subjects.message_id_header(sender, client_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{20}", header)
    assert header == subjects.message_id_header(sender, client_id)


def test_the_message_id_is_this() -> None:
    # A retry after an upgrade has to give the same one, or the message is stored twice.
    assert subjects.message_id_header("alice", "c1") == "ZkGYo5tLpr_GQIxe7_o_"
