"""Devices that get pushes, and a user's settings for them, over HTTP. See `docs/protocol.md`.

An edge has no database: it asks the workers `notify`.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker import notify
from broker.requests import ask

from . import frames
from .api import Exchange, _asker, _body
from .asker import EXPECTED
from .frames.fields import ChatId

MAX_BODY_BYTES = 64 * 1024
DEVICE = r"\A[A-Za-z0-9_-]{1,64}\Z"

_T = TypeVar("_T")


class _Register(Struct, kw_only=True, forbid_unknown_fields=True):
    device: Annotated[str, Meta(pattern=DEVICE)]
    provider: notify.ProviderName
    token: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    subscription: notify.Subscription | None = None
    url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    content: bool = True


class _Change(Struct, kw_only=True, forbid_unknown_fields=True):
    content: bool | None = None
    mentions: bool | None = None
    quiet_hours: notify.QuietHours | msgspec.UnsetType | None = msgspec.UNSET
    mute: Annotated[dict[ChatId, bool], Meta(max_length=200)] = {}


_NEEDS = {"apns": "token", "fcm": "token", "webpush": "subscription", "webhook": "url"}


async def register(request: Request) -> Response:
    """`POST /v1/devices`: 201 with the device; replaces what it was before."""
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    asked = await _decoded(request, asker, _Register)
    if asked is None:
        return await asker.response(0)
    field = _NEEDS[asked.provider]
    for each in ("token", "subscription", "url"):
        if (getattr(asked, each) is not None) != (each == field):
            wrong = "is needed" if each == field else "must not be given"
            asker.error("invalid", f"{each}: {wrong} with {asked.provider}")
            return await asker.response(0)
    if (wait_s := asker.user.messages.take(asker.edge.now())) > 0:
        asker.refuse_rate(asker.edge.now(), wait_s, None)
        return await asker.response(0)
    address = notify.Address(
        token=asked.token or "", subscription=asked.subscription, url=asked.url or ""
    )
    question = notify.Register(
        user=asker.user.user_id,
        vip=asker.vip,
        device=asked.device,
        provider=asked.provider,
        address=address,
        content=asked.content,
    )
    return await _answered(asker, "register", question, notify.Device, status=201)


async def devices(request: Request) -> Response:
    """`GET /v1/devices`: all of the user's."""
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    question = notify.ListDevices(user=asker.user.user_id)
    return await _answered(asker, "devices", question, notify.Devices)


async def unregister(request: Request) -> Response:
    """`DELETE /v1/devices/{device}`."""
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    device = request.path_params["device"]
    question = notify.Unregister(user=asker.user.user_id, device=device)
    return await _answered(asker, "unregister", question, notify.Done)


async def settings(request: Request) -> Response:
    """`GET /v1/notifications`: the user's settings, and what the site offers."""
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    question = notify.Ask(user=asker.user.user_id)
    return await _answered(asker, "settings", question, notify.Notifications)


async def change(request: Request) -> Response:
    """`PUT /v1/notifications`: what is left out stays as it is."""
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    asked = await _decoded(request, asker, _Change)
    if asked is None:
        return await asker.response(0)
    quiet = asked.quiet_hours
    question = notify.Change(
        user=asker.user.user_id,
        content=asked.content,
        mentions=asked.mentions,
        quiet_hours=None if quiet is msgspec.UNSET else quiet or "",
        mute=asked.mute,
    )
    return await _answered(asker, "change", question, notify.Notifications)


routes = [
    Route("/v1/devices", register, methods=["POST"]),
    Route("/v1/devices", devices, methods=["GET"]),
    Route("/v1/devices/{device}", unregister, methods=["DELETE"]),
    Route("/v1/notifications", settings, methods=["GET"]),
    Route("/v1/notifications", change, methods=["PUT"]),
]


async def _decoded(request: Request, asker: Exchange, kind: type[_T]) -> _T | None:
    """The body; None after an answer that says what is wrong with it."""
    try:
        body = await _body(request, MAX_BODY_BYTES)
        return msgspec.json.decode(body, type=kind)
    except frames.BadFrame as bad:
        asker.error(bad.code, bad.message)
    except msgspec.ValidationError as error:
        asker.error("invalid", str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        asker.error("bad_frame", f"the body is not JSON: {error}")
    return None


async def _answered(
    asker: Exchange, verb: str, question: Any, answer: type[_T], *, status: int = 200
) -> Response:
    """Ask the workers; their answer as JSON, or the error."""
    edge = asker.edge
    try:
        timeout_s = edge.config.request_timeout_s
        found = await ask(edge.asking, notify.SERVICE, verb, question, answer, timeout_s)
    except EXPECTED as error:
        asker.failed(error, None)
        return await asker.response(0)
    return JSONResponse(msgspec.to_builtins(found), status_code=status)
