"""What a site may set: a webhook for all users, no content, pushes to who is away; and a stop."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from broker import events
from tests.chat import Clients, names
from tests.mirror import message
from tests.push_server import PushServer, Reply, Request
from tests.pushing import World
from tests.servers import eventually
from workers.push.webhook import signature

pytestmark = pytest.mark.anyio

SECRET = "a secret of at least 24 bytes"


async def test_the_sites_webhook_is_told_of_all_users(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        HIKYAKU_WEBHOOK_SECRET=SECRET,
        HIKYAKU_PUSH_ALLOW="192.0.2.1",
        HIKYAKU_PUSH_CONTENT="off",
        HIKYAKU_PUSH_TEXT="Etwas Neues",
        HIKYAKU_PUSH_WHEN_AWAY="on",
    )
    async with PushServer(world.authority, http2=False) as hook:
        world.set("HIKYAKU_WEBHOOK_URL", f"{hook.url}/all")
        async with world.running(), Clients() as connect:
            alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
            await world.register(bob, "phone", "apns", token="ab" * 32)
            a = await connect(world.site.edges[0], alice)
            c = await connect(world.site.edges[1], carol)
            await connect(world.site.edges[1], dave)
            await c.ask("presence_set", status="away")
            for user in (bob, carol, dave):
                await a.say(user, "secret")
            await world.settled()
            told = [json.loads(each.body) for each in hook.requests]
            assert sorted(each["user_id"] for each in told) == sorted([bob, carol])
            assert {each["content"] for each in told} == {""}
            (_, _, payload) = world.apns.taken[0]
            assert payload["aps"]["alert"]["body"] == "Etwas Neues"
            assert "secret" not in str(payload)
            for each in hook.requests:
                head = each.headers
                at = int(head["webhook-timestamp"])
                signed = signature(SECRET, head["webhook-id"], at, each.body)
                assert head["webhook-signature"] == signed
            asked = {"device": "bot", "provider": "webhook", "url": f"{hook.url}/mine"}
            status, error = await world.call("POST", "/v1/devices", bob, asked)
            assert status == 400, "the site's own address is not for users to name"
            assert error["message"].startswith("url: ")


async def test_a_stop_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    async with World(tmp_path, lease_s=1.0, HIKYAKU_PUSH_TIMEOUT_S="1").running() as world:
        (bob,) = names("bob")
        device = "ab" * 32
        await world.register(bob, "phone", "apns", token=device)
        asked: list[str] = []

        async def slow(request: Request) -> Reply:
            asked.append(request.headers["apns-id"])
            await asyncio.sleep(0.4)
            return Reply(200)

        world.apns.specials[device] = slow
        event = message("alice", bob, "hello")
        await world.commit(event.chat_id, events.encode(event))
        await eventually(lambda: len(asked) == 1)
        await asyncio.to_thread(world.worker.process.end, signal.SIGTERM)
        done = await world.database["pushes"].find_one({"user": bob})
        assert done is not None
        assert (done.get("outcome"), "due" in done) == ("sent", False)
        await world.worker.start()
        await world.settled()
        assert len(asked) == 1
