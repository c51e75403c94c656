"""Files over HTTP as clients see them: uploads, downloads, who may read, links, attachments."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker import subjects
from broker.files import ASKER, Vouching

from ..chat import Clients, names
from ..edges import trouble
from ..filesite import INTERNAL, FileSite, Web, trickle
from ..pictures import SECRET_BYTES, animation, bomb, halves, opened, picture
from ..servers import token

pytestmark = pytest.mark.anyio

MB = 1024 * 1024
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
HTML = b"<!doctype html><script>alert(1)</script>"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    site = FileSite(tmp_path_factory.mktemp("files"), HIKYAKU_FILE_BYTES=str(5 * MB))
    try:
        await site.start()
        yield site
        assert [each for server in (*site.edges, site.files) for each in trouble(server)] == []
    finally:
        site.stop()


def rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


# --- uploads ---


async def test_a_file_goes_up_and_comes_down(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(300_000)
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], bob) as b:
        file = await a.upload(subjects.dm(alice, bob), data, "data.bin")
        assert file == {
            "id": file["id"],
            "name": "data.bin",
            "size": 300_000,
            "content_type": "application/octet-stream",
            "sha256": file["sha256"],
            "width": None,
            "height": None,
            "thumbnail": None,
        }
        assert len(file["id"]) == 22
        for web in (a, b):
            answer = await web.get(file)
            assert (answer.status, answer.body) == (200, data)
            assert answer.headers["ETag"] == f'"{file["sha256"]}"'
        assert (await b.get(file, "/info")).json == file


@pytest.mark.parametrize("chat_first", [True, False])
async def test_the_fields_come_in_any_order(site: FileSite, chat_first: bool) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    fields = [
        ('name="chat_id"', chat.encode()),
        ('name="file"; filename="a.txt"', b"hello"),
        ('name="other"', b"is ignored"),
    ]
    if not chat_first:
        fields.reverse()
    body = b"".join(
        b"--xx\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), value)
        for head, value in fields
    )
    kind = {"Content-Type": "multipart/form-data; boundary=xx"}
    async with Web(site.edges[0], alice) as a:
        answer = await a.ask("POST", "/v1/files", data=body + b"--xx--\r\n", **kind)
        assert (answer.status, answer.json["name"], answer.json["size"]) == (201, "a.txt", 5)
        cut = await a.ask("POST", "/v1/files", data=body, **kind)
        assert (cut.status, cut.json["code"]) == (400, "invalid")


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ([], 400, "invalid", "file: is missing"),
        (["chat"], 400, "invalid", "file: is missing"),
        (["file"], 400, "invalid", "chat_id: is missing"),
        (["chat", "file", "file"], 400, "invalid", "file: only one at a time"),
        (["chat", "chat", "file"], 400, "invalid", "chat_id: only one"),
        (["foreign", "file"], 403, "not_member", "you are not in the chat"),
        (["nobody's", "file"], 403, "not_member", "you are not in the chat"),
        (["nonsense", "file"], 400, "invalid", "is no chat id"),
        (["own", "file"], 403, "not_member", "you are not in the chat"),
        (["long", "file"], 400, "invalid", "chat_id: is too long"),
        (["latin", "file"], 400, "invalid", "chat_id: is not UTF-8"),
    ],
)
async def test_a_bad_form_is_told_what_is_wrong(
    site: FileSite, fields: list[str], status: int, code: str, says: str
) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    values = {
        "chat": ("chat_id", subjects.dm(alice, bob).encode()),
        "foreign": ("chat_id", subjects.dm(bob, carol).encode()),
        "nobody's": ("chat_id", b"group.nobodys"),
        "nonsense": ("chat_id", b"../../etc/passwd"),
        "own": ("chat_id", subjects.user(alice).encode()),
        "long": ("chat_id", b"x" * 2000),
        "latin": ("chat_id", b"\xff\xfe"),
        "file": ('file"; filename="x', b"hello"),
    }
    body = b"".join(
        b'--xx\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (values[each][0].encode(), values[each][1])
        for each in fields
    )
    async with Web(site.edges[0], alice) as a:
        kind = {"Content-Type": "multipart/form-data; boundary=xx"}
        answer = await a.ask("POST", "/v1/files", data=body + b"--xx--\r\n", **kind)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert says in answer.json["message"]
        assert answer.json["retryable"] is False


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
async def test_what_is_no_form_is_refused(site: FileSite, kind: str) -> None:
    (alice,) = names("alice")
    async with Web(site.edges[0], alice) as a:
        answer = await a.ask("POST", "/v1/files", data=b"{}", **{"Content-Type": kind})
        assert (answer.status, answer.json["code"]) == (400, "invalid")
        assert "multipart/form-data" in answer.json["message"]


async def test_a_file_over_the_limit_is_too_large(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a:
        fits = await a.upload(chat, bytes(5 * MB))
        assert fits["size"] == 5 * MB
        for data in (bytes(5 * MB + 1), bytes(6 * MB), trickle(bytes(6 * MB), 100_000)):
            answer = await a.post(chat, data)
            assert (answer.status, answer.json["code"]) == (413, "too_large"), answer
        assert (await a.get(fits)).body == bytes(5 * MB), "the connection lives on"
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        assert client.welcome["limits"]["file_bytes"] == 5 * MB


async def test_a_name_is_no_path(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        for given, kept in [
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("photo\u202egpj.exe", "photogpj.exe"),
            ("n" * 400 + ".txt", "n" * 251 + ".txt"),
            ("飛脚 file.txt", "飛脚 file.txt"),
        ]:
            file = await a.upload(subjects.dm(alice, bob), b"text", given)
            assert file["name"] == kept
            header = (await a.get(file)).headers["Content-Disposition"]
            assert header.isascii()
            assert "/" not in header
            assert ".." not in header
        assert "filename*=UTF-8''%E9%A3%9B%E8%84%9A%20file.txt" in header


@pytest.mark.parametrize(
    ("data", "name", "kind", "shown"),
    [
        (SVG, "x.svg", "application/octet-stream", "attachment"),
        (HTML, "x.html", "application/octet-stream", "attachment"),
        (HTML, "x.png", "application/octet-stream", "attachment"),
        (b"just text", "x.html", "text/plain; charset=utf-8", "inline"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "x.pdf", "application/pdf", "attachment"),
        (b"", "empty", "application/octet-stream", "attachment"),
    ],
)
async def test_nothing_that_a_browser_would_run_is_shown(
    site: FileSite, data: bytes, name: str, kind: str, shown: str
) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        file = await a.upload(subjects.dm(alice, bob), data, name)
        answer = await a.get(file)
        assert (answer.status, answer.body) == (200, data)
        headers = answer.headers
        assert headers["Content-Type"] == kind == file["content_type"]
        assert headers["Content-Disposition"].startswith(f"{shown}; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"].startswith("private")


# --- images ---


async def test_an_image_has_its_size_and_a_thumbnail_and_tells_nothing(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = picture("JPEG", halves(900, 600), orientation=6)
    assert SECRET_BYTES in data
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], bob) as b:
        file = await a.upload(subjects.dm(alice, bob), data, "photo.jpg")
        assert (file["width"], file["height"]) == (600, 900)
        assert file["thumbnail"] == f"/v1/files/{file['id']}/thumbnail"
        whole = await b.get(file)
        assert whole.headers["Content-Type"] == "image/jpeg"
        assert whole.headers["Content-Disposition"].startswith("inline")
        assert len(whole.body) == file["size"]
        assert SECRET_BYTES not in whole.body
        assert opened(whole.body).size == (600, 900)
        small = await b.ask("GET", file["thumbnail"])
        assert small.headers["Content-Type"] == "image/webp"
        assert small.headers["X-Content-Type-Options"] == "nosniff"
        assert opened(small.body).size == (341, 512)
        again = {"If-None-Match": small.headers["ETag"]}
        assert (await b.ask("GET", file["thumbnail"], **again)).status == 304
        moving = await a.upload(subjects.dm(alice, bob), animation("GIF"), "x.gif")
        assert getattr(opened((await b.get(moving)).body), "n_frames", 1) == 3
        text = await a.upload(subjects.dm(alice, bob), b"text", "x.jpg")
        assert (await b.get(text, "/thumbnail")).status == 404


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
async def test_a_bomb_is_refused(site: FileSite, kind: str) -> None:
    alice, bob = names("alice", "bob")
    before = rss_kb(site.files.process.pid)
    async with Web(site.edges[0], alice) as a:
        answer = await a.post(subjects.dm(alice, bob), bomb(kind), "bomb.png")
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert "at most 50000000 pixels" in answer.json["message"]
        broken = await a.post(subjects.dm(alice, bob), picture("PNG")[:2000], "x.png")
        assert (broken.status, broken.json["code"]) == (400, "invalid")
        assert "cannot be read" in broken.json["message"]
    assert rss_kb(site.files.process.pid) - before < 50_000


# --- downloads ---


async def test_parts_of_a_file(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(1_000_000)
    async with Web(site.edges[0], alice) as a:
        file = await a.upload(subjects.dm(alice, bob), data)
        for asked, start, end in [
            ("bytes=0-0", 0, 1),
            ("bytes=999999-", 999_999, 1_000_000),
            ("bytes=-100", 999_900, 1_000_000),
            ("bytes=0-", 0, 1_000_000),
            ("bytes=0-999999", 0, 1_000_000),
            ("bytes=-2000000", 0, 1_000_000),
            ("bytes=300000-700000", 300_000, 700_001),
        ]:
            part = await a.get(file, Range=asked)
            assert (part.status, part.body) == (206, data[start:end])
            assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/1000000"
            assert part.headers["Accept-Ranges"] == "bytes"
        over = await a.get(file, Range="bytes=1000000-")
        assert (over.status, over.json["code"]) == (416, "invalid")
        assert over.headers["Content-Range"] == "bytes */1000000"
        assert (await a.get(file, Range="bytes=0-1,5-6")).status == 200
        tag = f'"{file["sha256"]}"'
        assert (await a.get(file, Range="bytes=0-9", If_Range=tag)).status == 206
        assert (await a.get(file, Range="bytes=0-9", If_Range='"x"')).status == 200
        same = await a.get(file, If_None_Match=tag, Range="bytes=0-9")
        assert (same.status, same.body) == (304, b"")
        assert same.headers["ETag"] == tag
        head = await a.ask("HEAD", f"/v1/files/{file['id']}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == "1000000"
        assert head.headers["ETag"] == tag


# --- who may read ---


async def test_without_a_token_401_and_for_others_404(site: FileSite) -> None:
    alice, bob, eve = names("alice", "bob", "eve")
    async with (
        Web(site.edges[0], alice) as a,
        Web(site.edges[0], eve) as e,
        Web(site.edges[0], None) as nobody,
    ):
        file = await a.upload(subjects.dm(alice, bob), picture("PNG"), "x.png")
        for what in ("", "/info", "/thumbnail"):
            assert (await e.get(file, what)).status == 404
            assert (await e.get("A" * 22, what)).status == 404
            answer = await nobody.get(file, what)
            assert (answer.status, answer.json["code"]) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await e.ask("POST", f"/v1/files/{file['id']}/link")).status == 404
        assert (await nobody.ask("POST", f"/v1/files/{file['id']}/link")).status == 401
        assert (await nobody.post(subjects.dm(alice, bob), b"x")).status == 401
        nobody.headers = {"Authorization": f"Bearer {token(alice, ttl_s=-10)}"}
        assert (await nobody.get(file)).status == 401
        for path in ("/v1/files/a/b/c", "/v1/files/..", "/v1/files/a%2Fb", "/v1/files/"):
            assert (await a.ask("GET", path)).status == 404
        assert (await a.ask("PUT", f"/v1/files/{file['id']}")).status == 405


async def test_who_was_removed_a_moment_ago_reads_nothing(site: FileSite) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with (
        Clients() as connect,
        Web(site.edges[0], alice) as a,
        Web(site.edges[1], bob) as b,
        Web(site.edges[1], None) as nobody,
    ):
        client = await connect(site.edges[0], alice)
        group = await client.group(bob, carol)
        file = await a.upload(group["chat_id"], b"for members")
        link = (await b.ask("POST", f"/v1/files/{file['id']}/link")).json["url"]
        assert (await b.get(file)).body == b"for members"
        assert (await nobody.ask("GET", link)).body == b"for members"
        removed = await client.ask("group_remove", group_id=group["group_id"], users=[bob])
        assert removed["type"] == "result", removed
        assert (await b.get(file)).status == 404
        assert (await nobody.ask("GET", link)).status == 404, "a link is its maker's reading"
        again = await b.post(group["chat_id"], b"x")
        assert (again.status, again.json["code"]) == (403, "not_member")
        async with Web(site.edges[0], carol) as c:
            assert (await c.get(file)).status == 200


async def test_a_link_works_without_a_token_for_a_while(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], None) as nobody:
        file = await a.upload(subjects.dm(alice, bob), picture("PNG"), "x.png")
        path = f"/v1/files/{file['id']}/link"
        answer = await a.ask("POST", path)
        assert answer.status == 200
        link = answer.json["url"]
        assert 3500 < answer.json["expires_at"] / 1000 - time.time() < 3700
        assert (await nobody.ask("GET", link)).status == 200
        assert (await nobody.ask("HEAD", link)).status == 200
        assert (await nobody.ask("GET", link, Range="bytes=0-9")).status == 206
        small = (await a.ask("POST", path, data=b'{"thumbnail": true, "ttl_s": 2}')).json
        assert (await nobody.ask("GET", small["url"])).headers["Content-Type"] == "image/webp"
        query = urlsplit(link).query
        for changed in (
            f"/v1/files/{file['id']}/thumbnail?{query}",
            f"/v1/files/{file['id']}/info?{query}",
            link.replace(f"by={alice}", f"by={bob}"),
            link[:-1],
            link.replace("expires=1", "expires=2"),
        ):
            refused = await nobody.ask("GET", changed)
            assert (refused.status, refused.json["code"]) == (401, "unauthorized"), changed
        assert (await nobody.ask("POST", f"{path}?{query}")).status == 401
        deadline = time.monotonic() + 20
        while (await nobody.ask("GET", small["url"])).status == 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (await nobody.ask("GET", small["url"])).status == 401
        for body in (b'{"ttl_s": 0}', b'{"ttl_s": 100000}', b'{"ttl": 1}', b"[]", b"\xff"):
            bad = await a.ask("POST", path, data=body)
            assert (bad.status, bad.json["code"]) == (400, "invalid"), body
    for server in (*site.edges, site.files):
        assert "signature" not in server.process.log.read_text()


async def test_only_edges_are_answered_by_the_worker(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        file = await a.upload(subjects.dm(alice, bob), b"x")
        a.base = f"http://127.0.0.1:{site.files_port}"
        path = f"/v1/files/{file['id']}"
        now = time.time()
        for asker in (
            "",
            alice,
            Vouching("another secret of thirty-two bytes").asker(alice, now),
            Vouching(INTERNAL).asker(alice, now - 3600),
        ):
            assert (await a.ask("GET", path, **{ASKER: asker})).status == 401
        good = Vouching(INTERNAL).asker(alice, now)
        assert (await a.ask("GET", path, **{ASKER: good})).status == 200
        a.base = f"http://127.0.0.1:{site.edges[0].port}"
        a.headers = {}
        assert (await a.ask("GET", path, **{ASKER: good})).status == 401
