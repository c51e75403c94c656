"""The client's half of WebSocket as bytes: the opening request, masked frames, close payloads.

Client frames must be masked (RFC 6455 section 5.3). With a key of four zero bytes the masked
payload is the payload itself, so masking costs nothing and frames can be templates.
"""

import base64
import hashlib
import os
from urllib.parse import urlencode

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ZERO_KEY = b"\0\0\0\0"


class WireError(Exception):
    """The server broke the WebSocket protocol, or refused the upgrade; the text says how."""


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One unfragmented frame from a client."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + _ZERO_KEY + payload


def opening(
    host: str, token: str, *, device: str, cursor: str | None = None
) -> tuple[bytes, bytes]:
    """The upgrade request, and the `Sec-WebSocket-Accept` that must answer it."""
    key = base64.b64encode(os.urandom(16))
    query = {"device": device} | ({"cursor": cursor} if cursor else {})
    request = (
        f"GET /ws/chat?{urlencode(query)} HTTP/1.1\r\nHost: {host}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return request.encode(), base64.b64encode(digest)


def check_upgrade(head: bytes, accept: bytes) -> None:
    """Raise `WireError` unless the response head, without its blank line, is the right upgrade."""
    status, *lines = head.split(b"\r\n")
    if status.split(b" ")[1:2] != [b"101"]:
        raise WireError(f"upgrade refused: {status.decode('latin-1')}")
    headers = dict(line.split(b":", 1) for line in lines if b":" in line)
    answer = {name.strip().lower(): value.strip() for name, value in headers.items()}
    if answer.get(b"sec-websocket-accept") != accept:
        raise WireError("upgrade answered with a wrong Sec-WebSocket-Accept")


def close_reason(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 where it carries none."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")
