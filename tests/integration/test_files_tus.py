"""Resumable uploads by tus 1.0, as its specification says, and what happens when they are cut."""

import asyncio
import hashlib
import os
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from broker import subjects

from ..chat import Clients, names
from ..edges import trouble
from ..filesite import FileSite, Web, trickle
from ..pictures import SECRET_BYTES, bomb, picture
from ..servers import eventually

pytestmark = pytest.mark.anyio

MB = 1024 * 1024


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    site = FileSite(tmp_path_factory.mktemp("tus"), HIKYAKU_FILE_BYTES=str(20 * MB))
    try:
        await site.start()
        yield site
        assert [each for server in (*site.edges, site.files) for each in trouble(server)] == []
    finally:
        site.stop()


async def place(web: Web, chat: str, length: int, name: str = "note.bin", **more: str) -> str:
    answer = await web.create(chat, length, name, **more)
    assert answer.status == 201, answer
    return answer.headers["Location"]


async def offset(web: Web, where: str) -> int:
    answer = await web.tus("HEAD", where)
    assert answer.status == 200, answer
    return int(answer.headers["Upload-Offset"])


async def test_what_the_server_can(site: FileSite) -> None:
    (alice,) = names("alice")
    async with Web(site.edges[0], alice) as a:
        answer = await a.ask("OPTIONS", "/v1/files/tus")
        assert answer.status == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == str(20 * MB)
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            *("creation", "creation-with-upload", "expiration", "termination", "checksum"),
        }
        assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")


async def test_an_upload_in_parts_becomes_a_file(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(7_000_000)
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], bob) as b:
        created = await a.create(subjects.dm(alice, bob), len(data), "飛脚.bin")
        assert created.headers["Tus-Resumable"] == "1.0.0"
        expires = parsedate_to_datetime(created.headers["Upload-Expires"]).timestamp()
        assert 80_000 < expires - time.time() < 90_000
        where = created.headers["Location"]
        at = 0
        for size in (1, 3_000_000, 2_000_000, 1_999_999):
            assert await offset(a, where) == at
            answer = await a.patch(where, at, data[at : at + size])
            at += size
            assert answer.status == 204
            assert int(answer.headers["Upload-Offset"]) == at
        file_id = answer.headers["Hikyaku-File"]
        head = await a.tus("HEAD", where)
        assert head.headers["Cache-Control"] == "no-store"
        assert int(head.headers["Upload-Length"]) == len(data)
        assert (await offset(a, where), head.headers["Hikyaku-File"]) == (len(data), file_id)
        file = (await a.ask("GET", where)).json
        assert (file["id"], file["name"], file["size"]) == (file_id, "飛脚.bin", len(data))
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert (await b.get(file)).body == data
        # A repeated last part, as after an answer that was lost.
        assert (await a.patch(where, len(data), b"")).headers["Hikyaku-File"] == file_id


async def test_the_first_part_comes_with_the_creation(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    body = {"Content-Type": "application/offset+octet-stream"}
    async with Web(site.edges[0], alice) as a:
        part = await a.create(chat, 10, data=b"01234", **body)
        assert (part.status, part.headers["Upload-Offset"]) == (201, "5")
        assert "Hikyaku-File" not in part.headers
        whole = await a.create(chat, 5, data=b"01234", **body)
        assert (whole.status, whole.headers["Upload-Offset"]) == (201, "5")
        assert (await a.get(whole.headers["Hikyaku-File"])).body == b"01234"
        empty = await a.create(chat, 0)
        assert (await a.get(empty.headers["Hikyaku-File"])).body == b""
        odd = await a.create(chat, 5, data=b"01234", **{"Content-Type": "text/plain"})
        assert (odd.status, odd.json["code"]) == (415, "invalid")


async def test_methods_may_be_told_by_a_header(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        where = await place(a, subjects.dm(alice, bob), 5)
        told = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
        kind = {"Content-Type": "application/offset+octet-stream"}
        answer = await a.tus("POST", where, data=b"hello", **told, **kind)
        assert (answer.status, "Hikyaku-File" in answer.headers) == (204, True)


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"Upload-Length": ""}, 400, "Upload-Length"),
        ({"Upload-Length": "-1"}, 400, "Upload-Length"),
        ({"Upload-Length": "1e3"}, 400, "Upload-Length"),
        ({"Upload-Length": str(21 * MB)}, 413, "at most"),
        ({"Upload-Length": "9" * 18}, 413, "at most"),
        ({"Upload-Metadata": ""}, 400, "chat_id is missing"),
        ({"Upload-Metadata": "chat_id ???"}, 400, "no base64"),
        ({"Upload-Metadata": "chat_id /////w=="}, 400, "no base64"),
        ({"Upload-Metadata": "chat_id eA==,chat_id eA=="}, 400, "there twice"),
        ({"Upload-Metadata": "chat_id eA=="}, 400, "is no chat id"),
        ({"Upload-Metadata": "chat_id Z3JvdXAueA=="}, 403, "you are not in the chat"),
        ({"Upload-Metadata": "x eA==," * 2000}, 400, "at most"),
        ({"Tus-Resumable": "0.2.2"}, 412, "must be 1.0.0"),
    ],
)
async def test_a_bad_creation_is_told_what_is_wrong(
    site: FileSite, headers: dict[str, str], status: int, says: str
) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        answer = await a.create(subjects.dm(alice, bob), 10, **headers)
        assert answer.status == status
        assert says in answer.json["message"]
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        if status == 412:
            assert answer.headers["Tus-Version"] == "1.0.0"


async def test_a_bad_part_is_told_what_is_wrong(site: FileSite) -> None:
    alice, bob, eve = names("alice", "bob", "eve")
    async with Web(site.edges[0], alice) as a, Web(site.edges[0], eve) as e:
        where = await place(a, subjects.dm(alice, bob), 10)

        async def wrong(status: int, at: int, data: bytes, **headers: str) -> None:
            answer = await a.patch(where, at, data, **headers)
            assert answer.status == status, answer
            assert await offset(a, where) == 5

        assert (await a.patch(where, 0, b"01234")).status == 204
        await wrong(409, 0, b"01234")
        await wrong(409, 6, b"6")
        await wrong(415, 5, b"56", **{"Content-Type": "text/plain"})
        await wrong(413, 5, b"567890")
        await wrong(412, 5, b"56", **{"Tus-Resumable": "2.0.0"})
        await wrong(400, 5, b"56", **{"Upload-Offset": "x"})
        await wrong(400, 5, b"56", **{"Upload-Checksum": "md5 eA=="})
        await wrong(400, 5, b"56", **{"Upload-Checksum": "sha1 ?"})
        assert (await a.patch(where, 5, trickle(b"567890", 1))).status == 413
        for method in ("HEAD", "DELETE", "GET"):
            assert (await e.tus(method, where)).status == 404, "of others"
        assert (await e.patch(where, 5, b"56789")).status == 404
        unfinished = await a.ask("GET", where)
        assert (unfinished.status, unfinished.json["code"]) == (409, "conflict")
        assert (await a.tus("HEAD", "/v1/files/tus/" + "A" * 22)).status == 404


async def test_a_checksum_guards_a_part(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(5 * MB)

    def checksum(algorithm: str, part: bytes) -> dict[str, str]:
        digest = b64encode(hashlib.new(algorithm, part).digest()).decode()
        return {"Upload-Checksum": f"{algorithm} {digest}"}

    async with Web(site.edges[0], alice) as a:
        where = await place(a, subjects.dm(alice, bob), len(data))
        first, rest = data[: 3 * MB], data[3 * MB :]
        bad = await a.patch(where, 0, first, **checksum("sha1", rest))
        assert (bad.status, bad.json["code"]) == (460, "invalid")
        assert await offset(a, where) == 0
        assert (await a.patch(where, 0, first, **checksum("sha1", first))).status == 204
        bad = await a.patch(where, len(first), rest, **checksum("sha256", first))
        assert bad.status == 460
        assert await offset(a, where) == len(first)
        good = await a.patch(where, len(first), rest, **checksum("sha256", rest))
        assert (await a.get(good.headers["Hikyaku-File"])).body == data


async def cut_off(
    web: Web, site: FileSite, where: str, data: bytes, sent: int, **more: Any
) -> None:
    """Send so much of the rest, then be gone."""
    pause = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, sent, 50_000):
            yield data[start : min(start + 50_000, sent)]
        await pause.wait()

    headers = {"Content-Length": str(len(data)), **more}
    at = await offset(web, where)
    sending = asyncio.create_task(web.patch(where, at, pieces(), **headers))
    received = "hikyaku_edge_file_received_bytes_total "

    def bytes_in() -> float:
        lines = site.edges[0].get("/metrics").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(received)))

    before = bytes_in()
    await eventually(lambda: bytes_in() - before >= sent or sending.done())
    sending.cancel()
    await asyncio.wait([sending])
    await eventually(lambda: site.metric("uploading") == 0)


async def test_after_a_cut_it_goes_on_where_it_was(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(12 * MB)
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], alice) as elsewhere:
        where = await place(a, subjects.dm(alice, bob), len(data))
        await cut_off(a, site, where, data, 7_300_000)
        at = await offset(elsewhere, where)
        assert 6_000_000 <= at <= 7_300_000, "nearly all that was sent counts"
        last = await elsewhere.patch(where, at, data[at:])
        assert (await a.get(last.headers["Hikyaku-File"])).body == data
        assert site.metric("uploads_resumed_total") >= 1


async def test_what_was_cut_under_a_checksum_does_not_count(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(8 * MB)
    async with Web(site.edges[0], alice) as a:
        where = await place(a, subjects.dm(alice, bob), len(data))
        digest = b64encode(hashlib.sha1(data).digest()).decode()
        told = {"Upload-Checksum": f"sha1 {digest}"}
        await cut_off(a, site, where, data, 5_000_000, **told)
        assert await offset(a, where) == 0
        done = await a.patch(where, 0, data, **told)
        assert (await a.get(done.headers["Hikyaku-File"])).body == data


async def test_two_that_send_the_same_part_make_one_file(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    data = os.urandom(3 * MB)
    async with Web(site.edges[0], alice) as a, Web(site.edges[1], alice) as b:
        where = await place(a, subjects.dm(alice, bob), len(data))
        answers = await asyncio.gather(a.patch(where, 0, data), b.patch(where, 0, data))
        assert {each.status for each in answers} <= {204, 409, 503}
        file_id = (await a.tus("HEAD", where)).headers["Hikyaku-File"]
        assert (await a.get(file_id)).body == data
        assert {each.headers.get("Hikyaku-File", file_id) for each in answers} == {file_id}


async def test_an_upload_is_ended_by_its_owner(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        where = await place(a, subjects.dm(alice, bob), 10)
        await a.patch(where, 0, b"01234")
        assert (await a.tus("DELETE", where)).status == 204
        for method in ("HEAD", "DELETE", "GET"):
            assert (await a.tus(method, where)).status == 404
        assert (await a.patch(where, 5, b"56789")).status == 404


async def test_a_user_has_so_many_unfinished_uploads(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a:
        places = [await place(a, chat, 10) for _ in range(20)]
        over = await a.create(chat, 10)
        assert (over.status, over.json["code"]) == (403, "forbidden")
        assert "20 unfinished uploads" in over.json["message"]
        assert (await a.patch(places[0], 0, b"0123456789")).status == 204
        await place(a, chat, 10)


async def test_images_are_looked_into_here_too(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Web(site.edges[0], alice) as a:
        data = picture("JPEG")
        where = await place(a, chat, len(data), "x.jpg")
        assert (await a.patch(where, 0, data[:500])).status == 204
        done = await a.patch(where, 500, data[500:])
        file = (await a.ask("GET", where)).json
        assert (file["width"], file["height"]) == (640, 400)
        assert SECRET_BYTES not in (await a.get(done.headers["Hikyaku-File"])).body
        bad = bomb("GIF")
        where = await place(a, chat, len(bad), "x.gif")
        refused = await a.patch(where, 0, bad)
        assert (refused.status, refused.json["code"]) == (413, "too_large")
        assert (await a.tus("HEAD", where)).status == 404, "it is of no use any more"


async def test_who_left_the_chat_meanwhile_does_not_finish(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect, Web(site.edges[1], bob) as b:
        client = await connect(site.edges[0], alice)
        group = await client.group(bob)
        where = await place(b, group["chat_id"], 10)
        await b.patch(where, 0, b"01234")
        await client.ask("group_remove", group_id=group["group_id"], users=[bob])
        last = await b.patch(where, 5, b"56789")
        assert (last.status, last.json["code"]) == (403, "not_member")
