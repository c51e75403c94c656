"""The push services that providers speak to, as their documents say, on `tests.push_server`.

Expectations are from Apple's "Sending notification requests to APNs" and "Handling notification
responses from APNs", Google's reference of FCM HTTP v1 and "Using OAuth 2.0 for Server to Server
Applications", RFC 8030, 8188, 8291, 8292, and the Standard Webhooks specification.
"""

import json
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from .push_server import Authority, Fault, PushServer, Reply, Request

TEAM, KEY_ID, TOPIC = "TEAM123456", "KEY1234567", "org.example.chat"

Special = Callable[[Request], Awaitable[Reply | Fault] | Reply | Fault]


def pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


class Apns(PushServer):
    """Apple's. `specials` answer for a token instead of taking its push."""

    def __init__(self, authority: Authority, folder: Path):
        super().__init__(authority)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_file = folder / "apns.p8"
        self.key_file.write_bytes(pem(self.key))
        self.specials: dict[str, Special] = {}
        self.taken: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answer = self._apns

    async def _apns(self, request: Request) -> Reply | Fault:
        head = request.headers
        scheme, _, token = head.get("authorization", "").partition(" ")
        if scheme != "bearer":
            return self.no(403, "MissingProviderToken")
        if jwt.get_unverified_header(token) != {"alg": "ES256", "kid": KEY_ID, "typ": "JWT"}:
            return self.no(403, "InvalidProviderToken")
        try:
            claims = jwt.decode(token, self.key.public_key(), algorithms=["ES256"])
        except jwt.InvalidTokenError:
            return self.no(403, "InvalidProviderToken")
        if claims.keys() != {"iss", "iat"} or claims["iss"] != TEAM:
            return self.no(403, "InvalidProviderToken")
        if not 0 <= time.time() - claims["iat"] < 3600:
            return self.no(403, "ExpiredProviderToken")
        if request.method != "POST":
            return self.no(405, "MethodNotAllowed")
        if not request.path.startswith("/3/device/"):
            return self.no(404, "BadPath")
        if head.get("apns-topic") != TOPIC:
            return self.no(400, "BadTopic" if "apns-topic" in head else "MissingTopic")
        if head.get("apns-push-type") != "alert":
            return self.no(400, "InvalidPushType")
        if head.get("apns-priority") not in ("5", "10"):
            return self.no(400, "BadPriority")
        if not head.get("apns-expiration", "").isdecimal():
            return self.no(400, "BadExpirationDate")
        if len(head.get("apns-collapse-id", "").encode()) > 64:
            return self.no(400, "BadCollapseId")
        if str(uuid.UUID(head["apns-id"])) != head["apns-id"]:
            return self.no(400, "BadMessageId")
        if len(request.body) > 4096:
            return self.no(413, "PayloadTooLarge")
        device = request.path.removeprefix("/3/device/")
        if device in self.specials:
            found = self.specials[device](request)
            reply = found if isinstance(found, Reply | Fault) else await found
            if not (isinstance(reply, Reply) and reply.status == 200):
                return reply
        payload = json.loads(request.body)
        assert payload["aps"]["alert"]["title"], "an alert has a text"
        self.taken.append((device, head, payload))
        return Reply(200, headers={"apns-id": head["apns-id"]})

    @staticmethod
    def no(status: int, reason: str, **fields: object) -> Reply:
        return Reply(status, json.dumps({"reason": reason, **fields}).encode())

    @property
    def env(self) -> dict[str, str]:
        return {
            "HIKYAKU_APNS_KEY": str(self.key_file),
            "HIKYAKU_APNS_KEY_ID": KEY_ID,
            "HIKYAKU_APNS_TEAM_ID": TEAM,
            "HIKYAKU_APNS_TOPIC": TOPIC,
            "HIKYAKU_APNS_URL": self.url,
        }


class Fcm(PushServer):
    """Google's: grants access tokens at `/token` and takes messages."""

    PROJECT, EMAIL = "chat-1234", "push@chat-1234.iam.gserviceaccount.example"

    def __init__(self, authority: Authority, folder: Path):
        super().__init__(authority)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.account_file = folder / "account.json"
        self.access_token = "first"
        self.expires_in = 3599
        self.grants = 0
        self.refuse_grants = 0
        self.specials: dict[str, Special] = {}
        self.taken: list[dict[str, Any]] = []
        self.answer = self._fcm

    async def __aenter__(self) -> "Fcm":
        await super().__aenter__()
        account = {
            "type": "service_account",
            "project_id": self.PROJECT,
            "private_key_id": "key-1",
            "private_key": pem(self.key).decode(),
            "client_email": self.EMAIL,
            "token_uri": f"{self.url}/token",
        }
        self.account_file.write_text(json.dumps(account))
        return self

    async def _fcm(self, request: Request) -> Reply | Fault:
        if request.path == "/token":
            return self._grant(request)
        if request.path != f"/v1/projects/{self.PROJECT}/messages:send":
            return self.no(404, "NOT_FOUND")
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return self.no(401, "UNAUTHENTICATED")
        message = json.loads(request.body)["message"]
        assert all(isinstance(each, str) for each in message["data"].values())
        assert not {"from", "gcm", "message_type"} & message["data"].keys()
        if message["token"] in self.specials:
            found = self.specials[message["token"]](request)
            reply = found if isinstance(found, Reply | Fault) else await found
            if not (isinstance(reply, Reply) and reply.status == 200):
                return reply
        self.taken.append(message)
        name = f"projects/{self.PROJECT}/messages/{len(self.taken)}"
        return Reply(200, json.dumps({"name": name}).encode())

    def _grant(self, request: Request) -> Reply:
        if self.refuse_grants:
            self.refuse_grants -= 1
            return Reply(500, b"{}")
        asked = parse_qs(request.body.decode())
        if asked["grant_type"] != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return Reply(400, b'{"error":"unsupported_grant_type"}')
        claims = jwt.decode(
            asked["assertion"][0],
            self.key.public_key(),
            algorithms=["RS256"],
            audience=f"{self.url}/token",
        )
        if claims["iss"] != self.EMAIL or claims["exp"] - claims["iat"] > 3600:
            return Reply(400, b'{"error":"invalid_grant"}')
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        self.grants += 1
        granted = {"access_token": self.access_token, "expires_in": self.expires_in}
        return Reply(200, json.dumps({**granted, "token_type": "Bearer"}).encode())

    @staticmethod
    def no(status: int, code: str, message: str = "", *, fcm: str | None = None) -> Reply:
        details = []
        if fcm is not None:
            kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
            details = [{"@type": kind, "errorCode": fcm}]
        error = {"code": status, "message": message, "status": code, "details": details}
        return Reply(status, json.dumps({"error": error}).encode())

    @property
    def env(self) -> dict[str, str]:
        return {"HIKYAKU_FCM_ACCOUNT": str(self.account_file), "HIKYAKU_FCM_URL": self.url}


class Browser:
    """A browser with one subscription, which decrypts what it is sent."""

    def __init__(self, service: "PushService", name: str):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = uuid.uuid4().bytes
        self.path = f"/push/{name}"
        self._service = service
        self.got: list[dict[str, Any]] = []

    @property
    def point(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def subscription(self) -> dict[str, Any]:
        """As `PushSubscription.toJSON()` has it."""
        return {
            "endpoint": self._service.url + self.path,
            "expirationTime": None,
            "keys": {"p256dh": encoded(self.point), "auth": encoded(self.auth)},
        }

    def decrypt(self, body: bytes) -> bytes:
        return decrypt(body, self.key, self.auth)


class PushService(PushServer):
    """A browser's push service: checks what RFC 8030 and 8292 ask for and hands on the rest."""

    def __init__(self, authority: Authority, folder: Path):
        super().__init__(authority)
        self.vapid = ec.generate_private_key(ec.SECP256R1())
        self.key_file = folder / "vapid.pem"
        self.key_file.write_bytes(pem(self.vapid))
        self.browsers: dict[str, Browser] = {}
        self.specials: dict[str, Special] = {}
        self.answer = self._push

    def browser(self, name: str) -> Browser:
        browser = Browser(self, name)
        self.browsers[browser.path] = browser
        return browser

    async def _push(self, request: Request) -> Reply | Fault:
        head = request.headers
        browser = self.browsers.get(request.path)
        if browser is None:
            return Reply(404)
        scheme, _, fields = head.get("authorization", "").partition(" ")
        given = dict(each.strip().split("=", 1) for each in fields.split(","))
        point = self.vapid.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if scheme != "vapid" or given.get("k") != encoded(point):
            return Reply(403)
        try:
            claims = jwt.decode(
                given["t"], self.vapid.public_key(), algorithms=["ES256"], audience=self.url
            )
        except jwt.InvalidTokenError:
            return Reply(403)
        if not 0 < claims["exp"] - time.time() <= 86_400 or not claims["sub"]:
            return Reply(403)
        if not head.get("ttl", "").isdecimal() or head.get("content-encoding") != "aes128gcm":
            return Reply(400)
        if head.get("urgency") not in ("very-low", "low", "normal", "high"):
            return Reply(400)
        topic = head.get("topic", "")
        if len(topic) > 32 or not topic.replace("-", "").replace("_", "").isalnum():
            return Reply(400)
        if len(request.body) > 4096:
            return Reply(413)
        if request.path in self.specials:
            found = self.specials[request.path](request)
            reply = found if isinstance(found, Reply | Fault) else await found
            if not (isinstance(reply, Reply) and reply.status == 201):
                return reply
        browser.got.append(json.loads(browser.decrypt(request.body)))
        return Reply(201, headers={"location": f"{self.url}/message/{uuid.uuid4()}"})

    @property
    def env(self) -> dict[str, str]:
        return {
            "HIKYAKU_VAPID_KEY": str(self.key_file),
            "HIKYAKU_VAPID_SUBJECT": "mailto:operator@example.org",
            "HIKYAKU_PUSH_ALLOW": "127.0.0.0/8",
        }


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def decrypt(body: bytes, key: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """RFC 8291 and 8188 read from the receiver's side, with nothing but HMAC and AES."""

    def mac(secret: bytes, data: bytes) -> bytes:
        made = hmac.HMAC(secret, hashes.SHA256())
        made.update(data)
        return made.finalize()

    salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
    sender, sealed = body[21 : 21 + length], body[21 + length :]
    assert length == 65
    assert 18 <= len(sealed) <= size
    own = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
    prk_key = mac(auth, key.exchange(ec.ECDH(), peer))
    ikm = mac(prk_key, b"WebPush: info\0" + own + sender + b"\x01")
    prk = mac(salt, ikm)
    secret = mac(prk, b"Content-Encoding: aes128gcm\0\x01")[:16]
    nonce = mac(prk, b"Content-Encoding: nonce\0\x01")[:12]
    padded = AESGCM(secret).decrypt(nonce, sealed, None).rstrip(b"\0")
    assert padded[-1:] == b"\x02", "the last record ends with 2"
    return padded[:-1]
