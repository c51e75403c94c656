"""The log is lost, and begins anew after all that MongoDB has, whoever makes it and when."""

import json
import shutil
import urllib.error

import pytest

from broker import directory
from broker.bus import Bus
from broker.dead import DeadLetters
from broker.log import Log
from broker.requests import ask
from store.config import StoreConfig
from store.database import Database
from store.database import connect as connect_database
from store.log_floor import STEP
from tests.brokers import api, make_bus
from tests.chat import Chat, Clients, Frame, names
from tests.edges import trouble
from tests.mirror import until, until_persisted
from tests.servers import Site, eventually

pytestmark = pytest.mark.anyio


def missing(site: Site) -> list[str]:
    """What the edges say at /readyz that they wait for."""
    found: list[str] = []
    for edge in site.edges:
        try:
            edge.get("/readyz")
        except urllib.error.HTTPError as error:
            found += json.loads(error.read())["missing"]
        except OSError:
            found.append("the edge")
    return found


async def ready(site: Site) -> None:
    await eventually(lambda: not missing(site), within_s=30)


async def page(client: Chat, chat_id: str) -> list[Frame]:
    found = await client.ask("history", chat_id=chat_id)
    assert found["type"] == "result", found
    messages: list[Frame] = found["messages"]
    return messages


async def test_a_first_start_without_mongodb_waits_and_says_for_what(fresh_site: Site) -> None:
    site = fresh_site
    processes = (site.worker, site.persist, site.query, *site.edges)
    await site.nats.start()
    for each in processes:
        each._offset = 0
        each.process.start()

    def waits_for_the_log() -> bool:
        return any("the log" in each and "MongoDB" in each for each in missing(site))

    await eventually(waits_for_the_log, within_s=20)
    await eventually(lambda: b"waiting for the log" in site.worker.process.log.read_bytes())
    await site.mongo.start()
    await ready(site)
    async with Clients() as connect:
        alice, bob = names("alice", "bob")
        one = await connect(site.edges[0], alice)
        assert (await one.say(bob, "the first"))["seq"] == 1


async def test_nats_killed_and_its_store_wiped(fresh_site: Site) -> None:
    """Nothing is restarted but NATS: history, counts, pointers, edits, groups go on."""
    site = fresh_site
    await site.start()
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group = (await one.group(bob))["group_id"]
        await two.until("member_added")
        before = [await one.say(bob, f"before {number}") for number in range(5)]
        chat = before[0]["chat_id"]
        edit = {"chat_id": chat, "message_id": before[0]["message_id"]}
        assert (await one.write("edit", content="edited before", **edit))["type"] == "ack"
        answer = await two.ask(
            "read_receipt", chat_id=chat, last_read_msg_id=before[2]["message_id"]
        )
        assert answer["type"] == "result"
        await one.tell(group, "in the group before")
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await until_persisted(bus)
            old = await Log(bus).state()

        site.nats.process.kill()
        store = site.nats.process.log.parent / "jetstream"
        assert store.is_dir()
        shutil.rmtree(store)
        await site.nats.start()
        for client in (one, two):
            assert (await client.closed())[0] == 1012
        await ready(site)

        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            new = await Log(bus).state()
            assert new.epoch != old.epoch
            assert new.first_seq > old.last_seq
            one = await connect(site.edges[0], alice, cursor=one.cursor)
            two = await connect(site.edges[1], bob, cursor=two.cursor)
            for client in (one, two):
                assert (await client.until("caught_up"))["recovered"] is False
            after = [await one.say(bob, f"after {number}") for number in range(3)]
            assert after[0]["seq"] >= new.first_seq
            await two.until("chat", content="after 2")
            # What was edited before can be edited again, and wins.
            assert (await one.write("edit", content="edited after", **edit))["type"] == "ack"
            await two.until("message_edited", content="edited after")
            await two.tell(group, "in the group after")
            await one.until("group_chat", content="in the group after")

            for _ in ("with the tail of the log", "all in MongoDB"):
                found = await page(two, chat)
                assert [each["content"] for each in found] == [
                    *(f"after {number}" for number in (2, 1, 0)),
                    *(f"before {number}" for number in (4, 3, 2, 1)),
                    "edited after",
                ]
                await until_persisted(bus)

            async def counted() -> bool:
                answer = await two.ask("unread", chat_ids=[chat])
                return answer.get("counts") == {chat: 5}

            await until(counted)
            assert await DeadLetters(bus).all() == []
    assert "restored" in site.query.process.log.read_text()
    for edge in site.edges:
        assert trouble(edge) == [line for line in trouble(edge) if "the log changed" in line]


async def test_the_description_of_the_log_is_lost(fresh_site: Site) -> None:
    """Its events are on the disk, and kept: also what MongoDB has not yet; cursors go on."""
    site = fresh_site
    await site.start()
    alice, bob = names("alice", "bob")
    async with Clients() as connect, make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        said = [await one.say(bob, "in MongoDB")]
        await until_persisted(bus)
        await two.until("chat", content="in MongoDB")
        cursor = two.cursor
        await two.close()
        async with connect_database(StoreConfig(url=site.mongo.url)) as database:
            await until(lambda: _remembered(database))
        site.persist.process.kill()
        said += [await one.say(bob, f"in the log {number}") for number in range(20)]

        site.nats.process.end()
        (description,) = site.nats.process.log.parent.glob("**/CHAT/meta.sum")
        description.write_bytes(b"")
        for edge in site.edges:
            edge.process.end()
        await site.nats.start()
        site.persist.process.start()
        await eventually(lambda: kept(site), within_s=20)
        for edge in site.edges:
            await edge.start()
        two = await connect(site.edges[1], bob, cursor=cursor)
        assert (await two.until("caught_up"))["recovered"] is True
        assert two.contents() == [f"in the log {number}" for number in range(20)]
        await until_persisted(bus)
        found = await page(two, said[0]["chat_id"])
        assert [each["id"] for each in reversed(found)] == [each["message_id"] for each in said]
        assert (await two.say(alice, "after"))["seq"] == said[-1]["seq"] + 1


def kept(site: Site) -> bool:
    logs = [each.process.log.read_text() for each in (site.worker, site.persist)]
    return any("its 21 events" in each and "are kept" in each for each in logs)


async def _remembered(database: Database) -> bool:
    return await database["log"].find_one({"_id": "epoch"}) is not None


async def test_an_older_copy_of_the_data_of_nats_is_not_used(fresh_site: Site) -> None:
    """Nobody can write before it is taken away; then all that MongoDB has is there, once."""
    site = fresh_site
    await site.start()
    alice, bob = names("alice", "bob")
    store = site.nats.process.log.parent / "jetstream"
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        said = [await one.say(bob, f"before {number}") for number in range(5)]
        site.nats.process.kill()
        shutil.copytree(store, store.with_name("older"))
        await site.nats.start()
        await ready(site)
        one = await connect(site.edges[0], alice)
        said += [await one.say(bob, f"later {number}") for number in range(5)]
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await until_persisted(bus)
        site.nats.process.kill()
        shutil.rmtree(store)
        store.with_name("older").rename(store)
        # One edge has seen more than there is now, the other one begins.
        site.edges[1].process.kill()
        await site.nats.start()
        site.edges[1].process.start()

        workers = (site.worker, site.persist, site.query)
        older = b"NATS' data is an older copy"
        await eventually(lambda: not any(each.process.running for each in workers), within_s=30)
        for each in workers:
            assert older in each.process.log.read_bytes()
            assert b"Traceback" not in each.process.log.read_bytes()
        await eventually(lambda: any(older.decode() in each for each in missing(site)))
        # What makes streams compares the two at its start as well; without it nobody can connect.
        makers = (site.worker, site.persist)
        for each in makers:
            each._offset = each.process.log.stat().st_size
            each.process.end()
            each.process.start()
        for each in makers:
            await eventually(
                lambda each=each: older in each.process.log.read_bytes()[each._offset :],  # type: ignore[misc]
                within_s=30,
            )
        # The edge that knows nothing of what was there is told by the directory.
        await eventually(
            lambda: any(
                "nobody can connect" in each and older.decode() in each for each in missing(site)
            ),
            within_s=20,
        )

        site.nats.process.kill()
        shutil.rmtree(store)
        await site.nats.start()
        site.query.process.end()
        site.query.process.start()
        await ready(site)
        one = await connect(site.edges[1], alice)
        said.append(await one.say(bob, "after"))
        seqs = [each["seq"] for each in said]
        assert seqs == sorted(set(seqs))
        async with make_bus(site.nats.url) as bus:
            await bus.wait_connected(10)
            await until_persisted(bus)
            assert await DeadLetters(bus).all() == []
        found = await page(one, said[0]["chat_id"])
        assert [each["id"] for each in reversed(found)] == [each["message_id"] for each in said]


async def test_the_log_is_deleted_while_mongodb_is_away(fresh_site: Site) -> None:
    """Nobody makes a new one before MongoDB has said where it begins."""
    site = fresh_site
    await site.start()
    alice, bob = names("alice", "bob")
    async with Clients() as connect, make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        one = await connect(site.edges[0], alice)
        said = await one.say(bob, "before")
        await until_persisted(bus)
        site.mongo.process.kill()
        await api(bus, "STREAM.DELETE.CHAT")
        await one.closed()
        await eventually(lambda: any("the log" in each for each in missing(site)), within_s=20)
        # Whoever starts now waits too.
        site.edges[1].process.kill()
        site.persist.process.kill()
        for each in (site.edges[1], site.persist):
            each.process.start()
        await eventually(
            lambda: site.worker.process.log.read_bytes().count(b"not on the bus any more") >= 2,
            within_s=20,
        )
        assert "CHAT" not in (await api(bus, "STREAM.NAMES"))["streams"]
        await site.mongo.start()
        await ready(site)
        one = await connect(site.edges[1], alice)
        again = await one.say(bob, "after")
        assert again["seq"] > said["seq"] + STEP // 2
        await until_persisted(bus)
        assert [each["content"] for each in await page(one, said["chat_id"])] == ["after", "before"]
        assert await DeadLetters(bus).all() == []


async def test_the_log_is_lost_again_and_again(fresh_site: Site) -> None:
    """With messages on their way each time: no place is taken twice."""
    site = fresh_site
    await site.start()
    alice, bob = names("alice", "bob")
    async with make_bus(site.nats.url) as bus:
        await bus.wait_connected(10)
        firsts = []
        for turn in range(4):
            await ready(site)
            async with Clients() as connect:
                one = await connect(site.edges[turn % 2], alice)
                await one.say(bob, f"{turn} begins")
                await until_persisted(bus)
                for number in range(20):
                    await one.say(bob, f"{turn} {number}")
                await api(bus, "STREAM.DELETE.CHAT")
                await one.closed()
            await _made_anew(bus)
            firsts.append((await Log(bus).state()).first_seq)
        assert firsts == sorted(set(firsts))
        await until_persisted(bus)
        assert await DeadLetters(bus).all() == []
        question = directory.Chats(users=[alice])
        answer = await ask(bus, directory.SERVICE, "chats", question, directory.Memberships, 10)
        assert answer.groups == {alice: {}}
    async with connect_database(StoreConfig(url=site.mongo.url)) as database:
        seqs = [each["seq"] async for each in database["messages"].find({}, {"seq": 1})]
        assert len(seqs) == len(set(seqs))


async def _made_anew(bus: Bus) -> None:
    async def there() -> bool:
        return "CHAT" in ((await api(bus, "STREAM.NAMES"))["streams"] or [])

    await until(there)
