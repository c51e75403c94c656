"""Firebase Cloud Messaging, HTTP v1, with a service account.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
"""

import asyncio
import re
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import jwt
import msgspec

from broker.notify import Address

from . import keys
from .config import PushConfig
from .guard import parsed
from .http import Answer, Http, NoAnswer
from .provider import Gone, Later, Outcome, Push, Refused, Sent, Unfit, data_of, text_of

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3600
EARLY_S = 300.0
"""A token is replaced this long before it ends."""

QUOTA_S = 60.0
"""What Google asks to wait after 429 without `Retry-After`."""

_TOKEN = re.compile(r"[A-Za-z0-9_:.-]{20,2048}")
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class _Detail(msgspec.Struct):
    type: str = msgspec.field(default="", name="@type")
    error: str = msgspec.field(default="", name="errorCode")


class _Error(msgspec.Struct):
    status: str = ""
    message: str = ""
    details: list[_Detail] = []

    @property
    def code(self) -> str:
        """FCM's own code where there is one, else the general one."""
        codes = [each.error for each in self.details if each.type == _FCM_ERROR and each.error]
        return codes[0] if codes else self.status


class _Failure(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = ASSERTION_S


class _Token(NamedTuple):
    text: str
    until: float


class _NotGranted(Exception):
    """There is no access token now."""


class Fcm:
    """Pushes to one project. Raises `Unusable` for an account that is none."""

    name = "fcm"
    one_server = True

    def __init__(self, config: PushConfig, http: Http):
        self._http = http
        self._account = keys.ServiceAccount(config.fcm_account, "HIKYAKU_FCM_ACCOUNT")
        self._token_url = parsed(self._account.token_uri, "token_uri of HIKYAKU_FCM_ACCOUNT")
        project = quote(self._account.project, safe="")
        self._url = parsed(config.fcm_url, "fcm_url")._replace(
            target=f"/v1/projects/{project}/messages:send"
        )
        self._text = config.text
        self._token: _Token | None = None
        self._granting = asyncio.Lock()

    def origin(self, address: Address) -> str:
        """There is one."""
        return self._url.origin

    async def check(self, address: Address) -> None:
        """A registration token has letters, digits and some signs."""
        if not _TOKEN.fullmatch(address.token):
            raise Unfit("token", "must be a registration token of FCM")

    async def send(self, push: Push) -> Outcome:
        """One request."""
        try:
            token = await self._access_token()
            headers = {
                "authorization": f"Bearer {token.text}",
                "content-type": "application/json",
            }
            answer = await self._http.post(self._url, headers, message(push, self._text))
        except (NoAnswer, Unfit, _NotGranted) as error:
            return Later(str(error))
        return self._outcome(answer, token)

    async def _access_token(self) -> _Token:
        """The token, made anew a while before it ends; one request for all that wait."""
        async with self._granting:
            if self._token is None or time.monotonic() >= self._token.until:
                self._token = await self._grant()
            return self._token

    async def _grant(self) -> _Token:
        now = int(time.time())
        claims = {
            "iss": self._account.email,
            "scope": SCOPE,
            "aud": self._account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_S,
        }
        headers = {"kid": self._account.key_id} if self._account.key_id else None
        assertion = jwt.encode(claims, self._account.key, "RS256", headers=headers)
        body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self._http.post(self._token_url, form, body)
        if answer.status != 200:
            raise _NotGranted(f"no access token: {self._token_url.origin} answers {answer.status}")
        try:
            granted = msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.DecodeError:
            raise _NotGranted(
                f"no access token in the answer of {self._token_url.origin}"
            ) from None
        life_s = max(granted.expires_in - EARLY_S, granted.expires_in / 2)
        return _Token(granted.access_token, time.monotonic() + life_s)

    def _outcome(self, answer: Answer, token: _Token) -> Outcome:
        if answer.status == 200:
            return Sent()
        try:
            error = msgspec.json.decode(answer.body, type=_Failure).error
        except msgspec.DecodeError:
            error = _Error()
        reason = f"{answer.status} {error.code}".strip()
        if error.code == "UNREGISTERED":
            return Gone(reason)
        if error.code == "SENDER_ID_MISMATCH":
            return Refused(reason)  # perhaps the site's account is the wrong one
        if error.code == "INVALID_ARGUMENT" and "registration token" in error.message:
            # The code is also that of a message that does not fit, which no device is to blame for.
            return Gone(reason)
        if answer.status == 401 and error.code != "THIRD_PARTY_AUTH_ERROR":
            fresh = self._token is not token
            self._token = self._token if fresh else None
            return Later(reason)
        if answer.status == 429:
            wait_s = answer.retry_after_s
            return Later(reason, QUOTA_S if wait_s is None else wait_s, fault=False)
        if answer.status >= 500 or answer.status in (401, 403, 408):
            return Later(reason, answer.retry_after_s)
        return Refused(reason)


def message(push: Push, without: str) -> bytes:
    """The message for Android, and for Apple and web applications that FCM serves as well."""
    note = push.note
    title, body = text_of(note, without)
    data = {name: _text(value) for name, value in data_of(note).items() if name != "from"}
    data["sender"] = note.sender  # `from` is a name that FCM keeps for itself
    told: dict[str, Any] = {
        "token": push.address.token,
        "notification": {"title": title, "body": body},
        "data": data,
        "android": {
            "collapse_key": push.collapse,
            "priority": "HIGH",
            "ttl": f"{push.ttl_s}s",
            "notification": {"tag": push.collapse, "notification_count": note.badge},
        },
        "apns": {
            "headers": {"apns-collapse-id": push.collapse},
            "payload": {"aps": {"badge": note.badge, "thread-id": push.collapse}},
        },
        "webpush": {"headers": {"TTL": str(push.ttl_s), "Topic": push.collapse}},
    }
    return msgspec.json.encode({"message": told})


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
