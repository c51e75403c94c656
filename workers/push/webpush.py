"""Web Push (RFC 8030) to browsers: encrypted for the browser (RFC 8291), signed by the site (8292).

The push service, a server that the user's browser has chosen, sees neither content nor chat.
"""

import os
import time
from collections import OrderedDict
from typing import NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.notify import Address, Subscription

from . import keys
from .config import PushConfig
from .guard import Guard, parsed
from .http import Answer, Http, NoAnswer
from .provider import Gone, Later, Outcome, Push, Refused, Sent, Unfit, data_of, text_of

RECORD_BYTES = 4096
SIGNED_S = 12 * 3600
"""RFC 8292 allows 24 hours at most."""

RENEWED_S = 6 * 3600
ORIGINS = 1000

_HEAD_BYTES = 16 + 4 + 1 + 65
MAX_PLAIN_BYTES = RECORD_BYTES - _HEAD_BYTES - 16 - 1
"""What a push service must take is 4,096 bytes (RFC 8030, section 7.2)."""


class _Signed(NamedTuple):
    text: str
    until: float


class WebPush:
    """Pushes to subscriptions made with the site's key. Raises `Unusable` for a bad key."""

    name = "webpush"
    one_server = False

    def __init__(self, config: PushConfig, http: Http, guard: Guard):
        """`http` must be guarded: the endpoints are the users'."""
        self._http = http
        self._guard = guard
        self._key = keys.p256_key(config.vapid_key, "HIKYAKU_VAPID_KEY")
        self._subject = config.vapid_subject
        self._text = config.text
        self._signed: OrderedDict[str, _Signed] = OrderedDict()
        self.public_key = keys.encoded(keys.point_of(self._key.public_key()))

    def origin(self, address: Address) -> str:
        """The push service."""
        return parsed(_subscription(address).endpoint, "subscription.endpoint").origin

    async def check(self, address: Address) -> None:
        """An endpoint that may be reached, and keys that are some."""
        subscription = _subscription(address)
        receiver_of(subscription)
        url = parsed(subscription.endpoint, "subscription.endpoint")
        await self._guard.addresses(url.host, url.port, "subscription.endpoint")

    async def send(self, push: Push) -> Outcome:
        """One request."""
        subscription = _subscription(push.address)
        try:
            url = parsed(subscription.endpoint, "subscription.endpoint")
            point, auth = receiver_of(subscription)
            headers = {
                "authorization": f"vapid t={self._token(url.origin)}, k={self.public_key}",
                "content-encoding": "aes128gcm",
                "content-type": "application/octet-stream",
                "ttl": str(push.ttl_s),
                "urgency": "high",
                "topic": push.collapse,
            }
            body = encrypt(payload(push, self._text), point, auth)
            answer = await self._http.post(url, headers, body)
        except Unfit as error:
            return Later(str(error)) if error.retryable else Refused(str(error))
        except NoAnswer as error:
            return Later(str(error))
        return outcome(answer)

    def _token(self, origin: str) -> str:
        now = time.time()
        signed = self._signed.pop(origin, None)
        if signed is None or not now + RENEWED_S < signed.until <= now + SIGNED_S:
            claims = {"aud": origin, "exp": int(now) + SIGNED_S, "sub": self._subject}
            signed = _Signed(jwt.encode(claims, self._key, "ES256"), int(now) + SIGNED_S)
        self._signed[origin] = signed
        if len(self._signed) > ORIGINS:
            self._signed.popitem(last=False)
        return signed.text


def outcome(answer: Answer) -> Outcome:
    """What a push service's answer means (RFC 8030, sections 5 and 7)."""
    if 200 <= answer.status < 300:
        return Sent()
    reason = str(answer.status)
    if answer.status in (404, 410):
        return Gone(reason)
    if answer.status == 429:
        return Later(reason, answer.retry_after_s, fault=False)
    if answer.status >= 500 or answer.status == 408:
        return Later(reason, answer.retry_after_s)
    return Refused(reason)


def payload(push: Push, without: str) -> bytes:
    """What the service worker of the page gets, as JSON; `tag` is for `showNotification`."""
    note = push.note
    title, body = text_of(note, without)
    told = {"title": title, "body": body, "tag": push.collapse, "badge": note.badge}
    return msgspec.json.encode({**told, **data_of(note)})


def receiver_of(subscription: Subscription) -> tuple[bytes, bytes]:
    """The browser's public key and its authentication secret. Raises `Unfit`."""
    try:
        point = keys.decoded(subscription.keys.p256dh)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        if len(point) != 65:
            raise ValueError
    except ValueError:
        why = "must be a P-256 public key of 65 bytes, in base64url"
        raise Unfit("subscription.keys.p256dh", why) from None
    try:
        auth = keys.decoded(subscription.keys.auth)
    except ValueError:
        auth = b""
    if len(auth) != 16:
        raise Unfit("subscription.keys.auth", "must be 16 bytes, in base64url")
    return point, auth


def encrypt(
    plain: bytes,
    receiver: bytes,
    auth: bytes,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """One record of `aes128gcm` (RFC 8188) for a browser (RFC 8291, section 3.4).

    `key` and `salt` are made for each message, unless a test says which. Raises `ValueError` for
    more than one record.
    """
    if len(plain) > MAX_PLAIN_BYTES:
        raise ValueError(f"{len(plain)} bytes do not fit into one push")
    key = key or ec.generate_private_key(ec.SECP256R1())
    salt = salt or os.urandom(16)
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), receiver)
    sender = keys.point_of(key.public_key())
    shared = key.exchange(ec.ECDH(), peer)
    material = _derived(shared, auth, b"WebPush: info\0" + receiver + sender, 32)
    secret = _derived(material, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(material, salt, b"Content-Encoding: nonce\0", 12)
    sealed = AESGCM(secret).encrypt(nonce, plain + b"\x02", None)
    return salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(sender)]) + sender + sealed


def _derived(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(material)


def _subscription(address: Address) -> Subscription:
    if address.subscription is None:
        raise Unfit("subscription", "is missing")
    return address.subscription
