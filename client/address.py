"""The address to connect to, from what a person would write."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .errors import HandshakeRefused

PATH = "/ws/chat"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def endpoint(url: str) -> str:
    """Give the WebSocket address: `http` means `ws`, and without a path it is `/ws/chat`.

    Raises `HandshakeRefused` for what is no address, or carries a token for all logs to see.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None or not parts.hostname:
        raise HandshakeRefused(f"not the address of a chat server: {url[:200]!r}")
    if any(name == "token" for name, _ in parse_qsl(parts.query)):
        raise HandshakeRefused("a token does not belong into the address")
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def web_base(address: str) -> str:
    """Give the address of the server's HTTP, from that of its WebSocket."""
    parts = urlsplit(address)
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    path = parts.path.removesuffix(PATH) if parts.path.endswith(PATH) else ""
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def with_parameters(address: str, **parameters: str | None) -> str:
    """Add query parameters to an address, but for those that are None."""
    parts = urlsplit(address)
    given = [(name, value) for name, value in parameters.items() if value is not None]
    query = "&".join(part for part in (parts.query, urlencode(given)) if part)
    return urlunsplit(parts._replace(query=query))
