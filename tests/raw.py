"""A WebSocket client made by hand, for what a proper one never sends."""

import asyncio
import os
import socket
import struct
from types import TracebackType

from .servers import Hikyaku, token

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
WITHIN_S = 20.0


def frame(payload: bytes, *, opcode: int = TEXT, fin: bool = True, masked: bool = True) -> bytes:
    """One frame of a client (RFC 6455, section 5.2)."""
    size = len(payload)
    first = (0x80 if fin else 0) | opcode
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + b"\0\0\0\0" + payload if masked else head + payload


def handshake(edge: Hikyaku, *, path: str = "/ws/chat", **headers: str) -> bytes:
    """The request that upgrades; `headers` with _ for -."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{edge.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def authorized(edge: Hikyaku, user: str) -> bytes:
    """The handshake of a user with a token."""
    return handshake(edge, Authorization=f"Bearer {token(user)}")


class Raw:
    """A TCP connection to an edge. Use as an async context manager."""

    def __init__(self, edge: Hikyaku, *, receive_buffer: int | None = None):
        self._edge = edge
        self._receive_buffer = receive_buffer
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Raw":
        made = socket.socket()
        if self._receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self._edge.port))
        self.reader, self.writer = await asyncio.open_connection(sock=made, limit=4096)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    async def write(self, data: bytes) -> None:
        """Write, and wait until it is with the kernel or the other side is gone."""
        self.writer.write(data)
        try:
            async with asyncio.timeout(WITHIN_S):
                await self.writer.drain()
        except ConnectionError:
            pass

    async def upgrade(self, request: bytes) -> bytes:
        """Send a handshake; the head of the answer."""
        await self.write(request)
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read_frame(self, within_s: float = WITHIN_S) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame. Raises `IncompleteReadError`."""
        async with asyncio.timeout(within_s):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def closed(self, within_s: float = WITHIN_S) -> int:
        """Read until the server's close frame; its code."""
        async with asyncio.timeout(within_s):
            while True:
                opcode, payload = await self.read_frame(within_s)
                if opcode == CLOSE:
                    code: int = struct.unpack("!H", payload[:2])[0]
                    return code

    async def ended(self, within_s: float = WITHIN_S) -> None:
        """Read until the connection ends."""
        try:
            async with asyncio.timeout(within_s):
                while await self.reader.read(65_536):
                    pass
        except ConnectionError:
            pass


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
