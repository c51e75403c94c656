"""The parts of the worker `files` that need no server: names, kinds, ranges, vouching."""

import unicodedata
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.files import VOUCHED_S, Vouching
from workers.files import kinds, names
from workers.files.ranges import not_modified, wanted

SECRET = "a secret of at least thirty-two bytes"
TAG = '"abc"'

# --- names ---


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("..", "file"),
        ("", "file"),
        ("a/", "file"),
        (".bashrc", "bashrc"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("a\u200bb\ufeff.txt", "ab.txt"),
        ("a\r\nSet-Cookie: b\0.txt", "aSet-Cookie_ b.txt"),
        ("e\u0301.txt", "é.txt"),
        ("飛脚.png", "飛脚.png"),
        ("👩‍👩‍👧.png", "👩‍👩‍👧.png"),
        ('a"b<c>:d|e?f*.txt', "a_b_c__d_e_f_.txt"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("console.txt", "console.txt"),
        ("broken\ud800.txt", "broken.txt"),
        ("x" * 300 + ".tar", "x" * 251 + ".tar"),
        ("日" * 100 + ".png", "日" * 83 + ".png"),
        ("x." + "y" * 300, "x." + "y" * 253),
    ],
)
def test_a_name_is_no_path_and_deceives_nobody(given_name: str, kept: str) -> None:
    assert names.clean(given_name) == kept


@given(st.text(st.characters(), max_size=400))
def test_any_name_becomes_one_that_can_be_kept(text: str) -> None:
    name = names.clean(text)
    assert 1 <= len(name.encode()) <= 255
    assert not {"/", "\\", "\0"} & set(name)
    assert not any(unicodedata.category(each) == "Cc" for each in name)
    assert not name.startswith(".")
    assert names.clean(name) == name


@given(st.text(st.characters(), max_size=100))
def test_any_name_can_stand_in_a_header(text: str) -> None:
    name = names.clean(text)
    value = names.disposition("attachment", name)
    assert value.isascii()
    assert value.isprintable()
    plain, _, extended = value.removeprefix('attachment; filename="').partition('"')
    assert plain
    if extended:
        assert unquote(extended.removeprefix("; filename*=UTF-8''")) == name
    else:
        assert plain == name


# --- kinds ---


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x20ftyp" + brand + b"\0\0\2\0isomiso2avc1mp41" + b"\0\0\0\x08free"


@pytest.mark.parametrize(
    ("head", "kind", "inline"),
    [
        (b"", kinds.BYTES, False),
        (b"hello\n", kinds.TEXT, True),
        ("飛脚".encode() * 3000, kinds.TEXT, True),
        (b"caf\xe9", kinds.BYTES, False),
        (b"nul\0", kinds.BYTES, False),
        (b"<html><script>", kinds.BYTES, False),
        (b"\xef\xbb\xbf  \n<!DOCTYPE html>", kinds.BYTES, False),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", kinds.BYTES, False),
        (b"<?xml version='1.0'?><svg/>", kinds.BYTES, False),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png", True),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg", True),
        (b"GIF89a\1\0\1\0", "image/gif", True),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp", True),
        (ftyp(b"isom"), "video/mp4", True),
        (ftyp(b"M4A "), "audio/mp4", True),
        (ftyp(b"heic"), "image/heic", False),
        (ftyp(b"avif"), "image/avif", False),
        (b"OggS\0\2" + b"\0" * 22, "audio/ogg", True),
        (b"ID3\x03\0\0\0\0\0\x21TIT2", "audio/mpeg", True),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav", True),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf", False),
        (b"PK\3\4\x14\0\0\0\x08\0", "application/zip", False),
        (b"MZ\x90\0\3\0\0\0" + b"\0" * 60, kinds.BYTES, False),
        (bytes(range(128, 256)), kinds.BYTES, False),
    ],
)
def test_what_a_file_is_follows_from_its_bytes(head: bytes, kind: str, inline: bool) -> None:
    found = kinds.kind_of(head[: kinds.HEAD_BYTES])
    assert found == kind
    assert kinds.is_inline(found) is inline


@given(st.binary(max_size=300))
def test_no_bytes_make_a_page(head: bytes) -> None:
    found = kinds.kind_of(head)
    assert "html" not in found
    assert "xml" not in found or found.startswith("application/vnd.openxmlformats")
    assert "script" not in found


# --- ranges ---


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (None, (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("BYTES=2-4", (2, 5)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=8-99", (8, 10)),
        ("bytes=10-", None),
        ("bytes=99-100", None),
        ("bytes=-0", None),
        ("bytes=4-2", (0, 10)),
        ("bytes=0-1,3-4", (0, 10)),
        ("bytes=-", (0, 10)),
        ("bytes=a-b", (0, 10)),
        ("items=0-1", (0, 10)),
        ("bytes=" + "9" * 30 + "-", (0, 10)),
    ],
)
def test_ranges(asked: str | None, part: tuple[int, int] | None) -> None:
    found = wanted({} if asked is None else {"range": asked}, TAG, 10)
    assert (None if found is None else (found.start, found.end)) == part


@pytest.mark.parametrize(
    ("condition", "partial"),
    [
        (TAG, True),
        ('"other"', False),
        (f"W/{TAG}", False),
        ("Fri, 27 Nov 2026 04:44:06 GMT", False),
    ],
)
def test_a_range_only_of_the_same_file(condition: str, partial: bool) -> None:
    found = wanted({"range": "bytes=2-4", "if-range": condition}, TAG, 10)
    assert found is not None
    assert found.asked is partial


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-9", "bytes=0-99", "bytes=-10", "bytes=-99"])
def test_a_range_of_all_of_it_is_a_range(asked: str) -> None:
    assert wanted({"range": asked}, TAG, 10) == (0, 10, 10, True)


def test_of_nothing_there_is_no_part() -> None:
    assert wanted({"range": "bytes=0-"}, TAG, 0) is None
    whole = wanted({}, TAG, 0)
    assert whole is not None
    assert not whole.asked


@pytest.mark.parametrize(
    ("given_tags", "has"),
    [
        (None, False),
        (TAG, True),
        (f"W/{TAG}", True),
        (f'"x", W/"y" ,{TAG}', True),
        ("*", True),
        ('"x"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_what_the_client_has_is_not_sent(given_tags: str | None, has: bool) -> None:
    headers = {} if given_tags is None else {"if-none-match": given_tags}
    assert not_modified(headers, TAG) is has


# --- vouching ---


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=16))
def test_an_edge_vouches_for_any_user(user: str) -> None:
    here, there = Vouching(SECRET), Vouching(SECRET)
    value = here.asker(user, 1000.0)
    assert value.isascii()
    assert there.asked(value, 1000.0) == user
    assert there.asked(value, 1000.0 + VOUCHED_S + 1) is None
    assert Vouching(SECRET + "x").asked(value, 1000.0) is None


@given(st.text(max_size=40))
def test_nothing_else_is_vouched_for(value: str) -> None:
    assert Vouching(SECRET).asked(value, 0.0) is None


def test_a_changed_header_is_not_vouched_for() -> None:
    vouching = Vouching(SECRET)
    token, until, signature = vouching.asker("alice", 1000.0).split(".")
    for changed in (
        f"bob.{until}.{signature}",
        f"{token}.{int(until) + 1}.{signature}",
        f"{token}.{until}.{signature[:-1]}",
        f"{token}.{until}.",
        f"{token}.{until}",
    ):
        assert vouching.asked(changed, 1000.0) is None


def test_there_is_no_vouching_without_a_secret() -> None:
    with pytest.raises(ValueError, match="no shared secret"):
        Vouching("")


def test_a_link_is_good_for_its_path_and_time_only() -> None:
    vouching = Vouching(SECRET)
    parts = urlsplit(vouching.link("/v1/files/x", "änne", 2000))
    query = dict(parse_qsl(parts.query))

    def follow(path: str = parts.path, now_s: float = 1999.0, **changed: str) -> str | None:
        return vouching.linked(path, now_s=now_s, **{**query, **changed})

    assert follow() == "änne"
    assert follow(now_s=2001.0) is None
    assert follow("/v1/files/y") is None
    assert follow("/v1/files/x/thumbnail") is None
    assert follow(by="bob") is None
    assert follow(expires="3000") is None
    assert follow(expires="nan") is None
    assert follow(signature="") is None
    assert follow(signature=query["signature"][:-1]) is None
    token = vouching.asker("änne", 1000.0).rpartition(".")[2]
    assert follow(signature=token) is None
