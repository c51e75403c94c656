"""One POST to a push service, over HTTP/2 where it speaks it; connections are kept.

No redirect is followed, no proxy of the environment used, no cookie kept: `httpcore2` has none.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import httpcore2

from .guard import Guard, Url

KEEPALIVE_S = 300.0
MAX_ANSWER_BYTES = 64 * 1024
ADDRESSES_TRIED = 3

_FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ConnectionNotAvailable,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
    RuntimeError,  # by uvloop, for a transport that was reset
)


class Answer(NamedTuple):
    """An answer; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        """`Retry-After` in seconds, also where it is a date; one that is over, or no time: None."""
        text = self.headers.get("retry-after", "").strip()
        if text.isdecimal():
            return float(text[:9])
        try:
            left_s = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
        return left_s if left_s > 0 else None


class NoAnswer(Exception):
    """There was none, or not in time; what became of the request is not known."""


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that is closed at once if its handshake is cut off.

    `httpcore2` closes it after errors only: one that was cancelled would stay open until it is
    collected.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream):
        self._inner = inner

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
    ) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
    ) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore2.AnyIOBackend):
    """Connects to an address that the guard, if there is one, has checked, and to no other."""

    def __init__(self, guard: Guard | None):
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Try the host's addresses in turn."""
        addresses = [host]
        if self._guard is not None:
            addresses = (await self._guard.addresses(host, port, "host"))[:ADDRESSES_TRIED]
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return _Stream(
                    await super().connect_tcp(address, port, timeout, local_address, socket_options)
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class Http:
    """A pool of connections. Without a `guard` it connects to whatever the site has configured."""

    def __init__(self, guard: Guard | None = None, *, connections: int, timeout_s: float):
        self._timeout_s = timeout_s
        step_s = timeout_s
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), step_s)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=KEEPALIVE_S,
            http2=True,
            network_backend=_Backend(guard),
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pool.__aexit__(kind, error, trace)

    async def post(self, url: Url, headers: dict[str, str], body: bytes) -> Answer:
        """Send and wait for the answer, `timeout_s` altogether. Raises `NoAnswer` or `Unfit`."""
        request = httpcore2.URL(
            scheme="https", host=url.host, port=url.port, target=url.target.encode()
        )
        fields = [("host", url.origin.removeprefix("https://")), *headers.items()]
        fields += [("content-length", str(len(body))), ("user-agent", "hikyaku")]
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._pool.stream(
                    "POST",
                    request,
                    headers=fields,
                    content=body,
                    extensions={"timeout": self._timeouts},
                ) as response,
            ):
                found = bytearray()
                async for part in response.aiter_stream():
                    found += part
                    if len(found) > MAX_ANSWER_BYTES:
                        raise NoAnswer(f"{url.origin} answers more than {MAX_ANSWER_BYTES} bytes")
                names = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                return Answer(response.status, names, bytes(found))
        except TimeoutError:
            raise NoAnswer(f"{url.origin} does not answer in {self._timeout_s:g} s") from None
        except _FAILURES as error:
            why = str(error) or type(error).__name__
            raise NoAnswer(f"{url.origin}: {why[:200]}") from error
