"""Questions to a starting process: does it listen, does it answer HTTP, and what."""

import asyncio
from asyncio import IncompleteReadError, LimitOverrunError

from .service import NotReady

TIMEOUT_S = 2.0


async def tcp_open(host: str, port: int) -> None:
    """Return if something listens there. Raises `NotReady`."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, OSError):
        raise NotReady(f"nothing listens on {host}:{port} yet") from None
    writer.close()


async def http_get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one GET over HTTP/1.0. Raises `NotReady` when there is no answer."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _get(host, port, path)
    except TimeoutError:
        raise NotReady(f"{host}:{port} does not answer within {TIMEOUT_S:g} s") from None
    except (OSError, IncompleteReadError, LimitOverrunError, ValueError, IndexError):
        raise NotReady(f"nothing answers on {host}:{port} yet") from None


async def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), await reader.read()
    finally:
        writer.close()


async def http_ok(host: str, port: int, path: str) -> bytes:
    """The body of a GET that answers 200. Raises `NotReady` with what it answered instead."""
    status, body = await http_get(host, port, path)
    if status != 200:
        said = " ".join(body[:300].decode("utf-8", "replace").split())
        raise NotReady(f"GET {path} answers {status} {said}".rstrip())
    return body
