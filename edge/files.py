"""Passes requests about files on to the worker `files`, byte by byte: an edge keeps nothing.

The edge knows who asks, by token or by a signed link, and counts how often; what a user may read is
the worker's to say. Both ways, no more than some pieces are in memory, and every wait has an end.
"""

import asyncio
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import aiohttp
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from yarl import URL

from broker import subjects
from broker.errors import InvalidName
from broker.files import ASKER, PATH, Vouching

from . import frames
from .api import response_of
from .config import EdgeConfig
from .endpoint import bearer
from .http_protocol import ABORT
from .rates import TokenBucket
from .tokens import KeysUnavailable, TokenVerifier, Unauthorized

PIECE_BYTES = 64 * 1024
PIECE_S = 60.0
"""A client that sends or takes nothing for this long is gone."""

TRANSFER_S = 3600.0
CONNECT_S = 2.0
ANSWER_S = 180.0
"""Longer than the worker scans and stores for."""

IDLE_S = 30.0
TRANSFERS = 512
TRANSFERS_PER_USER = 16
REQUESTS_PER_MESSAGE = 10
KNOWN_USERS = 10_000
FORM_BYTES = 64 * 1024

_FITS = re.compile(rf"{PATH}(?:/[A-Za-z0-9_-]{{1,64}}){{0,2}}")
_BODIES = ("POST", "PATCH")
_OVERRIDES = ("PATCH", "DELETE")
_ASKED = frozenset(
    {
        *("accept", "content-type", "content-length", "range", "if-range", "if-none-match"),
        *("tus-resumable", "upload-length", "upload-offset", "upload-metadata", "upload-checksum"),
    }
)
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server", "upgrade"})
_SKIPPED = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")

_log = logging.getLogger("hikyaku.files")


class Refused(Exception):
    """The request is answered here."""

    def __init__(self, code: str, message: str, retry_after_ms: int | None = None):
        super().__init__(message)
        self.frame = frames.Error(
            code=code,
            message=message,
            retryable=code in frames.RETRYABLE,
            retry_after_ms=retry_after_ms,
        )


class _BrokenOff(Exception):
    """The transfer cannot go on: what it brought so far is all that comes."""


class FileGate:
    """The way to the worker. Use as a context manager; `routes` are those of the application."""

    def __init__(self, config: EdgeConfig, tokens: TokenVerifier):
        self._config = config
        self._tokens = tokens
        self._vouching = Vouching(config.files.secret) if config.files.url else None
        self._http: aiohttp.ClientSession | None = None
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()
        self._transfers: Counter[str] = Counter()
        self.requests = 0
        self.failures = 0
        self.sent_bytes = 0
        self.received_bytes = 0

    async def __aenter__(self) -> "FileGate":
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=TRANSFERS, keepalive_timeout=IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_S, connect=CONNECT_S, sock_read=ANSWER_S
            ),
            auto_decompress=False,
            skip_auto_headers=_SKIPPED,
            read_bufsize=PIECE_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    @property
    def routes(self) -> list[Route]:
        """All that is below the path."""
        return [Route(PATH, _Endpoint(self)), Route(PATH + "/{rest:path}", _Endpoint(self))]

    @property
    def transfers(self) -> int:
        """How many go on now."""
        return self._transfers.total()

    # --- who asks, and how often ---

    async def asker(self, request: Request) -> str:
        """The user who asks. Raises `Refused`."""
        token = bearer(request)
        if token is None:
            return self._linked(request)
        try:
            user_id = (await self._tokens.verify(token)).user_id
            subjects.encode(user_id, "sub")
        except (Unauthorized, InvalidName) as error:
            raise Refused("unauthorized", str(error)) from None
        except KeysUnavailable as error:
            raise Refused("unavailable", str(error)) from None
        return user_id

    def _linked(self, request: Request) -> str:
        query = request.query_params
        if "signature" not in query or request.method not in ("GET", "HEAD"):
            raise Refused("unauthorized", "send `Authorization: Bearer <token>`")
        user_id = self.vouching.linked(
            request.url.path,
            by=query.get("by", ""),
            expires=query.get("expires", ""),
            signature=query["signature"],
            now_s=time.time(),
        )
        if user_id is None:
            raise Refused("unauthorized", "the link is not valid, or not any more")
        return user_id

    @property
    def vouching(self) -> Vouching:
        """The shared secret. Raises `Refused` where there is no worker."""
        if self._vouching is None:
            raise Refused("not_found", "this server keeps no files")
        return self._vouching

    def check_rate(self, user_id: str, now: float) -> None:
        """Raises `Refused` for a request that came too fast."""
        limits = self._config.limits
        bucket = self._rates.pop(user_id, None) or TokenBucket(
            REQUESTS_PER_MESSAGE * limits.messages_per_s,
            REQUESTS_PER_MESSAGE * limits.messages_burst,
            now,
        )
        self._rates[user_id] = bucket
        if len(self._rates) > KNOWN_USERS:
            self._rates.popitem(last=False)
        if (wait_s := bucket.take(now)) > 0:
            raise Refused("rate_limited", "too fast", int(wait_s * 1000) + 1)

    @contextmanager
    def transfer(self, user_id: str) -> Iterator[None]:
        """One of the transfers that go on at once. Raises `Refused`."""
        if self.transfers >= TRANSFERS or self._transfers[user_id] >= TRANSFERS_PER_USER:
            raise Refused("overloaded", "too many transfers at once", 1000)
        self._transfers[user_id] += 1
        try:
            yield
        finally:
            self._transfers[user_id] -= 1
            if not self._transfers[user_id]:
                del self._transfers[user_id]

    # --- the request ---

    def passed_on(
        self, request: Request, user_id: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The request to the worker. Raises `Refused` for one that cannot be passed on."""
        assert self._http is not None
        path, method = request.url.path, request.method
        if not _FITS.fullmatch(path):
            raise Refused("not_found", "there is no such file")
        override = request.headers.get("x-http-method-override", "").upper()
        if method == "POST" and override in _OVERRIDES:
            method = override
        limit = self._config.limits.file_bytes + FORM_BYTES
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            raise Refused("too_large", f"the body has at most {limit} bytes")
        headers = {name: value for name, value in request.headers.items() if name in _ASKED}
        headers[ASKER] = self.vouching.asker(user_id, time.time())
        has_body = length != "0" or "transfer-encoding" in request.headers
        return self._http.request(
            method,
            URL(self._config.files.url + path, encoded=True),
            headers=headers,
            data=self._body(request, limit) if has_body and method in _BODIES else None,
            allow_redirects=False,
        )

    async def _body(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        size = 0
        stream = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout(PIECE_S):
                    piece = await anext(stream, None)
            except (TimeoutError, ClientDisconnect):
                raise _BrokenOff from None
            if piece is None:
                return
            size += len(piece)
            self.received_bytes += len(piece)
            if size > limit:
                raise Refused("too_large", f"the body has at most {limit} bytes")
            if piece:
                yield piece


class _Endpoint:
    """The ASGI application of one path."""

    def __init__(self, gate: FileGate):
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        gate = self._gate
        gate.requests += 1
        try:
            user_id = await gate.asker(request)
            gate.check_rate(user_id, asyncio.get_running_loop().time())
            with gate.transfer(user_id):
                await self._pass_on(request, user_id, send)
        except Refused as refused:
            response: Response = response_of(refused.frame)
            await response(scope, receive, send)

    async def _pass_on(self, request: Request, user_id: str, send: Send) -> None:
        begun = False
        abort = request.scope.get("extensions", {}).get(ABORT, _nothing)
        try:
            async with (
                asyncio.timeout(TRANSFER_S),
                self._gate.passed_on(request, user_id) as answer,
            ):
                if answer.status == 401:
                    # The client has shown its token here; it is this edge that is not believed.
                    raise aiohttp.ClientError("it does not know our HIKYAKU_INTERNAL_SECRET")
                begun = True
                await self._answer(answer, request, send)
        except (aiohttp.ClientError, TimeoutError, _BrokenOff) as error:
            if isinstance(error.__cause__, Refused):
                raise error.__cause__ from None
            if not begun and not isinstance(error.__cause__, _BrokenOff):
                self._gate.failures += 1
                _log.warning("the worker `files` does not answer us: %s", error or "not in time")
                message = "the worker that keeps files does not answer; try again"
                raise Refused("unavailable", message, 1000) from None
            # Nothing can be said any more but that this is not all of it.
            abort()
            await asyncio.sleep(0)

    async def _answer(self, answer: aiohttp.ClientResponse, request: Request, send: Send) -> None:
        headers = [
            (name.lower(), value)
            for name, value in answer.raw_headers
            if name.decode("latin-1").lower() not in _HOP
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        sending = asyncio.create_task(self._send(answer, send))
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    async def _send(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        async for piece in answer.content.iter_any():
            async with asyncio.timeout(PIECE_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._gate.sent_bytes += len(piece)
        await send({"type": "http.response.body", "body": b""})


async def _left(request: Request) -> None:
    """Wait until the client has gone; what still comes of its request is nobody's."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _nothing() -> None:
    """Stands in where a server offers no way to end a connection at once."""
