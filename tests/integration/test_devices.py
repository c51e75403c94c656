"""Devices and settings over HTTP: who may register what, and clear errors for the rest."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat import Clients, names
from tests.edges import new_edge
from tests.push_services import decoded, encoded
from tests.pushing import World
from tests.servers import Hikyaku, Site

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("devices")
    async with World(folder, HIKYAKU_PUSH_DEVICES="3").running() as world:
        yield world
        log = world.worker.process.log.read_text(errors="replace")
        assert "Traceback" not in log
        assert "super-secret" not in log


async def test_devices_come_and_go(world: World) -> None:
    (bob,) = names("bob")
    assert await world.call("GET", "/v1/devices", bob) == (200, {"devices": []})
    token = "c0" * 30 + "abcdef0123"
    made = await world.register(bob, "phone", "apns", token=token.upper())
    assert made.pop("registered_at") > 1_700_000_000_000
    assert made == {"device": "phone", "provider": "apns", "hint": "ef0123", "content": True}
    browser = await world.browser(bob, content=False)
    _, found = await world.call("GET", "/v1/devices", bob)
    assert [(each["device"], each["hint"]) for each in found["devices"]] == [
        ("phone", "ef0123"),
        ("web", "127.0.0.1"),
    ]
    assert browser.path not in str(found), "an endpoint is a secret"
    again = await world.register(bob, "phone", "fcm", token="fcm-token-super-secret")
    assert again["provider"] == "fcm"
    _, found = await world.call("GET", "/v1/devices", bob)
    assert [each["provider"] for each in found["devices"]] == ["fcm", "webpush"]
    assert (await world.call("DELETE", "/v1/devices/phone", bob))[0] == 200
    status, error = await world.call("DELETE", "/v1/devices/phone", bob)
    assert (status, error["code"]) == (404, "not_found")
    _, found = await world.call("GET", "/v1/devices", bob)
    assert [each["device"] for each in found["devices"]] == ["web"]


async def test_a_token_belongs_to_who_registered_it_last(world: World) -> None:
    """A phone that is handed on: its first owner's messages must not reach it."""
    ann, bob = names("ann", "bob")
    token = "d0" * 32
    await world.register(ann, "phone", "apns", token=token)
    await world.register(bob, "mine", "apns", token=token.upper())
    assert await world.call("GET", "/v1/devices", ann) == (200, {"devices": []})
    await world.register(bob, "other", "apns", token=token)
    _, found = await world.call("GET", "/v1/devices", bob)
    assert [each["device"] for each in found["devices"]] == ["other"]


async def test_a_webhook_gets_a_secret_once(world: World) -> None:
    ann, bob = names("ann", "bob")
    url = f"{world.push.url}/hook"
    first = await world.register(ann, "bot", "webhook", url=url)
    second = await world.register(bob, "bot", "webhook", url=url)
    assert first["secret"].startswith("whsec_")
    assert first["secret"] != second["secret"]
    _, found = await world.call("GET", "/v1/devices", ann)
    assert "secret" not in found["devices"][0], "both have the URL, and the secret is not shown"


GOOD_KEYS = {
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AY"
    "WXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}
ENDPOINT = "subscription.endpoint"


def webpush(endpoint: str, **keys: str) -> dict[str, Any]:
    subscription = {"endpoint": endpoint, "keys": {**GOOD_KEYS, **keys}}
    return {"device": "d", "provider": "webpush", "subscription": subscription}


def hook(url: str) -> dict[str, Any]:
    return {"device": "d", "provider": "webhook", "url": url}


BAD: list[tuple[Any, int, str, str]] = [
    (b"garbage", 400, "bad_frame", "JSON"),
    (b"[]", 400, "invalid", ""),
    ({}, 400, "invalid", "device"),
    ({"device": "d", "provider": "carrier pigeon", "token": "x"}, 400, "invalid", "provider"),
    ({"device": "a b", "provider": "apns", "token": "x"}, 400, "invalid", "device"),
    ({"device": "d" * 65, "provider": "apns", "token": "x"}, 400, "invalid", "device"),
    ({"device": "*", "provider": "apns", "token": "x"}, 400, "invalid", "device"),
    ({"device": "d", "provider": "apns"}, 400, "invalid", "token"),
    ({"device": "d", "provider": "apns", "token": "xyz"}, 400, "invalid", "token"),
    ({"device": "d", "provider": "apns", "url": "https://x/"}, 400, "invalid", "token"),
    ({"device": "d", "provider": "apns", "token": "a" * 5000}, 400, "invalid", "token"),
    ({"device": "d", "provider": "fcm", "token": "short"}, 400, "invalid", "token"),
    ({"device": "d", "provider": "fcm", "token": "x" * 30, "url": "x"}, 400, "invalid", "url"),
    ({"device": "d", "provider": "apns", "token": "x", "more": 1}, 400, "invalid", "more"),
    (b"x" * 70_000, 413, "too_large", "65536"),
    (hook("http://example.org/"), 400, "invalid", "url"),
    (hook("https://10.0.0.1/"), 400, "invalid", "url"),
    (hook("https://[::1]/"), 400, "invalid", "url"),
    (hook("https://[::ffff:10.0.0.1]/"), 400, "invalid", "url"),
    (hook("https://169.254.169.254/latest/meta-data/"), 400, "invalid", "url"),
    (hook("https://100.64.1.1/"), 400, "invalid", "url"),
    (hook("https://224.0.0.1/"), 400, "invalid", "url"),
    (hook("https://user:super-secret@example.org/"), 400, "invalid", "url"),
    (hook("https://no-such-host.invalid/"), 400, "invalid", "url"),
    (hook("https://" + "x" * 3000), 400, "invalid", "url"),
    (webpush("http://example.org/"), 400, "invalid", ENDPOINT),
    (webpush("https://192.168.1.1/push"), 400, "invalid", ENDPOINT),
    (webpush("https://[fd00:ec2::254]/push"), 400, "invalid", ENDPOINT),
    (webpush("https://127.0.0.1/", p256dh="AAAA"), 400, "invalid", "subscription.keys.p256dh"),
    (webpush("https://127.0.0.1/", auth=encoded(b"x")), 400, "invalid", "subscription.keys.auth"),
]


@pytest.mark.parametrize(("body", "status", "code", "field"), BAD)
async def test_bad_registrations_are_named(
    world: World, body: Any, status: int, code: str, field: str
) -> None:
    found, error = await world.call("POST", "/v1/devices", names("bob")[0], body)
    assert (found, error["code"]) == (status, code), error
    assert field in error["message"]
    assert not error["retryable"] or code == "unavailable"
    assert "super-secret" not in error["message"]


async def test_a_user_has_so_many_devices_and_no_more(world: World) -> None:
    (bob,) = names("bob")
    for number in range(3):
        await world.register(bob, f"d{number}", "apns", token=f"{number:x}e" * 32)
    asked = {"device": "d3", "provider": "apns", "token": "fe" * 32}
    status, error = await world.call("POST", "/v1/devices", bob, asked)
    assert (status, error["code"]) == (409, "conflict")
    assert "at most 3 devices" in error["message"]
    await world.register(bob, "d2", "apns", token="fe" * 32)


async def test_nobody_registers_without_a_token(world: World) -> None:
    edge = world.site.edges[0]
    for path in ("/v1/devices", "/v1/notifications"):
        with pytest.raises(OSError, match="401"):
            edge.get(path)


async def test_registering_counts_as_a_message(world: World) -> None:
    (bob,) = names("bob")
    asked = {"device": "d", "provider": "apns", "token": "ad" * 32}
    # At once: one after the other, a slow machine makes fewer a second than are allowed.
    answers = await asyncio.gather(
        *(world.call("POST", "/v1/devices", bob, asked) for _ in range(500))
    )
    statuses = [status for status, _ in answers]
    assert statuses.count(201) >= 60
    assert set(statuses) == {201, 429}


async def test_settings_are_kept_and_what_is_left_out_stays(world: World) -> None:
    (bob,) = names("bob")
    _, found = await world.call("GET", "/v1/notifications", bob)
    vapid = found.pop("vapid_key")
    point = world.push.vapid.public_key().public_numbers()
    assert vapid.startswith("B")
    assert len(vapid) == 87
    assert decoded(vapid)[1:33] == point.x.to_bytes(32, "big")
    assert found == {
        "content": True,
        "mentions": True,
        "quiet_hours": None,
        "muted": [],
        "providers": ["apns", "fcm", "webpush", "webhook"],
    }
    quiet = {"start": "22:00", "end": "07:00", "zone": "Europe/Zurich"}
    assert (await world.change(bob, quiet_hours=quiet, content=False))["content"] is False
    found = await world.change(bob, mentions=False)
    assert (found["quiet_hours"], found["content"], found["mentions"]) == (quiet, False, False)
    found = await world.change(bob, quiet_hours=None, content=True)
    assert (found["quiet_hours"], found["content"], found["mentions"]) == (None, True, False)
    assert await world.change(bob) == (await world.call("GET", "/v1/notifications", bob))[1]


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"content": "yes"}, "invalid", "content"),
        ({"quiet_hours": {"start": "22:00"}}, "invalid", "end"),
        (
            {"quiet_hours": {"start": "25:00", "end": "07:00", "zone": "UTC"}},
            "invalid",
            "quiet_hours.start",
        ),
        (
            {"quiet_hours": {"start": "22:00", "end": "07:00", "zone": "Middle/Earth"}},
            "invalid",
            "quiet_hours.zone",
        ),
        (
            {"quiet_hours": {"start": "22:00", "end": "07:00", "zone": "../../etc/passwd"}},
            "invalid",
            "quiet_hours.zone",
        ),
        (
            {"quiet_hours": {"start": "22:00", "end": "22:00", "zone": "UTC"}},
            "invalid",
            "quiet_hours.end",
        ),
        ({"mute": {"nonsense": True}}, "invalid", "chat_id"),
        ({"mute": {"dm.others.two": True}}, "not_member", "mute"),
        ({"mute": {"group.others": True}}, "not_member", "mute"),
        ({"mute": {f"dm.x.y{n}": True for n in range(201)}}, "invalid", "mute"),
        ({"else": 1}, "invalid", "else"),
    ],
)
async def test_bad_settings_are_named(
    world: World, fields: dict[str, Any], code: str, word: str
) -> None:
    status, error = await world.call("PUT", "/v1/notifications", names("bob")[0], fields)
    assert (status, error["code"]) == (403 if code == "not_member" else 400, code), error
    assert word in error["message"]


async def test_mute_is_one_setting_with_that_of_group_update(world: World) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        a = await connect(world.site.edges[0], alice)
        b = await connect(world.site.edges[1], bob)
        group = await a.group(bob)
        await b.ask("group_update", group_id=group["group_id"], mute=True)
        _, found = await world.call("GET", "/v1/notifications", bob)
        assert found["muted"] == [group["chat_id"]]


async def test_too_many_muted_conversations_are_refused(world: World) -> None:
    (bob,) = names("bob")
    for start in range(0, 1000, 200):
        mute = {f"dm.a{start + number}.{bob}": True for number in range(200)}
        assert (await world.call("PUT", "/v1/notifications", bob, {"mute": mute}))[0] == 200
    more = {"mute": {f"dm.b.{bob}": True}}
    status, error = await world.call("PUT", "/v1/notifications", bob, more)
    assert (status, "at most 1000" in error["message"]) == (409, True)
    less = {"mute": {f"dm.b.{bob}": True, f"dm.a1.{bob}": False}}
    assert (await world.call("PUT", "/v1/notifications", bob, less))[0] == 200


async def test_a_provider_that_is_not_configured_is_refused(site: Site, tmp_path: Path) -> None:
    env = {
        "HIKYAKU_HOME": str(tmp_path / "home"),
        "HIKYAKU_NATS_URL": site.nats.url,
        "HIKYAKU_MONGO_URL": site.mongo.url,
        "HIKYAKU_WEBHOOKS": "on",
    }
    worker = Hikyaku(tmp_path / "notify", ["worker", "notify"], env)
    edge = new_edge(site, tmp_path / "edge")
    try:
        await worker.start()
        await edge.start()
        world = World(tmp_path)
        world.site = site
        asked = {"device": "d", "provider": "apns", "token": "ab" * 32}
        status, error = await world.call("POST", "/v1/devices", names("bob")[0], asked)
        assert (status, error["code"]) == (400, "invalid")
        assert error["message"].startswith("provider: this site does not push by apns")
        assert error["message"].endswith("it has: webhook")
        _, found = await world.call("GET", "/v1/notifications", names("bob")[0])
        assert (found["providers"], found["vapid_key"]) == (["webhook"], None)
    finally:
        worker.process.end(9)
        edge.process.end(9)


async def test_a_key_that_is_none_ends_the_worker_with_its_name(site: Site, tmp_path: Path) -> None:
    bad = tmp_path / "bad.p8"
    bad.write_text("super-secret nonsense")
    env = {
        "HIKYAKU_HOME": str(tmp_path / "home"),
        "HIKYAKU_NATS_URL": site.nats.url,
        "HIKYAKU_MONGO_URL": site.mongo.url,
        "HIKYAKU_APNS_KEY": str(bad),
        "HIKYAKU_APNS_KEY_ID": "K",
        "HIKYAKU_APNS_TEAM_ID": "T",
        "HIKYAKU_APNS_TOPIC": "org.example",
    }
    worker = Hikyaku(tmp_path / "notify", ["worker", "notify"], env)
    worker.process.start()
    worker.process._process.wait(30)  # type: ignore[union-attr]
    said = worker.process.log.read_text()
    assert f"hikyaku: HIKYAKU_APNS_KEY: {bad}: it is no such key" in said
    assert "Traceback" not in said
    assert "super-secret" not in said
