"""The HTTP twins of frames: one request, one answer, by the same code as over a WebSocket."""

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker import subjects
from broker.errors import InvalidName

from . import frames, past, writes
from .asker import EXPECTED, Asker
from .edge import Edge
from .endpoint import bearer
from .hub import User
from .rates import TokenBucket
from .tokens import KeysUnavailable, Unauthorized

KNOWN_USERS = 10_000
DEADLINE_S = 20.0
"""Longer than the committer tries."""

_STATUS = {
    "bad_frame": 400,
    "unknown_type": 400,
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_member": 403,
    "not_found": 404,
    "conflict": 409,
    "duplicate_group": 409,
    "group_full": 409,
    "too_large": 413,
    "rate_limited": 429,
    "internal": 500,
    "overloaded": 503,
    "unavailable": 503,
    "timeout": 504,
}


class Exchange(Asker):
    """One HTTP request on its way through the handlers of frames; `vip` is its token's claim."""

    __slots__ = ("_answer", "vip")

    def __init__(self, edge: Edge, user: User, *, vip: bool = False):
        super().__init__(edge)
        self.user = user
        self.vip = vip
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def push(self, frame: Any) -> None:
        """The first answer is the one."""
        if not self._answer.done():
            self._answer.set_result(frame)

    def refuse_rate(self, now: float, wait_s: float, request: Any) -> None:
        """429 with `Retry-After`."""
        retry_after_ms = int(wait_s * 1000) + 1
        self.error("rate_limited", "too fast", request, retry_after_ms=retry_after_ms)

    async def response(self, timeout_s: float) -> Response:
        """The answer as HTTP; 504 if there is none in time."""
        try:
            async with asyncio.timeout(timeout_s):
                frame = await self._answer
        except TimeoutError:
            self.lost = True
            frame = frames.Error(code="timeout", message="no answer in time", retryable=True)
        return response_of(frame)


class Users:
    """The limits of users without a session here, so that each request does not start anew."""

    def __init__(self) -> None:
        self._messages: OrderedDict[str, TokenBucket] = OrderedDict()

    async def get(self, edge: Edge, user_id: str) -> User:
        """The user with its groups. Raises what asking the directory raises."""
        present = edge.hub.present(user_id)
        if present is not None and present.groups is not None:
            return present
        limits = edge.config.limits
        messages = self._messages.pop(user_id, None) or TokenBucket(
            limits.messages_per_s, limits.messages_burst, edge.now()
        )
        self._messages[user_id] = messages
        if len(self._messages) > KNOWN_USERS:
            self._messages.popitem(last=False)
        user = User(user_id, messages)
        user.groups = await edge.memberships.groups_of(user_id)
        return user


async def post_message(request: Request) -> Response:
    """`POST /v1/messages`: a `chat` or `group_chat` frame; 201 with its `ack`."""
    edge: Edge = request.app.state.edge
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    try:
        frame = frames.decode_request(await _body(request, edge.config.limits.frame_bytes))
    except frames.BadFrame as bad:
        asker.error(bad.code, bad.message, bad)
        return await asker.response(0)
    match frame:
        case frames.Chat():
            writes.chat(asker, frame, edge.now())
        case frames.GroupChat():
            writes.group_chat(asker, frame, edge.now())
        case _:
            asker.error("invalid", "type: must be chat or group_chat", frame)
    return await asker.response(DEADLINE_S)


async def get_chats(request: Request) -> Response:
    """`GET /v1/chats`: the result of `chats`; parameters as the frame's fields."""
    return await _ask(request, frames.Chats, {}, past.chats)


async def get_history(request: Request) -> Response:
    """`GET /v1/chats/{chat_id}/messages`: the result of `history`."""
    path = {"chat_id": request.path_params["chat_id"]}
    return await _ask(request, frames.History, path, past.history)


async def get_search(request: Request) -> Response:
    """`GET /v1/search`: the result of `search`; parameters as the frame's fields."""
    return await _ask(request, frames.Search, {}, past.search)


routes = [
    Route("/v1/messages", post_message, methods=["POST"]),
    Route("/v1/chats", get_chats, methods=["GET"]),
    Route("/v1/chats/{chat_id}/messages", get_history, methods=["GET"]),
    Route("/v1/search", get_search, methods=["GET"]),
]


async def _ask(request: Request, kind: Any, path: dict[str, str], answer: Any) -> Response:
    asker = await _asker(request)
    if isinstance(asker, Response):
        return asker
    try:
        frame = msgspec.convert({**request.query_params, **path}, kind, strict=False)
        await answer(asker, frame)
    except msgspec.ValidationError as error:
        asker.error("invalid", str(error))
    except EXPECTED as error:
        asker.failed(error, None)
    return await asker.response(0)


async def _asker(request: Request) -> Exchange | Response:
    """Who asks, or the refusal."""
    edge: Edge = request.app.state.edge
    token = bearer(request)
    if token is None:
        return refusal("unauthorized", "send `Authorization: Bearer <token>`")
    try:
        claims = await edge.tokens.verify(token)
        subjects.encode(claims.user_id, "sub")
        users: Users = request.app.state.users
        return Exchange(edge, await users.get(edge, claims.user_id), vip=claims.vip)
    except (Unauthorized, InvalidName) as error:
        return refusal("unauthorized", str(error))
    except KeysUnavailable as error:
        return refusal("unavailable", str(error))
    except EXPECTED:
        return refusal("unavailable", "the server is not ready; ask again")


async def _body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes. Raises `BadFrame`."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > limit:
            raise frames.BadFrame("too_large", f"the body has at most {limit} bytes")
    return bytes(found)


def refusal(code: frames.ErrorCode, message: str, status: int | None = None) -> Response:
    """An error that answers no frame."""
    retryable = code in frames.RETRYABLE
    return response_of(frames.Error(code=code, message=message, retryable=retryable), status)


def response_of(frame: Any, status: int | None = None) -> Response:
    """A frame as HTTP: its status follows from an error's code, unless given."""
    body = msgspec.to_builtins(frame)
    if not isinstance(frame, frames.Error):
        return JSONResponse(body, status_code=201 if isinstance(frame, frames.Ack) else 200)
    headers = {}
    if frame.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-frame.retry_after_ms // 1000))
    if frame.code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=status or _STATUS[frame.code], headers=headers)
