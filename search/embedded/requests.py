"""What all routes need: who asks, bodies within bounds, and work done off the event loop."""

import functools
import hmac
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
import msgspec
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .engine import Engine
from .errors import ApiError
from .keys import Key, Keys, covers
from .task_queue import sync_folder
from .tasks import Task

MAX_JSON_BYTES = 10 * 1024**2
"""Of a body that is no documents."""

MAX_SEARCHES = 1000
"""Searches that wait or run; more are refused, as in Meilisearch."""

WRITE_BYTES = 1024**2
THREADS = 4

UPLOADS = 16
"""Payloads that come in at once; further ones wait unread."""

Result = TypeVar("Result")


class Access(NamedTuple):
    """What who asks may see: all indexes if there is no key."""

    key: Key | None

    def sees(self, uid: str | None) -> bool:
        """Whether an index is one of those that may be asked about."""
        if self.key is None or "*" in self.key.indexes:
            return True
        return uid is not None and covers(self.key.indexes, uid)

    def allows(self, action: str) -> bool:
        """Whether this may be done."""
        return self.key is None or self.key.allows(action)


class Server:
    """What the routes work with. `keys` is None where there is no master key."""

    def __init__(self, engine: Engine, keys: Keys | None, master: str, max_payload: int):
        self.engine = engine
        self.keys = keys
        self._master = master.encode()
        self.max_payload = max_payload
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._uploading = anyio.Semaphore(UPLOADS)
        self._searches = 0

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a thread."""
        return await to_thread.run_sync(
            functools.partial(function, *arguments), limiter=self._limiter
        )

    async def search(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The same for a search. Raises `ApiError` when too many wait."""
        if self._searches >= MAX_SEARCHES:
            raise ApiError(
                "too_many_search_requests",
                f"Too many search requests running at the same time: {MAX_SEARCHES}. Retry after"
                " 10s.",
            )
        self._searches += 1
        try:
            return await self.run(function, *arguments)
        finally:
            self._searches -= 1

    def access(self, request: Request, action: str, uid: str | None = None) -> Access:
        """Who asks, if that is allowed. Raises `ApiError`."""
        if self.keys is None:
            if action.startswith("keys."):
                raise ApiError(
                    "missing_master_key",
                    "Meilisearch is running without a master key. To access this API endpoint, you"
                    " must have set a master key at launch.",
                )
            return Access(None)
        given = _token(request)
        if _same(given.encode("utf-8", "surrogateescape"), self._master):
            return Access(None)
        key = self.keys.by_secret(given)
        access = Access(key)
        if key is None or not key.allows(action) or not (uid is None or access.sees(uid)):
            raise ApiError("invalid_api_key", "The provided API key is invalid.")
        return access

    async def enqueue(self, *arguments: Any, **more: Any) -> Response:
        """Have a task on disk, then answer that."""
        task: Task = await self.run(functools.partial(self.engine.queue.add, *arguments, **more))
        return answer(task.summary(), 202)

    async def save(self, request: Request, payload: Path) -> int:
        """Stream a body into a file and have it on disk; gives its length. Raises `ApiError`."""
        async with self._uploading:
            return await self._save(request, payload)

    async def _save(self, request: Request, payload: Path) -> int:
        size = 0
        buffer = bytearray()
        with payload.open("xb", buffering=0) as file:

            async def write() -> None:
                await self.run(file.write, bytes(buffer))
                buffer.clear()

            async for chunk in _chunks(request):
                size += len(chunk)
                if size > self.max_payload:
                    raise _too_large(self.max_payload)
                buffer += chunk
                if len(buffer) >= WRITE_BYTES:
                    await write()
            await write()
            await self.run(_sync, file.fileno(), payload.parent)
        return size


def _sync(fd: int, folder: Path) -> None:
    os.fsync(fd)
    sync_folder(folder)


def _same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)


def _token(request: Request) -> str:
    header = request.headers.get("authorization")
    if header is None:
        raise ApiError(
            "missing_authorization_header",
            "The Authorization header is missing. It must use the bearer authorization method.",
        )
    method, _, token = header.partition(" ")
    if method.lower() != "bearer":
        raise ApiError("invalid_api_key", "The provided API key is invalid.")
    return token.strip()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError("invalid_content_type", "This server takes no compressed bodies.")
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ApiError("malformed_payload", "The payload ended early.") from None


def _too_large(most: int) -> ApiError:
    return ApiError(
        "payload_too_large", f"The provided payload reached the size limit. The maximum accepted"
                             f" payload size is {most / 1024**2:g} MiB."
    )  # fmt: skip


def content_type(request: Request, accepted: tuple[str, ...]) -> str:
    """The type of a body. Raises `ApiError`."""
    listed = ", ".join(f"`{each}`" for each in accepted)
    header = request.headers.get("content-type")
    if header is None:
        raise ApiError(
            "missing_content_type",
            f"A Content-Type header is missing. Accepted values for the Content-Type header are:"
            f" {listed}",
        )
    found = header.partition(";")[0].strip().lower()
    if found not in accepted:
        raise ApiError(
            "invalid_content_type",
            f"The Content-Type `{found[:100]}` is invalid. Accepted values for the Content-Type"
            f" header are: {listed}",
        )
    return found


async def json_body(request: Request) -> Any:
    """A small body as JSON. Raises `ApiError`."""
    content_type(request, ("application/json",))
    body = bytearray()
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise _too_large(MAX_JSON_BYTES)
    if not body.strip():
        raise ApiError("missing_payload", "A json payload is missing.")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(
            "malformed_payload", f"The json payload provided is malformed. `{error}`."
        ) from None


def parameters(request: Request, known: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    """The query string. Raises `ApiError` for what is not known."""
    found = dict(request.query_params)
    for name in found:
        if name not in known:
            listed = ", ".join(f"`{each}`" for each in known)
            raise ApiError(
                "bad_request", f"Unknown parameter `{name[:100]}`: expected one of {listed}"
            )
    return found


def answer(content: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")
