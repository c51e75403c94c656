"""Files that were sent at one site are read at the other, and then also during a cut."""

import asyncio
import json
import os
from base64 import b64decode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from broker import subjects
from broker.files import File, Piece, PieceFound
from tests.chat import Chat, Clients, names
from tests.federation.test_trust import Nagoya, message, submitted
from tests.filesite import Web
from tests.mirror import until
from tests.offices import Company, Office
from tests.pictures import picture

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(tmp_path_factory.mktemp("company"), ["tokyo", "osaka"], strangers=["nagoya"])
    async with company.running():
        for office in company.offices.values():
            await office.files.start()
        yield company


class _Person:
    """A user at an office: a client and requests."""

    def __init__(self, office: Office, client: Chat, name: str):
        self.office = office
        self.client = client
        self.name = name

    def web(self) -> Web:
        return Web(self.office.edges[0], self.name)

    async def send(self, to: str, chat_id: str, data: bytes, name: str) -> dict[str, Any]:
        """Upload a file and send it; its description."""
        async with self.web() as web:
            file = await web.upload(chat_id, data, name)
        await self.client.write("chat", to=to, content="look", attachments=[file["id"]])
        return file


async def test_both_ways_and_in_a_cut(company: Company) -> None:
    """alice@tokyo comes first in byte order: the conversation lives in Tokyo."""
    alice_id, bob_id, eve_id = names("alice", "bob", "eve")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        first = await alice.say(f"{bob_id}@osaka", "hello")
        heard = await bob.until("chat", content="hello")
        image, noise = picture("JPEG"), os.urandom(700_000)
        file = await _Person(osaka, bob, bob_id).send(
            f"{alice_id}@tokyo", heard["chat_id"], image, "sea.jpg"
        )
        seen = (await alice.until("chat", content="look"))["files"][0]
        assert seen["id"] == file["id"]
        async with Web(tokyo.edges[0], alice_id) as web:
            small = await web.get(seen, "/thumbnail")
            assert (small.status, small.headers["Content-Type"]) == (200, "image/webp")
            found = await web.get(seen)
            assert found.status == 200
            assert sha256(found.body).hexdigest() == seen["sha256"]
            assert "sea.jpg" in found.headers["Content-Disposition"]
        async with Web(tokyo.edges[1], eve_id) as web:
            assert (await web.get(seen)).status == 404, "she is not in the chat"

        other = await _Person(tokyo, alice, alice_id).send(
            f"{bob_id}@osaka", first["chat_id"], noise, "noise.bin"
        )
        await bob.until("chat", content="look", **{"from": f"{alice_id}@tokyo"})
        osaka.link.sever()
        async with Web(osaka.edges[0], bob_id) as web:
            refused = await web.get(other)
            assert refused.status == 503
            assert refused.json["retryable"]
            assert "the site tokyo is not connected" in refused.json["message"]
        async with Web(tokyo.edges[0], alice_id) as web:
            assert (await web.get(seen)).body == found.body, "it is here by now"
        osaka.link.clear()
        async with Web(osaka.edges[0], bob_id) as web:

            async def whole() -> bool:
                return (await web.get(other)).body == noise

            await until(whole)
    assert tokyo.metric("elsewhere_total", result="brought") == 1


async def test_a_group_and_many_who_ask_at_once(company: Company) -> None:
    alice_id, bob_id, carol_id = names("alice", "bob", "carol")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        group = await alice.group(f"{bob_id}@osaka", f"{carol_id}@osaka", name="both")
        await bob.until("member_added")
        async with Web(tokyo.edges[0], alice_id) as web:
            file = await web.upload(f"group.{group['group_id']}", os.urandom(3_000_000))
        before = osaka.metric("elsewhere_bytes_total")
        await alice.write(
            "group_chat", group_id=group["group_id"], content="all", attachments=[file["id"]]
        )
        await bob.until("group_chat", content="all")
        async with Web(osaka.edges[0], bob_id) as one, Web(osaka.edges[1], carol_id) as other:
            answers = await asyncio.gather(*(web.get(file) for web in (one, other, one, other)))
        assert {sha256(each.body).hexdigest() for each in answers} == {file["sha256"]}
        assert osaka.metric("elsewhere_bytes_total") - before == 3_000_000, "it came once"


async def test_messages_pass_while_a_file_comes_over_a_narrow_link(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    tokyo, osaka = company["tokyo"], company["osaka"]
    async with Clients() as connect:
        alice = await connect(tokyo.edges[0], alice_id)
        bob = await connect(osaka.edges[0], bob_id)
        first = await alice.say(f"{bob_id}@osaka", "hello")
        await bob.until("chat", content="hello")
        data = os.urandom(120_000)
        file = await _Person(tokyo, alice, alice_id).send(
            f"{bob_id}@osaka", first["chat_id"], data, "plan.bin"
        )
        await bob.until("chat", content="look")
        osaka.link.up.bytes_per_s = osaka.link.down.bytes_per_s = 8000
        try:
            async with Web(osaka.edges[0], bob_id) as web:
                coming = asyncio.create_task(web.get(file))
                for number in range(3):
                    assert not coming.done(), "it takes 20 s at least"
                    await alice.say(f"{bob_id}@osaka", f"meanwhile {number}")
                    async with asyncio.timeout(10):
                        await bob.until("chat", content=f"meanwhile {number}")
                answer = await coming
                while answer.status == 503:
                    assert "on its way from tokyo" in answer.json["message"], answer
                    answer = await web.get(file)
                assert answer.body == data
        finally:
            osaka.link.clear()


async def test_a_site_has_only_what_its_users_may_read(company: Company) -> None:
    (alice_id, bob_id) = names("alice", "bob")
    tokyo = company["tokyo"]
    async with Clients() as connect, Nagoya(company) as nagoya:
        alice = await connect(tokyo.edges[0], alice_id)
        group = await alice.group(bob_id, name="ours")
        data = os.urandom(100)
        async with Web(tokyo.edges[0], alice_id) as web:
            ours = await web.upload(f"group.{group['group_id']}", data)
            theirs = await web.upload(subjects.dm(alice_id, "zed@nagoya"), data)

        async def piece(file_id: str, length: int = 60) -> dict[str, Any]:
            asked = msgspec.json.encode(Piece(id=file_id, start=50, length=length))
            answer = await nagoya.postal.ask("tokyo", "file", asked, timeout_s=10)
            found: dict[str, Any] = json.loads(answer)
            return found

        assert (await piece(ours["id"]))["code"] == "not_found"
        assert (await piece("no-such-file"))["code"] == "not_found"
        assert b64decode((await piece(theirs["id"]))["ok"]["data"]) == data[50:]
        added = await alice.ask("group_add", group_id=group["group_id"], users=["zed@nagoya"])
        assert added["group"]
        assert b64decode((await piece(ours["id"], 10))["ok"]["data"]) == data[50:60]


async def test_other_bytes_than_a_message_tells_of_are_not_taken(company: Company) -> None:
    (alice_id,) = names("alice")
    tokyo = company["tokyo"]
    right, asked = b"what was sent", 0

    async def other(_peer: str, _question: bytes) -> bytes:
        nonlocal asked
        asked += 1
        found = PieceFound(chat_id="", data=b"x" * len(right))
        return b'{"ok":%s}' % msgspec.json.encode(found)

    async with Clients() as connect, Nagoya(company) as nagoya:
        nagoya.postal.serve("file", other)
        alice = await connect(tokyo.edges[0], alice_id)
        file = File(
            id=f"{alice_id}-file",
            name="a.txt",
            size=len(right),
            content_type="text/plain",
            sha256=sha256(right).hexdigest(),
        )
        sent = message("zed", f"{alice_id}@tokyo", "look")
        sent.attachments, sent.files = [file.id], [file]
        await nagoya.submit(submitted(sent))
        await alice.until("chat", content="look")
        async with Web(tokyo.edges[0], alice_id) as web:
            for _ in range(2):
                refused = await web.get(file.id)
                assert (refused.status, refused.json["code"]) == (404, "not_found")
                assert "nagoya gave other bytes" in refused.json["message"]
    assert asked == 1, "it is not asked for again and again"
    assert f"nagoya gave other bytes for the file {file.id}" in tokyo.files.process.log.read_text()
