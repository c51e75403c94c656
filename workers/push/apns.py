"""Apple Push Notification service: HTTP/2 with a provider token (ES256).

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

import re
import time
import uuid
from typing import Any, NamedTuple

import jwt
import msgspec

from broker.notify import Address

from . import keys
from .config import PushConfig
from .guard import parsed
from .http import Answer, Http, NoAnswer
from .provider import Gone, Later, Outcome, Push, Refused, Sent, Unfit, data_of, text_of

TOKEN_LIFE_S = 45 * 60
"""Apple refuses a token that is older than an hour, and one made anew within 20 minutes."""

TOKEN_LEAST_S = 20 * 60

_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){32,100}")
_NAMESPACE = uuid.UUID("3bb43e5b-1e4f-4b0c-9a6e-5a3c06c4ad3b")

_GONE = "BadDeviceToken"
"""With status 400. (`DeviceTokenNotForTopic` may as well be a wrong HIKYAKU_APNS_TOPIC.)"""


class _Token(NamedTuple):
    text: str
    made_at: float


class _Body(msgspec.Struct):
    reason: str = ""
    timestamp: int | None = None


class Apns:
    """Pushes to one topic. Raises `Unusable` for a key that is none."""

    name = "apns"
    one_server = True

    def __init__(self, config: PushConfig, http: Http):
        self._http = http
        self._url = parsed(config.apns_url, "apns_url")
        self._key = keys.p256_key(config.apns_key, "HIKYAKU_APNS_KEY")
        self._key_id = config.apns_key_id
        self._team_id = config.apns_team_id
        self._topic = config.apns_topic
        self._text = config.text
        self._token: _Token | None = None

    def origin(self, address: Address) -> str:
        """There is one."""
        return self._url.origin

    async def check(self, address: Address) -> None:
        """A device token is 32 bytes or more, in hexadecimal."""
        if not _TOKEN.fullmatch(address.token):
            raise Unfit("token", "must be a device token of APNs, in hexadecimal")

    async def send(self, push: Push) -> Outcome:
        """One request; the same `apns-id` each time for the same message and device."""
        token = self._provider_token()
        headers = {
            "authorization": f"bearer {token.text}",
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-id": str(uuid.uuid5(_NAMESPACE, push.key)),
            "apns-expiration": str(int(time.time()) + push.ttl_s),
            "apns-priority": "10",
            "apns-collapse-id": push.collapse,
        }
        url = self._url._replace(target=f"/3/device/{push.address.token}")
        try:
            answer = await self._http.post(url, headers, payload(push, self._text))
        except (NoAnswer, Unfit) as error:
            return Later(str(error))
        return self._outcome(answer, token)

    def _provider_token(self) -> _Token:
        now = time.time()
        if self._token is None or not 0 <= now - self._token.made_at < TOKEN_LIFE_S:
            claims = {"iss": self._team_id, "iat": int(now)}
            text = jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id})
            self._token = _Token(text, now)
        return self._token

    def _outcome(self, answer: Answer, token: _Token) -> Outcome:
        if answer.status == 200:
            return Sent()
        try:
            body = msgspec.json.decode(answer.body, type=_Body)
        except msgspec.DecodeError:
            body = _Body()
        reason = f"{answer.status} {body.reason}".strip()
        if answer.status == 410 or (answer.status == 400 and body.reason == _GONE):
            return Gone(reason, body.timestamp)
        if answer.status == 403:
            if body.reason == "ExpiredProviderToken":
                return self._expired(reason, token)
            return Later(reason)
        if answer.status == 429:
            # `TooManyRequests` is about one device, `TooManyProviderTokenUpdates` about us.
            mine = body.reason == "TooManyProviderTokenUpdates"
            return Later(reason, answer.retry_after_s, fault=mine)
        if answer.status >= 500:
            return Later(reason, answer.retry_after_s)
        return Refused(reason)

    def _expired(self, reason: str, token: _Token) -> Outcome:
        """Make a new token, if nobody has; not more often than Apple allows."""
        if self._token is token and time.time() - token.made_at >= TOKEN_LEAST_S:
            self._token = None
        fresh = self._token is not token
        return Later(reason, 0.0 if fresh else None, fault=not fresh)


def payload(push: Push, without: str) -> bytes:
    """The notification; `mutable-content` lets the application put in what only it knows."""
    note = push.note
    title, body = text_of(note, without)
    aps: dict[str, Any] = {
        "alert": {"title": title, "body": body},
        "badge": note.badge,
        "sound": "default",
        "thread-id": push.collapse,
        "mutable-content": 1,
    }
    return msgspec.json.encode({"aps": aps, **data_of(note)})
