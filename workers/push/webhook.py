"""A POST to an URL, signed as Standard Webhooks says, so that receivers find libraries for it.

https://www.standardwebhooks.com: `webhook-id`, `webhook-timestamp`, `webhook-signature`. The id is
the same each time for the same message and device: a receiver drops what it has.
"""

import hashlib
import hmac
import secrets
import time
from base64 import b64decode, b64encode
from contextlib import suppress

import msgspec

from broker.notify import Address

from .guard import Guard, parsed
from .http import Answer, Http, NoAnswer
from .provider import Gone, Later, Outcome, Push, Refused, Sent, Unfit, data_of

PREFIX = "whsec_"
SECRET_BYTES = 32


class Webhook:
    """Posts to the URLs of users, or to one of the site."""

    def __init__(self, name: str, http: Http, guard: Guard, *, one_server: bool = False):
        """`http` must be guarded where the URLs are the users'."""
        self.name = name
        self.one_server = one_server
        self._http = http
        self._guard = guard

    def origin(self, address: Address) -> str:
        """The receiver's server."""
        return parsed(address.url, "url").origin

    async def check(self, address: Address) -> None:
        """An URL that may be reached."""
        url = parsed(address.url, "url")
        await self._guard.addresses(url.host, url.port, "url")

    async def send(self, push: Push) -> Outcome:
        """One request."""
        number = "msg_" + hashlib.blake2b(push.key.encode(), digest_size=16).hexdigest()
        body = payload(push)
        at = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": number,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(push.address.secret, number, at, body),
        }
        try:
            answer = await self._http.post(parsed(push.address.url, "url"), headers, body)
        except Unfit as error:
            return Later(str(error)) if error.retryable else Refused(str(error))
        except NoAnswer as error:
            return Later(str(error))
        return outcome(answer)


def outcome(answer: Answer) -> Outcome:
    """2xx is taken, 410 ends it; a redirect is not followed."""
    reason = str(answer.status)
    if 200 <= answer.status < 300:
        return Sent()
    if answer.status == 410:
        return Gone(reason)
    if answer.status == 429:
        return Later(reason, answer.retry_after_s, fault=False)
    if answer.status >= 500 or answer.status in (404, 408):
        return Later(reason, answer.retry_after_s)
    return Refused(reason)


def payload(push: Push) -> bytes:
    """What the receiver gets, as JSON."""
    note = push.note
    told = {"user_id": note.user, "device": note.device, "chat_name": note.chat_name}
    content = {"content": note.content, "content_type": note.content_type, "badge": note.badge}
    return msgspec.json.encode({"type": "push", **told, **data_of(note), **content})


def new_secret() -> str:
    """A secret for one receiver."""
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signature(secret: str, number: str, at: int, body: bytes) -> str:
    """HMAC-SHA256 over id, time and body; a secret that is not `whsec_` and base64 is the key."""
    bare = secret.removeprefix(PREFIX)
    key = secret.encode()
    if bare != secret:
        with suppress(ValueError):
            key = b64decode(bare, validate=True)
    signed = hmac.new(key, b"%b.%d.%b" % (number.encode(), at, body), hashlib.sha256).digest()
    return "v1," + b64encode(signed).decode()
