"""Requests to the server's HTTP: with the token, errors as exceptions, again where it may help."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from edge.frames import Error

from .errors import (
    ClientError,
    NotAllowed,
    RequestFailed,
    ServerError,
    TransferStalled,
    request_failed,
)
from .policy import TOKEN_TRIES, retry_delay_s
from .tokens import Tokens

CONNECT_S = 10.0
ANSWER_S = 200.0
"""The server scans and stores a file before it answers its last byte."""

PIECE_BYTES = 64 * 1024
ERROR_BYTES = 64 * 1024

_UNKNOWN = Error(code="unavailable", message="the server gives no answer that can be read")

T = TypeVar("T")


class LocalFailed(Exception):
    """Our own file cannot be read; `__cause__` is why."""


class Moving:
    """One attempt, which ends when nothing has moved for `patience_s`."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._timeout = asyncio.timeout(patience_s)
        self.at: float | None = None

    async def __aenter__(self) -> "Moving":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._timeout.__aexit__(kind, error, traceback)

    def moved(self, *, last: bool = False) -> None:
        """Something moved; after the `last` piece the answer may take its time."""
        self.at = time.monotonic()
        wait_s = max(self._patience_s, ANSWER_S) if last else self._patience_s
        self._timeout.reschedule(asyncio.get_running_loop().time() + wait_s)


class Web:
    """One user at one server. Use as a context manager."""

    def __init__(self, base: str, tokens: Tokens, *, patience_s: float) -> None:
        self._base = base
        self._tokens = tokens
        self._patience_s = patience_s

    async def __aenter__(self) -> "Web":
        # Not aiohttp's own context: that one trusts what was trusted when aiohttp was imported.
        trust = await asyncio.to_thread(ssl.create_default_context)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
            auto_decompress=False,
            read_bufsize=PIECE_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def absolute(self, path: str) -> str:
        """The address of a path of the server."""
        return path if "://" in path else self._base + path

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, data: Any = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. Raises `RequestFailed` for an error, `aiohttp.ClientError` for no answer."""
        token = await self._tokens.get()
        given = {"Authorization": f"Bearer {token}", **(headers or {})}
        async with self._http.request(
            method, self.absolute(path), data=data, headers=given, allow_redirects=False
        ) as answer:
            if answer.status >= 400:
                raise request_failed(await _error_of(answer))
            yield answer

    async def again(self, attempt: Callable[[Moving], Awaitable[T]]) -> T:
        """Make attempts until one succeeds, or fails for good, or nothing moves for too long."""
        moved_at = time.monotonic()
        tries = refusals = 0
        while True:
            moving = Moving(self._patience_s)
            failure: Exception
            try:
                async with moving:
                    return await attempt(moving)
            except RequestFailed as error:
                if not error.retryable:
                    refusals += 1
                    self._renew_token(error, refusals)
                failure = error
            except (aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error.__cause__, LocalFailed):
                    raise error.__cause__.__cause__ or error from None
                failure = error
            if moving.at is not None:
                moved_at, tries = moving.at, 0
            tries += 1
            delay_s = _delay_s(failure, tries)
            if time.monotonic() + delay_s - moved_at > self._patience_s:
                if isinstance(failure, ClientError):
                    raise failure
                why = f": {failure}" if str(failure) else ""
                raise TransferStalled(f"nothing moved for {self._patience_s:g} s{why}") from failure
            await asyncio.sleep(delay_s)

    def _renew_token(self, error: RequestFailed, refusals: int) -> None:
        """Fetch another token for the next attempt, or raise the error if that does not help."""
        refused = isinstance(error, NotAllowed) and error.code == "unauthorized"
        if not refused or not self._tokens.can_renew or refusals > TOKEN_TRIES:
            raise error
        self._tokens.discard()


def decoded(body: bytes, kind: type[T]) -> T:
    """Read an answer. Raises `ServerError` if it is not what was asked for."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise ServerError("internal", f"the server's answer has wrong fields: {error}") from None


def _delay_s(failure: Exception, tries: int) -> float:
    told = failure.retry_after_s if isinstance(failure, ClientError) else None
    chance = random.random()
    return max(told or 0.0, retry_delay_s(_UNKNOWN, attempts=tries, chance=chance))


async def _error_of(answer: aiohttp.ClientResponse) -> Error:
    """The server's error; what a proxy says in its place may be better later."""
    body = await answer.content.read(ERROR_BYTES) if answer.method != "HEAD" else b""
    try:
        return msgspec.json.decode(body, type=Error)
    except msgspec.DecodeError:
        code = {401: "unauthorized", 403: "forbidden", 404: "not_found"}.get(answer.status)
        if code is None and answer.status < 500:
            code = "conflict" if answer.status == 409 else "invalid"
        return Error(code=code, message=f"status {answer.status}") if code else _UNKNOWN
