"""Who gets a push of what: a whole site with real push services on loopback."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chat import Clients, names
from tests.mirror import until
from tests.push_server import PushServer, Reply
from tests.push_services import Apns
from tests.pushing import World
from tests.servers import eventually
from workers.push.webhook import signature

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("notify")).running() as world:
        yield world
        log = world.worker.process.log.read_text(errors="replace")
        assert "Traceback" not in log


def bodies(browser: Any) -> list[str]:
    return [each["body"] for each in browser.got]


async def test_who_is_away_gets_one_push_on_each_device(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    await world.register(bob, "phone", "apns", token="0b" * 32)
    await world.register(bob, "tablet", "fcm", token=f"fcm-token-of-{bob}:APA91")
    async with PushServer(world.authority) as hook, Clients() as connect:
        made = await world.register(bob, "bot", "webhook", url=f"{hook.url}/bob")
        a = await connect(world.site.edges[0], alice)
        ack = await a.say(bob, "hello")
        await world.settled()
        await a.say(bob, "again")
        await world.settled()
        assert bodies(browser) == ["hello", "again"]
        assert [each["badge"] for each in browser.got] == [1, 2]
        assert browser.got[0]["title"] == alice
        assert browser.got[0]["message_id"] == ack["message_id"]
        assert browser.got[0]["chat_id"] == ack["chat_id"]
        assert browser.got[0]["tag"] == browser.got[1]["tag"], "the second replaces the first"
        mine = [payload for device, _, payload in world.apns.taken if device == "0b" * 32]
        assert [each["aps"]["badge"] for each in mine] == [1, 2]
        messages = [each for each in world.fcm.taken if bob in each["token"]]
        assert [each["notification"]["body"] for each in messages] == ["hello", "again"]
        assert len(hook.requests) == 2
        head, body = hook.requests[0].headers, hook.requests[0].body
        signed = signature(made["secret"], head["webhook-id"], int(head["webhook-timestamp"]), body)
        assert head["webhook-signature"] == signed
        assert json.loads(body)["user_id"] == bob


async def test_what_nobody_with_a_device_gets_is_not_kept_waiting(world: World) -> None:
    """All messages waited 2 s in hand, which was the most that a worker could take on."""
    alice, bob, carol = names("alice", "bob", "carol")
    browser = await world.browser(bob)
    planned, none = (
        world.metric("notify_messages_total"),
        world.metric("notify_skipped_total", reason="no_device"),
    )
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        for _ in range(3):
            await a.say(carol, "to nobody")
        await a.say(bob, "to a browser")
        await world.settled()
    assert bodies(browser) == ["to a browser"]
    assert world.metric("notify_messages_total") == planned + 1
    assert world.metric("notify_skipped_total", reason="no_device") == none + 3


async def test_who_is_here_or_wrote_it_gets_none(world: World) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    browsers = [await world.browser(each) for each in (alice, bob, carol)]
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b = await connect(world.site.edges[1], bob)
        hidden = await b.ask("presence_set", status="invisible")
        assert hidden["type"] == "result"
        group = await a.group(bob, carol)
        before = world.metric("notify_skipped_total", reason="online")
        await a.tell(group["group_id"], "to all")
        await a.say(bob, "to bob")
        await a.say(alice, "to myself")
        await world.settled()
        assert [bodies(each) for each in browsers] == [[], [], [f"{alice}: to all"]]
        assert browsers[2].got[0]["title"] == "a group"
        assert world.metric("notify_skipped_total", reason="online") == before + 2
        away = await b.ask("presence_set", status="away")
        assert away["type"] == "result"
        await a.say(bob, "while away")
        await world.settled()
        assert bodies(browsers[1]) == []
        await b.close()

        async def gone() -> bool:
            found = await a.ask("presence_subscribe", users=[bob])
            return bool(found["presence"][bob]["status"] == "offline")

        await until(gone)
        await a.say(bob, "now")
        await world.settled()
        assert bodies(browsers[1]) == ["now"]


async def test_a_message_that_is_deleted_at_once_is_not_pushed(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        ack = await a.say(bob, "a mistake")
        chat = {"chat_id": ack["chat_id"], "message_id": ack["message_id"]}
        assert (await a.write("delete", **chat))["type"] == "ack"
        ack = await a.say(bob, "a typo")
        chat = {"chat_id": ack["chat_id"], "message_id": ack["message_id"]}
        assert (await a.write("edit", content="corrected", **chat))["type"] == "ack"
        await world.settled()
        assert bodies(browser) == ["corrected"]


async def test_mute_and_mentions(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        group = await a.group(bob)
        dm = (await a.say(bob, "before"))["chat_id"]
        await world.settled()
        changed = await world.change(bob, mute={dm: True, group["chat_id"]: True})
        assert changed["muted"] == sorted([dm, group["chat_id"]])
        await a.say(bob, "muted")
        await a.tell(group["group_id"], "muted too")
        await a.say(bob, "for you", mentions=[bob])
        await a.tell(group["group_id"], "and you", mentions=[bob])
        await world.settled()
        assert bodies(browser) == ["before", "for you", f"{alice}: and you"]
        assert [each["mention"] for each in browser.got] == [False, True, True]
        changed = await world.change(bob, mentions=False)
        assert changed["muted"] == sorted([dm, group["chat_id"]]), "what is left out stays"
        await a.say(bob, "you again", mentions=[bob])
        await world.settled()
        changed = await world.change(bob, mute={dm: False})
        assert changed["muted"] == [group["chat_id"]]
        await a.say(bob, "heard")
        await world.settled()
        assert bodies(browser)[3:] == ["heard"]


async def test_quiet_hours(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    now = datetime.now(UTC) + timedelta(hours=9)  # Tokyo has no summer time

    def at(hours: int) -> str:
        return f"{now + timedelta(hours=hours):%H:%M}"

    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        quiet = {"start": at(-1), "end": at(1), "zone": "Asia/Tokyo"}
        assert (await world.change(bob, quiet_hours=quiet))["quiet_hours"] == quiet
        await a.say(bob, "at night", mentions=[bob])
        await world.settled()
        await world.change(bob, quiet_hours={"start": at(1), "end": at(2), "zone": "Asia/Tokyo"})
        await a.say(bob, "by day")
        await world.settled()
        await world.change(bob, quiet_hours=quiet)
        assert (await world.change(bob, quiet_hours=None))["quiet_hours"] is None
        await a.say(bob, "no nights")
        await world.settled()
        assert bodies(browser) == ["by day", "no nights"]


async def test_do_not_disturb_outlasts_the_connection(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b = await connect(world.site.edges[1], bob)
        await b.ask("presence_set", status="dnd")
        await a.say(bob, "here")
        await b.close()

        async def gone() -> bool:
            found = await a.ask("presence_subscribe", users=[bob])
            return bool(found["presence"][bob]["status"] == "offline")

        await until(gone)
        await a.say(bob, "not now")
        await world.settled()
        assert bodies(browser) == []


async def test_content_is_left_out_as_the_device_or_the_user_wants(world: World) -> None:
    alice, bob = names("alice", "bob")
    open_, shut = await world.browser(bob, "a"), await world.browser(bob, "b", content=False)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        await a.say(bob, "secret")
        await world.settled()
        await world.change(bob, content=False)
        await a.say(bob, "secret")
        await world.settled()
        assert bodies(open_) == ["secret", "New message"]
        assert bodies(shut) == ["New message", "New message"]
        assert "secret" not in json.dumps(shut.got)
        async for each in world.database["pushes"].find({"user": bob}):
            assert "secret" not in str(each), "the queue holds no content"


async def test_a_group_of_sixty_is_told_of_together(world: World) -> None:
    alice, bob, carol, dave, *others = names("alice", "bob", "carol", "dave", *["m"] * 56)
    browser, mentioned = await world.browser(bob), await world.browser(carol)
    important = await world.browser(dave, vip=True)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        group = await a.group(bob, carol, dave, *others)
        assert group["member_count"] == 60
        for number in range(5):
            asked = {"mentions": [carol]} if number == 2 else {}
            last = await a.tell(group["group_id"], f"number {number}", **asked)
        await world.settled()
        assert bodies(browser) == [f"{alice}: number 4"]
        assert (browser.got[0]["unread"], browser.got[0]["seq"]) == (5, last["seq"])
        assert [each["mention"] for each in mentioned.got] == [True, False]
        assert bodies(important) == [f"{alice}: number {number}" for number in range(5)]
        await a.tell(group["group_id"], "later")
        await world.settled()
        assert bodies(browser) == [f"{alice}: number 4", f"{alice}: later"]


async def test_who_leaves_and_who_joins(world: World) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    browsers = [await world.browser(each) for each in (bob, carol)]
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        group = (await a.group(bob))["group_id"]
        await a.tell(group, "first")
        await world.settled()
        assert (await a.ask("group_add", group_id=group, users=[carol]))["type"] == "result"
        await a.tell(group, "second")
        await world.settled()
        assert (await a.ask("group_remove", group_id=group, users=[bob]))["type"] == "result"
        await a.tell(group, "third")
        await world.settled()
        told = [[text.partition(": ")[2] for text in bodies(each)] for each in browsers]
        assert told == [["first", "second"], ["second", "third"]]


async def test_numbers_for_operators(world: World) -> None:
    """All that `docs/operations.md` names."""
    for provider in ("apns", "fcm", "webpush", "webhook"):
        for name in ("waiting", "overdue_seconds", "broken_servers", "in_flight", "seconds_count"):
            assert world.metric(f"push_{name}", provider=provider) >= 0
        for result in ("sent", "again", "expired", "refused", "gone", "dropped", "failed"):
            assert world.metric("push_results_total", provider=provider, result=result) >= 0
    for reason in ("online", "no_device", "muted", "quiet", "read", "deleted", "old"):
        assert world.metric("notify_skipped_total", reason=reason) >= 0
    for name in ("notify_held", "notify_messages_total", "push_planned_total"):
        assert world.metric(name) >= 0
    assert world.metric("service_questions_total", result="answered") >= 0
    assert world.metric("consumer_pending_events", consumer="notify") >= 0
    for name in ("dead_letters_total", "retries_total"):
        assert world.metric(f"consumer_{name}", consumer="notify") == 0
    assert world.metric("notify_unreadable_total") == 0


async def test_news_that_are_read_in_the_window_are_not_pushed(world: World) -> None:
    alice, bob, *others = names("alice", "bob", *["m"] * 58)
    browser = await world.browser(bob)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        group = await a.group(bob, *others)
        ack = await a.tell(group["group_id"], "read")

        async def planned() -> bool:
            found = await world.database["push_chats"].find_one({"user": bob})
            return found is not None

        await until(planned)
        b = await connect(world.site.edges[1], bob)
        await b.ask("read_receipt", chat_id=ack["chat_id"], last_read_msg_id=ack["message_id"])
        await b.close()
        await world.settled()
        assert bodies(browser) == []


async def test_a_large_channel_pushes_mentions_and_vips_only(world: World) -> None:
    alice, bob, carol, dave, stranger = names("alice", "bob", "carol", "dave", "stranger")
    browsers = {user: await world.browser(user) for user in (bob, carol, stranger)}
    browsers[dave] = await world.browser(dave, vip=True)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        members = [f"{alice}-{number}" for number in range(600)]
        group = await a.group(bob, carol, dave, *members, kind="channel")
        assert group["member_count"] == 604
        await a.tell(group["group_id"], "hear", mentions=[carol, stranger, alice])
        await world.settled()
        assert bodies(browsers[bob]) == []
        assert bodies(browsers[stranger]) == [], "who is mentioned must be a member"
        assert bodies(browsers[carol]) == bodies(browsers[dave]) == [f"{alice}: hear"]


async def test_tokens_that_are_gone_are_removed_unless_registered_again(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    phone, tablet = "ba" * 32, "bc" * 32
    await world.register(bob, "phone", "apns", token=phone)
    await world.register(bob, "tablet", "apns", token=tablet)
    world.apns.specials[phone] = lambda _: Apns.no(410, "Unregistered", timestamp=2**45)
    world.apns.specials[tablet] = lambda _: Apns.no(410, "Unregistered", timestamp=5)
    world.push.specials[browser.path] = lambda _: Reply(410)
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        await a.say(bob, "hello")
        await world.settled()
        _, found = await world.call("GET", "/v1/devices", bob)
        assert [each["device"] for each in found["devices"]] == ["tablet"]
        before = len(world.apns.requests)
        del world.apns.specials[tablet]
        await a.say(bob, "again")
        await world.settled()
        assert len(world.apns.requests) == before + 1


async def test_a_provider_that_fails_is_asked_again_and_holds_up_no_other(world: World) -> None:
    alice, bob = names("alice", "bob")
    browser = await world.browser(bob)
    token = f"fcm-token-of-{bob}:APA91"
    await world.register(bob, "phone", "fcm", token=token)
    answers = [
        world.fcm.no(503, "UNAVAILABLE", fcm="UNAVAILABLE"),
        world.fcm.no(429, "RESOURCE_EXHAUSTED", fcm="QUOTA_EXCEEDED")._replace(
            headers={"retry-after": "1"}
        ),
    ]
    times: list[float] = []

    def special(_: object) -> Reply:
        times.append(datetime.now(UTC).timestamp())
        return answers.pop(0) if answers else Reply(200)

    world.fcm.specials[token] = special
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        await a.say(bob, "hello")
        await eventually(lambda: bodies(browser) == ["hello"])
        assert answers, "the other provider did not wait"
        await world.settled()
        assert len(times) == 3
        assert times[2] - times[1] >= 1.0, "Retry-After is kept"
        assert [each["token"] for each in world.fcm.taken].count(token) == 1


async def test_a_push_that_waits_is_not_sent_once_it_is_read(world: World) -> None:
    alice, bob = names("alice", "bob")
    token = f"fcm-token-of-{bob}:APA91"
    await world.register(bob, "phone", "fcm", token=token)
    asked: list[object] = []

    def special(request: object) -> Reply:
        asked.append(request)
        return world.fcm.no(503, "UNAVAILABLE", fcm="UNAVAILABLE")

    world.fcm.specials[token] = special
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        ack = await a.say(bob, "hello")
        await eventually(lambda: len(asked) == 1)
        b = await connect(world.site.edges[1], bob)
        await b.ask("read_receipt", chat_id=ack["chat_id"], last_read_msg_id=ack["message_id"])
        await world.settled()
        done = await world.database["pushes"].find_one({"user": bob})
        assert done is not None
        assert (done["outcome"], len(asked) < 3) == ("read", True)
