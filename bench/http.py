"""Just enough HTTP to ask a stack whether it is ready."""

import asyncio
from urllib.parse import urlsplit

TIMEOUT_S = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def loopback_address(url: str) -> str:
    """`host:port` of an edge's URL. Raises `ValueError` for a host that is not this machine."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.hostname not in _LOOPBACK:
        raise ValueError(f"{url}: load is sent to this machine only, by a loopback address")
    return f"{parts.hostname}:{parts.port or 80}"


async def status(address: str, path: str) -> int:
    """The status of `GET path`, or 0 when there is no answer in time."""
    host, port = address.rsplit(":", 1)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
                )
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


async def ready(edges: tuple[str, ...]) -> bool:
    """Whether every edge says that it is."""
    return all([await status(address, "/readyz") == 200 for address in edges])
