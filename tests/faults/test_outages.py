"""What users see while a part is away, and that all comes back without a restart."""

import asyncio
import json
import urllib.error

import pytest

from tests.chat import Clients, names
from tests.servers import Site, eventually

pytestmark = pytest.mark.anyio


def readiness(site: Site) -> list[int]:
    """The status of each edge's /readyz."""
    found = []
    for edge in site.edges:
        try:
            edge.get("/readyz")
            found.append(200)
        except urllib.error.HTTPError as error:
            found.append(error.code)
    return found


async def test_nats_away_for_ten_seconds(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        await a.say(bob, "before")
        site.nats.process.kill()
        down_at = asyncio.get_running_loop().time()
        await eventually(lambda: readiness(site) == [503, 503], within_s=5)

        # Nothing of it was sent, so the answer comes as soon as the outage is plain.
        first = await a.write("chat", to=bob, content="during", client_id="during")
        assert (first["type"], first["code"], first["retryable"]) == ("error", "unavailable", True)
        assert first["client_id"] == "during"
        assert asyncio.get_running_loop().time() - down_at < 9
        again = await a.write("chat", to=bob, content="during", client_id="during")
        assert again["code"] == "unavailable"
        asked = await a.ask("group_info", group_id="any")
        assert (asked["type"], asked["code"], asked["retryable"]) == ("error", "unavailable", True)
        assert await asyncio.to_thread(readiness, site) == [503, 503]
        missing = await asyncio.to_thread(missing_of, site)
        assert site.nats.url in missing

        left_s = 10 - (asyncio.get_running_loop().time() - down_at)
        await eventually(
            lambda: asyncio.get_running_loop().time() - down_at > 10, within_s=left_s + 1
        )
        await site.nats.start()
        await eventually(lambda: readiness(site) == [200, 200], within_s=10)
        ack = await a.write("chat", to=bob, content="during", client_id="during")
        assert ack["type"] == "ack", ack
        await a.say(bob, "after")
        await b.until("chat", content="after")
        assert b.contents() == ["before", "during", "after"]

        # The workers come back by themselves too.
        made = {"client_id": "made", "name": "made", "members": [bob]}
        async with asyncio.timeout(20):
            while (answer := await a.ask("group_create", **made))["type"] == "error":
                assert answer["retryable"] is True, answer


def missing_of(site: Site) -> str:
    try:
        return site.edges[0].get("/readyz")
    except urllib.error.HTTPError as error:
        body: str = json.loads(error.read())["missing"][0]
        return body


async def test_messages_go_on_without_mongodb_and_without_a_worker(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        group = (await a.group(bob))["group_id"]
        await b.until("member_added")
        site.mongo.process.kill()
        site.worker.process.kill()

        await a.say(bob, "one")
        await a.tell(group, "two")
        await b.say(alice, "three")
        await b.until("group_chat", content="two")
        # A second device of a user who is here needs no directory.
        again = await connect(site.edges[1], bob, cursor=b.cursor)
        await again.until("caught_up")
        asked = await a.ask("group_add", group_id=group, users=[carol])
        assert (asked["code"], asked["retryable"]) == ("unavailable", True)

        await site.mongo.start()
        await site.worker.start()
        for _ in range(50):
            asked = await a.ask("group_add", group_id=group, users=[carol])
            if asked["type"] == "result":
                break
            assert asked["retryable"], asked
        assert carol in asked["group"]["members"]
        await b.until("member_added", users=[carol])
