"""A client that was away longer than the log reaches is told exactly what to read."""

from pathlib import Path

import msgspec
import pytest

from store.archive_hot import Hot
from store.config import StoreConfig
from store.database import connect as connect_database
from tests.brokers import make_bus
from tests.chat import Clients, names
from tests.servers import Site

pytestmark = pytest.mark.anyio


async def test_every_chat_with_news_is_in_missing(fresh_site: Site, tmp_path: Path) -> None:
    site = fresh_site
    await site.start()
    alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        before = await a.say(dave, "seen already")
        cursor = f"{a.welcome['epoch']}:{before['seq']}"
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[1], carol)
        await a.close()
        gone = await b.say(alice, "only in MongoDB")
        page = await b.ask("history", chat_id=gone["chat_id"])
        assert [each["content"] for each in page["messages"]] == ["only in MongoDB"]
        await purge(site)
        kept = await c.say(alice, "still in the log")

        again = await connect(site.edges[0], alice, cursor=cursor)
        done = await again.until("caught_up")
        assert again.contents() == ["still in the log"]
        missing = {each["chat_id"]: (each["from_seq"], each["to_seq"]) for each in done["missing"]}
        assert missing[gone["chat_id"]] == (before["seq"] + 1, kept["seq"] - 1)
        assert before["chat_id"] not in missing
        read = await again.ask("history", chat_id=gone["chat_id"])
        assert [each["content"] for each in read["messages"]] == ["only in MongoDB"]


async def test_a_chat_past_its_retention_hides_no_other(fresh_site: Site) -> None:
    site = fresh_site
    await site.start()
    alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
    async with Clients() as connect:
        a = await connect(site.edges[0], alice)
        b = await connect(site.edges[1], bob)
        c = await connect(site.edges[1], carol)
        group = await c.group(alice)
        await a.until("member_added")
        before = await a.say(dave, "seen already")
        cursor = f"{a.welcome['epoch']}:{before['seq']}"
        await a.close()
        gone = await b.say(alice, "only in MongoDB")
        short = await c.tell(group["group_id"], "kept for a day only")
        await purge(site)
        async with connect_database(StoreConfig(url=site.mongo.url)) as database:
            assert await Hot(database).expire(short["chat_id"], 2**62) == 1
        listed = await c.ask("chats")
        assert [(e["seq"], e["last_message"]) for e in listed["chats"]] == [(short["seq"], None)]
        again = await connect(site.edges[0], alice, cursor=cursor)
        done = await again.until("caught_up")
        assert again.contents() == []
        missing = {each["chat_id"] for each in done["missing"]}
        assert missing == {gone["chat_id"], short["chat_id"]}


async def purge(site: Site) -> None:
    """Let all events leave the log, once MongoDB has them."""
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(5)
        while True:
            reply = await bus.request("$JS.API.CONSUMER.INFO.CHAT.persist", timeout_s=5)
            info = msgspec.json.decode(reply.data)
            if info["num_pending"] == 0 and info["num_ack_pending"] == 0:
                break
        await bus.request("$JS.API.STREAM.PURGE.CHAT", timeout_s=5)
