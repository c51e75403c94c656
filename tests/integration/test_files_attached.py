"""Files in messages, and the limits of requests about files."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker import subjects

from ..chat import Clients, names
from ..edges import extra_edge, trouble
from ..filesite import INTERNAL, FileSite, Web, trickle
from ..pictures import picture
from ..servers import eventually, token

pytestmark = pytest.mark.anyio

MB = 1024 * 1024


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FileSite]:
    site = FileSite(tmp_path_factory.mktemp("attached"), HIKYAKU_FILE_BYTES=str(5 * MB))
    try:
        await site.start()
        yield site
        assert [each for server in (*site.edges, site.files) for each in trouble(server)] == []
    finally:
        site.stop()


# --- attachments ---


async def test_a_message_carries_files_and_what_they_are(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect, Web(site.edges[0], alice) as a:
        sender = await connect(site.edges[0], alice)
        receiver = await connect(site.edges[1], bob)
        files = [
            await a.upload(chat, picture("PNG"), "x.png"),
            await a.upload(chat, b"text", "y.txt"),
        ]
        ids = [each["id"] for each in files]
        ack = await sender.say(bob, "", attachments=ids)
        live = await receiver.until("chat", id=ack["message_id"])
        assert (live["attachments"], live["files"]) == (ids, files)
        page = await receiver.ask("history", chat_id=chat)
        assert page["messages"] == [live]
        group = await sender.group(bob)
        mine = await a.upload(group["chat_id"], b"for the group")
        ack = await sender.tell(group["group_id"], "look", attachments=[mine["id"]])
        live = await receiver.until("group_chat", id=ack["message_id"])
        assert live["files"] == [mine]
        posted = await a.ask(
            "POST",
            "/v1/messages",
            data=json.dumps(
                {
                    "type": "chat",
                    "client_id": uuid4().hex,
                    "to": bob,
                    "content": "",
                    "attachments": ids[:1],
                }
            ).encode(),
        )
        assert posted.status == 201
        live = await receiver.until("chat", id=posted.json["message_id"])
        assert live["files"] == files[:1]


async def test_what_is_written_to_files_can_be_taken_away(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect, Web(site.edges[0], alice) as a:
        sender = await connect(site.edges[0], alice)
        file = await a.upload(subjects.dm(alice, bob), b"text", "y.txt")
        ack = await sender.say(bob, "look", attachments=[file["id"]])
        change = {"chat_id": ack["chat_id"], "message_id": ack["message_id"], "content": ""}
        assert (await sender.write("edit", **change))["type"] == "ack"
        (found,) = (await sender.ask("history", chat_id=ack["chat_id"]))["messages"]
        assert (found["content"], found["files"]) == ("", [file])


async def test_files_of_others_and_of_other_chats_are_not_attached(site: FileSite) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect, Web(site.edges[0], alice) as a, Web(site.edges[0], bob) as b:
        sender = await connect(site.edges[0], alice)
        here = await a.upload(subjects.dm(alice, bob), b"here")
        theirs = await b.upload(subjects.dm(bob, carol), b"theirs")
        shared = await b.upload(subjects.dm(alice, bob), b"of both")
        for number, attached in enumerate(
            ([theirs["id"]], ["A" * 22], ["../etc"], [here["id"], theirs["id"]])
        ):
            answer = await sender.write("chat", to=bob, content="x", attachments=attached)
            assert (answer["type"], answer["code"]) == ("error", "not_found"), number
            assert "attachments" in answer["message"]
        other = await sender.write("chat", to=carol, content="x", attachments=[here["id"]])
        assert other["code"] == "not_found"
        again = await sender.say(bob, "x", attachments=[shared["id"], here["id"]])
        twice = await sender.say(bob, "x", attachments=[here["id"], here["id"]])
        assert again["seq"] < twice["seq"]


async def test_what_is_written_behind_an_attachment_stays_behind_it(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect, Web(site.edges[0], alice) as a:
        sender = await connect(site.edges[0], alice)
        receiver = await connect(site.edges[1], bob)
        file = await a.upload(subjects.dm(alice, bob), b"x")
        expected = []
        for number in range(30):
            attached = [[], [file["id"]], ["nothing"]][number % 3]
            expected += [] if number % 3 == 2 else [str(number)]
            fields = {"client_id": uuid4().hex, "to": bob, "content": str(number)}
            await sender.send("chat", id=number, attachments=attached, **fields)
        for _ in expected:
            await receiver.until("chat")
        assert receiver.contents() == expected
        errors = {(await sender.until("error"))["id"] for _ in range(10)}
        assert errors == set(range(2, 30, 3))


async def test_a_deleted_message_has_no_files_any_more(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    async with Clients() as connect, Web(site.edges[0], alice) as a:
        sender = await connect(site.edges[0], alice)
        file = await a.upload(chat, b"x", "a secret name.txt")
        said = await sender.say(bob, "", attachments=[file["id"]])
        await sender.write("delete", chat_id=chat, message_id=said["message_id"])
        page = await sender.ask("history", chat_id=chat)
        (message,) = page["messages"]
        assert message["deleted"] is True
        assert "files" not in message
        assert "attachments" not in message


# --- limits ---


async def test_requests_about_files_have_a_rate(site: FileSite, tmp_path: Path) -> None:
    (alice,) = names("alice")
    settings = {
        "messages_per_s": "0.1",
        "messages_burst": "1",
        "files_port": str(site.files_port),
        "internal_secret": INTERNAL,
    }
    async with extra_edge(site, tmp_path, **settings) as edge, Web(edge, alice) as a:
        found = [(await a.get("A" * 22)).status for _ in range(12)]
        assert found.count(404) in (10, 11)
        refused = await a.get("A" * 22)
        assert (refused.status, refused.json["code"]) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) >= 1


async def test_an_edge_with_another_secret_says_that_it_is_not_the_clients_fault(
    site: FileSite, tmp_path: Path
) -> None:
    (alice,) = names("alice")
    settings = {"files_port": str(site.files_port), "internal_secret": "x" * 32}
    async with extra_edge(site, tmp_path, **settings) as edge, Web(edge, alice) as a:
        answer = await a.get("A" * 22)
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert "HIKYAKU_INTERNAL_SECRET" in edge.process.log.read_text()


async def test_an_edge_without_a_worker_keeps_no_files(site: FileSite, tmp_path: Path) -> None:
    (alice,) = names("alice")
    async with extra_edge(site, tmp_path) as edge, Web(edge, alice) as a:
        answer = await a.get("A" * 22)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_a_client_that_goes_on_sending_what_was_refused_is_ended(
    site: FileSite, tmp_path: Path
) -> None:
    """Such a client must be able to read why, but not to hold the connection for ever."""
    (alice,) = names("alice")
    edge = site.edges[0]

    def request() -> bytes:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
            client.sendall(
                b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
                b"Authorization: Bearer %b\r\n\r\n" % token(alice).encode()
            )
            client.sendall(bytes(3 * MB))
            return client.recv(100)

    assert (await asyncio.to_thread(request)).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    chat = subjects.dm(alice, bob)
    before = site.stored()
    async with Web(site.edges[0], alice) as a:
        pause = asyncio.Event()
        uploading = asyncio.create_task(a.post(chat, trickle(bytes(3 * MB), MB, pause)))
        await eventually(lambda: site.metric("uploading") == 1)
        uploading.cancel()
        await asyncio.wait([uploading])
        await eventually(lambda: site.metric("uploading") == 0)
    assert site.stored() == before
    assert await asyncio.to_thread(os.listdir, site.home / "spool") == []


async def test_metrics_tell_of_files(site: FileSite) -> None:
    alice, bob = names("alice", "bob")
    async with Web(site.edges[0], alice) as a:
        uploads, sent = site.metric("uploads_total"), site.metric("downloaded_bytes_total")
        file = await a.upload(subjects.dm(alice, bob), b"x" * 1000)
        await a.get(file)
        assert site.metric("uploads_total") == uploads + 1
        assert site.metric("downloaded_bytes_total") == sent + 1000
    text = site.edges[0].get("/metrics")
    for name in ("file_requests_total", "file_failures_total", "file_sent_bytes_total"):
        assert f"hikyaku_edge_{name} " in text
