"""Where pushes may go when users name the server: public addresses, and what the site allows.

The rule holds at registration and again for every connection, whose address is the very one that
was checked: a name that changes in between leads nowhere else. See `docs/push.md`.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from .provider import Unfit

MAX_URL = 2048
RESOLVE_S = 5.0

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host. Raises `OSError`."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's own, reachable from its machines only
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("3fff::/20"),
)
"""Beyond what the standard library knows."""


class Url(NamedTuple):
    """An https URL taken apart; nothing else parses it again."""

    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, as RFC 6454 writes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}" + ("" if self.port == 443 else f":{self.port}")


def parsed(url: str, field: str) -> Url:
    """Take a URL apart. Raises `Unfit` for anything but https to a host."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Unfit(field, "must be an URL in ASCII, with hosts in punycode")
    if len(url) > MAX_URL:
        raise Unfit(field, f"at most {MAX_URL} characters")
    try:
        parts = urlsplit(url)
        port = 443 if parts.port is None else parts.port
    except ValueError as error:
        raise Unfit(field, f"is no URL: {error}") from None
    if parts.scheme != "https":
        raise Unfit(field, "must begin with https://")
    if "@" in parts.netloc:
        raise Unfit(field, "must not have a user or password in it")
    if not parts.hostname or port == 0 or parts.fragment:
        raise Unfit(field, "must be https://host/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.hostname, port, target)


def is_public(address: IPAddress) -> bool:
    """Whether the address is one of the internet's; what it embeds must be, too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    if any(address in each for each in _NOT_PUBLIC if each.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Guard:
    """Says where a host may be reached."""

    def __init__(self, allowed: Iterable[str] = (), *, resolve: Resolve = system_addresses):
        self._resolve = resolve
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for each in allowed:
            try:
                self._networks.append(ipaddress.ip_network(each, strict=False))
            except ValueError:
                self._hosts.add(each.lower())

    async def addresses(self, host: str, port: int, field: str) -> list[str]:
        """Where to connect to. Raises `Unfit` if any address of the host may not be reached."""
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await self._resolve(host, port)
        except socket.gaierror as error:
            later = error.errno == socket.EAI_AGAIN
            raise Unfit(field, f"the host {host!r} is not found", retryable=later) from None
        except (OSError, TimeoutError, UnicodeError):
            raise Unfit(field, f"the host {host!r} cannot be looked up", retryable=True) from None
        for each in found:
            if not self._may(host, each):
                raise Unfit(field, f"the host {host!r} has an address that is not public")
        if not found:
            raise Unfit(field, f"the host {host!r} has no address")
        return list(found)

    def _may(self, host: str, address: str) -> bool:
        if host.lower() in self._hosts:
            return True
        parsed_address = ipaddress.ip_address(address.partition("%")[0])
        known = [each for each in self._networks if each.version == parsed_address.version]
        return any(parsed_address in each for each in known) or is_public(parsed_address)
