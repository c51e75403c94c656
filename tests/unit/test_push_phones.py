"""APNs and FCM against real HTTP/2 servers that answer as their documents say."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.notify import Address
from workers.push import apns, fcm, webpush
from workers.push.config import PushConfig
from workers.push.provider import Gone, Later, Note, Outcome, Refused, Sent, Unfit, Unusable

from ..push_notes import LOOPBACK, NOTE, http, push
from ..push_server import Authority, Fault, Reply
from ..push_services import (
    KEY_ID,
    TEAM,
    TOPIC,
    Apns,
    Fcm,
    pem,
)

pytestmark = pytest.mark.anyio

TOKEN = "0a" * 32


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


# --- APNs -----------------------------------------------------------------------------------------


class WithApns:
    def __init__(self, service: Apns, provider: apns.Apns):
        self.service = service
        self.provider = provider

    async def send(self, token: str = TOKEN, note: Note = NOTE) -> Outcome:
        return await self.provider.send(push(Address(token=token), note))

    async def sent(self, token: str) -> None:
        """Send; a second try is for a connection that ends just now."""
        outcomes = [await self.send(token)]
        while outcomes[-1] != Sent():
            assert len(outcomes) < 3, outcomes
            outcomes.append(await self.send(token))

    async def answered(self, reply: Reply | Fault) -> Outcome:
        self.service.specials[TOKEN] = lambda _: reply
        return await self.send()


@pytest.fixture
async def with_apns(authority: Authority, tmp_path: Path) -> AsyncIterator[WithApns]:
    async with Apns(authority, tmp_path) as service, http() as client:
        assert isinstance(service, Apns)
        config = PushConfig(
            apns_key=str(service.key_file),
            apns_key_id=KEY_ID,
            apns_team_id=TEAM,
            apns_topic=TOPIC,
            apns_url=service.url,
        )
        yield WithApns(service, apns.Apns(config, client))


async def test_apns_takes_a_push(with_apns: WithApns) -> None:
    before = int(time.time())
    assert await with_apns.send() == Sent()
    assert await with_apns.send() == Sent()
    (token, head, payload), (_, again, _) = with_apns.service.taken
    assert token == TOKEN
    assert payload["aps"] == {
        "alert": {"title": "alice", "body": "hello 你好"},
        "badge": 3,
        "sound": "default",
        "thread-id": "collapse-collapse-collap",
        "mutable-content": 1,
    }
    assert (payload["chat_id"], payload["message_id"], payload["seq"]) == (NOTE.chat_id, "123", 7)
    assert head["apns-collapse-id"] == "collapse-collapse-collap"
    assert before + 3600 <= int(head["apns-expiration"]) <= int(time.time()) + 3600
    assert head["apns-id"] == again["apns-id"], "the same message and device have one id"
    assert head["authorization"] == again["authorization"], "a provider token is used again"
    assert {each.version for each in with_apns.service.requests} == {"HTTP/2"}
    assert with_apns.service.connections == 1


async def test_content_is_left_out_where_it_must_be(with_apns: WithApns) -> None:
    await with_apns.send(note=NOTE._replace(content="", chat_kind="group", chat_name="Team"))
    (_, _, payload) = with_apns.service.taken[0]
    assert payload["aps"]["alert"] == {"title": "Team", "body": "alice: New message"}
    assert "hello" not in json.dumps(payload)


@pytest.mark.parametrize(
    ("status", "reason", "fields", "expected"),
    [
        (400, "BadDeviceToken", {}, Gone("400 BadDeviceToken")),
        (400, "DeviceTokenNotForTopic", {}, Refused("400 DeviceTokenNotForTopic")),
        (400, "TopicDisallowed", {}, Refused("400 TopicDisallowed")),
        (403, "InvalidProviderToken", {}, Later("403 InvalidProviderToken")),
        (
            410,
            "Unregistered",
            {"timestamp": 1454948015990},
            Gone("410 Unregistered", 1454948015990),
        ),
        (410, "ExpiredToken", {"timestamp": 5}, Gone("410 ExpiredToken", 5)),
        (413, "PayloadTooLarge", {}, Refused("413 PayloadTooLarge")),
        (429, "TooManyRequests", {}, Later("429 TooManyRequests", None, fault=False)),
        (429, "TooManyProviderTokenUpdates", {}, Later("429 TooManyProviderTokenUpdates")),
        (500, "InternalServerError", {}, Later("500 InternalServerError")),
        (503, "ServiceUnavailable", {}, Later("503 ServiceUnavailable")),
        (503, "Shutdown", {}, Later("503 Shutdown")),
    ],
)
async def test_apns_answers(
    with_apns: WithApns, status: int, reason: str, fields: dict[str, Any], expected: Outcome
) -> None:
    assert await with_apns.answered(Apns.no(status, reason, **fields)) == expected


async def test_retry_after_is_heard(with_apns: WithApns) -> None:
    reply = Apns.no(503, "ServiceUnavailable")._replace(headers={"retry-after": "17"})
    assert await with_apns.answered(reply) == Later("503 ServiceUnavailable", 17.0)
    for text in ("Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-5", "0x10"):
        reply = reply._replace(headers={"retry-after": text})
        assert await with_apns.answered(reply) == Later("503 ServiceUnavailable", None)
    reply = reply._replace(headers={"retry-after": formatdate(time.time() + 90, usegmt=True)})
    outcome = await with_apns.answered(reply)
    assert isinstance(outcome, Later)
    assert outcome.after_s == pytest.approx(90, abs=5)


async def test_an_expired_provider_token_is_made_anew_not_too_often(
    with_apns: WithApns, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await with_apns.send() == Sent()
    expired = Apns.no(403, "ExpiredProviderToken")
    assert await with_apns.answered(expired) == Later("403 ExpiredProviderToken", None)
    now = time.time()
    monkeypatch.setattr("workers.push.apns.time.time", lambda: now + 21 * 60)
    assert await with_apns.answered(expired) == Later("403 ExpiredProviderToken", 0.0, fault=False)
    del with_apns.service.specials[TOKEN]
    await with_apns.send()
    tokens = [each.headers["authorization"] for each in with_apns.service.requests]
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3]
    made = jwt.decode(tokens[3].split()[1], options={"verify_signature": False})
    assert made["iat"] == int(now) + 21 * 60


async def test_a_provider_token_is_refreshed_before_apple_refuses_it(
    with_apns: WithApns, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for minutes in (0, 19, 44, 46, 60, 92):
        monkeypatch.setattr("workers.push.apns.time.time", lambda at=now + minutes * 60: at)
        await with_apns.send()
    tokens = [each.headers["authorization"] for each in with_apns.service.requests]
    assert [tokens.index(each) for each in tokens] == [0, 0, 0, 3, 3, 5]


@pytest.mark.parametrize("fault", [Fault.GOAWAY, Fault.RESET, Fault.DROP, Fault.HANG])
async def test_faults_of_a_connection_are_told_and_the_next_push_goes(
    with_apns: WithApns, fault: Fault
) -> None:
    assert await with_apns.send() == Sent()
    outcome = await with_apns.answered(fault)
    assert isinstance(outcome, Later)
    assert outcome.fault
    with_apns.service.specials.clear()
    await with_apns.sent(TOKEN)


async def test_goaway_among_many_loses_none_that_was_sent(with_apns: WithApns) -> None:
    tokens = [f"{number:064x}" for number in range(40)]
    with_apns.service.specials[tokens[20]] = lambda _: Fault.GOAWAY
    outcomes = await asyncio.gather(*(with_apns.send(token) for token in tokens))
    taken = {token for token, _, _ in with_apns.service.taken}
    for token, outcome in zip(tokens, outcomes, strict=True):
        if outcome == Sent():
            assert token in taken
        else:
            assert isinstance(outcome, Later)
    with_apns.service.specials.clear()
    for token in tokens:
        if token not in taken:
            await with_apns.sent(token)


async def test_nobody_there(with_apns: WithApns) -> None:
    await with_apns.service.stop()
    outcome = await with_apns.send()
    assert isinstance(outcome, Later)
    assert outcome.fault


@pytest.mark.parametrize("token", ["", "xyz", "0a" * 31, "0a" * 101, "0a" * 32 + "/../x"])
async def test_apns_refuses_what_is_no_token(with_apns: WithApns, token: str) -> None:
    with pytest.raises(Unfit, match=r"^token: "):
        await with_apns.provider.check(Address(token=token))


def test_keys_that_are_none_are_named(tmp_path: Path) -> None:
    missing, wrong, bad = tmp_path / "none", tmp_path / "rsa", tmp_path / "bad"
    wrong.write_bytes(pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    bad.write_text("secret nonsense")
    client: Any = None
    for path in (missing, wrong, bad):
        with pytest.raises(Unusable, match=f"^HIKYAKU_APNS_KEY: {path}: ") as caught:
            apns.Apns(PushConfig(apns_key=str(path)), client)
        assert "secret" not in str(caught.value)
        with pytest.raises(Unusable, match=f"^HIKYAKU_VAPID_KEY: {path}: "):
            webpush.WebPush(PushConfig(vapid_key=str(path)), client, LOOPBACK)
    for content in ("nonsense", "{}", '{"project_id": "x"}', "[]"):
        bad.write_text(content)
        with pytest.raises(Unusable, match=f"^HIKYAKU_FCM_ACCOUNT: {bad}: "):
            fcm.Fcm(PushConfig(fcm_account=str(bad)), client)


# --- FCM ------------------------------------------------------------------------------------------

FCM_TOKEN = "fcm-registration-token_1:APA91b"


class WithFcm:
    def __init__(self, service: Fcm, provider: fcm.Fcm):
        self.service = service
        self.provider = provider

    async def send(self) -> Outcome:
        return await self.provider.send(push(Address(token=FCM_TOKEN)))

    async def answered(self, reply: Reply | Fault) -> Outcome:
        self.service.specials[FCM_TOKEN] = lambda _: reply
        return await self.send()


@pytest.fixture
async def with_fcm(authority: Authority, tmp_path: Path) -> AsyncIterator[WithFcm]:
    async with Fcm(authority, tmp_path) as service, http() as client:
        config = PushConfig(fcm_account=str(service.account_file), fcm_url=service.url)
        yield WithFcm(service, fcm.Fcm(config, client))


async def test_fcm_takes_a_push(with_fcm: WithFcm) -> None:
    outcomes = await asyncio.gather(*(with_fcm.send() for _ in range(5)))
    assert set(outcomes) == {Sent()}
    assert with_fcm.service.grants == 1, "one access token for all"
    message = with_fcm.service.taken[0]
    assert message["token"] == FCM_TOKEN
    assert message["notification"] == {"title": "alice", "body": "hello 你好"}
    assert message["data"]["chat_id"] == NOTE.chat_id
    assert message["data"]["sender"] == "alice"
    assert message["android"] == {
        "collapse_key": "collapse-collapse-collap",
        "priority": "HIGH",
        "ttl": "3600s",
        "notification": {"tag": "collapse-collapse-collap", "notification_count": 3},
    }


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Fcm.no(404, "NOT_FOUND", fcm="UNREGISTERED"), Gone("404 UNREGISTERED")),
        (
            Fcm.no(
                400,
                "INVALID_ARGUMENT",
                "The registration token is not a valid FCM registration token",
                fcm="INVALID_ARGUMENT",
            ),
            Gone("400 INVALID_ARGUMENT"),
        ),
        (
            Fcm.no(400, "INVALID_ARGUMENT", "Invalid value at 'message.data[0].value'"),
            Refused("400 INVALID_ARGUMENT"),
        ),
        (
            Fcm.no(403, "PERMISSION_DENIED", fcm="SENDER_ID_MISMATCH"),
            Refused("403 SENDER_ID_MISMATCH"),
        ),
        (
            Fcm.no(429, "RESOURCE_EXHAUSTED", fcm="QUOTA_EXCEEDED"),
            Later("429 QUOTA_EXCEEDED", 60.0, fault=False),
        ),
        (
            Fcm.no(429, "RESOURCE_EXHAUSTED", fcm="QUOTA_EXCEEDED")._replace(
                headers={"retry-after": "5"}
            ),
            Later("429 QUOTA_EXCEEDED", 5.0, fault=False),
        ),
        (
            Fcm.no(401, "UNAUTHENTICATED", fcm="THIRD_PARTY_AUTH_ERROR"),
            Later("401 THIRD_PARTY_AUTH_ERROR"),
        ),
        (Fcm.no(500, "INTERNAL", fcm="INTERNAL"), Later("500 INTERNAL")),
        (
            Fcm.no(503, "UNAVAILABLE", fcm="UNAVAILABLE")._replace(headers={"retry-after": "9"}),
            Later("503 UNAVAILABLE", 9.0),
        ),
        (Reply(502, b"<html>Bad gateway</html>"), Later("502")),
    ],
)
async def test_fcm_answers(with_fcm: WithFcm, reply: Reply, expected: Outcome) -> None:
    assert await with_fcm.answered(reply) == expected


async def test_an_access_token_that_is_refused_or_old_is_replaced(
    with_fcm: WithFcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await with_fcm.send() == Sent()
    with_fcm.service.access_token = "second"
    assert await with_fcm.send() == Later("401 UNAUTHENTICATED")
    assert await with_fcm.send() == Sent()
    assert with_fcm.service.grants == 2
    now = time.monotonic()
    monkeypatch.setattr("workers.push.fcm.time.monotonic", lambda: now + 3599 - 299)
    assert await with_fcm.send() == Sent()
    assert with_fcm.service.grants == 3, "replaced before it ends"


async def test_without_an_access_token_nothing_is_sent(with_fcm: WithFcm) -> None:
    with_fcm.service.refuse_grants = 1
    outcome = await with_fcm.send()
    assert isinstance(outcome, Later)
    assert "no access token" in outcome.reason
    assert with_fcm.service.taken == []
    assert await with_fcm.send() == Sent()
