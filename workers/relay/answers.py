"""Answers to questions of other sites: what was found, or an error of the protocol."""

from collections.abc import Awaitable

import msgspec
from msgspec import Raw, Struct

from broker.errors import BrokerError, InvalidName, Unavailable
from broker.federation import Postal, read
from broker.requests import Failure
from broker.sites import Sites


class _Answer(Struct, kw_only=True, omit_defaults=True):
    ok: Raw = Raw(b"")
    code: str = ""
    message: str = ""
    retryable: bool = False


async def answered(found: Awaitable[bytes]) -> bytes:
    """What a peer is told: `found`, or why not."""
    try:
        return msgspec.json.encode(_Answer(ok=Raw(await found)))
    except Failure as failure:
        answer = _Answer(code=failure.code, message=failure.message, retryable=failure.retryable)
    except InvalidName as error:
        answer = _Answer(code="invalid", message=str(error))
    except BrokerError as error:
        answer = _Answer(code="unavailable", message=str(error), retryable=True)
    return msgspec.json.encode(answer)


async def asked(
    sites: Sites, postal: Postal, site: str, verb: str, question: Struct, *, timeout_s: float
) -> bytes:
    """What a linked site found. Raises `Failure` for its no, and when it does not answer."""
    if not sites.linked(site):
        raise Failure("not_found", f"there is no link to the site {site!r}")
    payload = msgspec.json.encode(question)
    try:
        data = await postal.ask(site, verb, payload, timeout_s=timeout_s)
    except Unavailable as error:
        raise Failure("unavailable", f"{error}; try again later", retryable=True) from error
    answer = read(data, _Answer, site)
    if not bytes(answer.ok):
        raise Failure(answer.code, answer.message, retryable=answer.retryable)
    return bytes(answer.ok)
