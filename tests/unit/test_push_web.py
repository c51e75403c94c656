"""Web Push and webhooks against real servers that check what their specifications ask for."""

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.notify import Address, Subscription, SubscriptionKeys
from workers.push import keys, webhook, webpush
from workers.push.config import PushConfig
from workers.push.provider import Gone, Later, Note, Outcome, Refused, Sent, Unfit

from ..push_notes import LOOPBACK, NOTE, http, push
from ..push_server import Authority, PushServer, Reply, Request
from ..push_services import (
    Browser,
    PushService,
    decoded,
    decrypt,
    encoded,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


# --- Web Push -------------------------------------------------------------------------------------


def address_of(browser: Browser) -> Address:
    found = browser.subscription
    subscription = Subscription(endpoint=found["endpoint"], keys=SubscriptionKeys(**found["keys"]))
    return Address(subscription=subscription)


class WithWebPush:
    def __init__(self, service: PushService, provider: webpush.WebPush):
        self.service = service
        self.provider = provider
        self.browser = service.browser("bob")

    async def send(self, note: Note = NOTE) -> Outcome:
        return await self.provider.send(push(address_of(self.browser), note))


@pytest.fixture
async def with_webpush(authority: Authority, tmp_path: Path) -> AsyncIterator[WithWebPush]:
    async with PushService(authority, tmp_path) as service, http(LOOPBACK) as client:
        assert isinstance(service, PushService)
        config = PushConfig(
            vapid_key=str(service.key_file), vapid_subject="mailto:operator@example.org"
        )
        yield WithWebPush(service, webpush.WebPush(config, client, LOOPBACK))


async def test_a_browser_decrypts_what_it_is_sent(with_webpush: WithWebPush) -> None:
    await with_webpush.provider.check(address_of(with_webpush.browser))
    assert await with_webpush.send() == Sent()
    assert await with_webpush.send() == Sent()
    got, again = with_webpush.browser.got
    assert got == again
    assert (got["title"], got["body"], got["tag"]) == (
        "alice",
        "hello 你好",
        "collapse-collapse-collap",
    )
    assert (got["chat_id"], got["unread"], got["badge"]) == (NOTE.chat_id, 2, 3)
    first, second = with_webpush.service.requests
    assert first.headers["ttl"] == "3600"
    assert first.headers["topic"] == "collapse-collapse-collap"
    assert first.headers["authorization"] == second.headers["authorization"]
    assert first.body != second.body, "key and salt are new each time"
    assert b"hello" not in first.body
    assert NOTE.chat_id not in str(first.headers)


async def test_the_longest_content_fits(with_webpush: WithWebPush) -> None:
    long = NOTE._replace(content="\x01" * 200, chat_name="名" * 128, chat_kind="group")
    assert await with_webpush.send(long) == Sent()
    assert len(with_webpush.service.requests[0].body) <= 4096


def test_the_example_of_rfc_8291() -> None:
    """Appendix A."""
    plain = b"When I grow up, I want to be a watermelon"
    receiver = decoded(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    )
    sender = ec.derive_private_key(
        int.from_bytes(decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"),
        ec.SECP256R1(),
    )
    made = webpush.encrypt(
        plain,
        receiver,
        decoded("BTBZMqHH6r4Tts7J_aSIgg"),
        key=sender,
        salt=decoded("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert encoded(made) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
        "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
        "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    private = ec.derive_private_key(
        int.from_bytes(decoded("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big"),
        ec.SECP256R1(),
    )
    assert decrypt(made, private, decoded("BTBZMqHH6r4Tts7J_aSIgg")) == plain


def test_what_does_not_fit_into_one_record_is_refused() -> None:
    browser = ec.generate_private_key(ec.SECP256R1())
    point = keys.point_of(browser.public_key())
    most = webpush.MAX_PLAIN_BYTES
    assert len(webpush.encrypt(b"x" * most, point, b"a" * 16)) == 4096
    with pytest.raises(ValueError, match="do not fit"):
        webpush.encrypt(b"x" * (most + 1), point, b"a" * 16)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(404), Gone("404")),
        (Reply(410), Gone("410")),
        (Reply(400), Refused("400")),
        (Reply(403), Refused("403")),
        (Reply(413), Refused("413")),
        (Reply(429, headers={"retry-after": "30"}), Later("429", 30.0, fault=False)),
        (Reply(503), Later("503")),
        (Reply(301, headers={"location": "https://127.0.0.1:1/"}), Refused("301")),
    ],
)
async def test_push_services_answer(
    with_webpush: WithWebPush, reply: Reply, expected: Outcome
) -> None:
    with_webpush.service.specials[with_webpush.browser.path] = lambda _: reply
    assert await with_webpush.send() == expected
    assert len(with_webpush.service.requests) == 1, "no redirect is followed"


BAD_KEYS: list[tuple[dict[str, str], str]] = [
    ({"p256dh": "AAAA"}, "subscription.keys.p256dh"),
    ({"p256dh": encoded(b"\x04" + b"x" * 64)}, "subscription.keys.p256dh"),
    ({"p256dh": "not base64!"}, "subscription.keys.p256dh"),
    ({"auth": encoded(b"short")}, "subscription.keys.auth"),
    ({"auth": "%%%"}, "subscription.keys.auth"),
]


@pytest.mark.parametrize(("wrong", "field"), BAD_KEYS)
async def test_bad_keys_are_refused_by_name(
    with_webpush: WithWebPush, wrong: dict[str, str], field: str
) -> None:
    found = with_webpush.browser.subscription
    subscription = Subscription(
        endpoint=found["endpoint"], keys=SubscriptionKeys(**{**found["keys"], **wrong})
    )
    address = Address(subscription=subscription)
    with pytest.raises(Unfit) as caught:
        await with_webpush.provider.check(address)
    assert caught.value.field == field


# --- webhook --------------------------------------------------------------------------------------


def test_the_example_of_standard_webhooks() -> None:
    made = webhook.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("http2", [True, False])
async def test_a_webhook_is_signed(authority: Authority, http2: bool) -> None:
    async with PushServer(authority, http2=http2) as server, http(LOOPBACK) as client:
        provider = webhook.Webhook("webhook", client, LOOPBACK)
        address = Address(url=f"{server.url}/hook?x=1", secret=webhook.new_secret())
        await provider.check(address)
        assert await provider.send(push(address)) == Sent()
        assert await provider.send(push(address)) == Sent()
        first, second = server.requests
        assert first.path == "/hook?x=1"
        assert first.version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        at = int(first.headers["webhook-timestamp"])
        assert abs(at - time.time()) < 10
        assert first.headers["webhook-signature"] == webhook.signature(
            address.secret, first.headers["webhook-id"], at, first.body
        )
        body = json.loads(first.body)
        assert (body["type"], body["user_id"], body["content"]) == ("push", "bob", "hello 你好")
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: Reply(204), Sent()),
        (lambda _: Reply(410), Gone("410")),
        (lambda _: Reply(429, headers={"retry-after": "3"}), Later("429", 3.0, fault=False)),
        (lambda _: Reply(500), Later("500")),
        (lambda _: Reply(302, headers={"location": "https://127.0.0.1:1/"}), Refused("302")),
        (lambda _: Reply(400), Refused("400")),
    ],
)
async def test_webhooks_answer(
    authority: Authority, answer: Callable[[Request], Reply], expected: Outcome
) -> None:
    async with PushServer(authority) as server, http(LOOPBACK) as client:

        async def answered(request: Request) -> Reply:
            return answer(request)

        server.answer = answered
        provider = webhook.Webhook("webhook", client, LOOPBACK)
        address = Address(url=server.url, secret="whsec_eA==")
        assert await provider.send(push(address)) == expected
        assert len(server.requests) == 1


async def test_an_endless_answer_is_cut_off(authority: Authority) -> None:
    async with PushServer(authority, http2=False) as server, http(LOOPBACK) as client:

        async def endless(_: Request) -> Reply:
            return Reply(200, b"x" * 1_000_000)

        server.answer = endless
        provider = webhook.Webhook("webhook", client, LOOPBACK)
        outcome = await provider.send(push(Address(url=server.url, secret="x")))
        assert isinstance(outcome, Later)


async def test_a_certificate_nobody_trusts_is_no_answer(tmp_path: Path) -> None:
    async with PushServer(Authority(tmp_path / "other")) as server, http(LOOPBACK) as client:
        provider = webhook.Webhook("webhook", client, LOOPBACK)
        outcome = await provider.send(push(Address(url=server.url, secret="x")))
        assert isinstance(outcome, Later)
        assert server.requests == []
