"""A small client for tests: frames as dictionaries, every wait with a deadline.

    async with Clients() as connect:
        alice = await connect(site.edges[0], "alice")
        ack = await alice.say("bob", "hello")

Frames that a wait passes over are kept for the next one, and all of them, in order, in `frames`.
"""

import asyncio
import json
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode
from uuid import uuid4

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .servers import Hikyaku, token

Frame = dict[str, Any]
Way = Literal["header", "subprotocol", "query", "frame"]

WITHIN_S = 20.0
DURABLE = {"chat", "group_chat", "member_added", "member_removed", "group_updated"}


def names(*words: str) -> tuple[str, ...]:
    """Ids that no other test uses."""
    return tuple(f"{word}-{uuid4().hex[:8]}" for word in words)


class Chat:
    """One connection. Deadlines are `WITHIN_S` unless given."""

    def __init__(self, socket: ClientConnection, user: str):
        self.socket = socket
        self.user = user
        self.welcome: Frame = {}
        self.frames: list[Frame] = []
        self._passed: list[Frame] = []

    # --- frames ---

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def receive(self, within_s: float = WITHIN_S) -> Frame:
        """The next frame off the wire. Raises `ConnectionClosed`."""
        async with asyncio.timeout(within_s):
            frame: Frame = json.loads(await self.socket.recv())
        self.frames.append(frame)
        return frame

    async def until(self, type: str, within_s: float = WITHIN_S, /, **fields: Any) -> Frame:
        """The first frame not yet taken of this type and with these fields."""

        def wanted(frame: Frame) -> bool:
            return frame["type"] == type and fields.items() <= frame.items()

        for number, frame in enumerate(self._passed):
            if wanted(frame):
                return self._passed.pop(number)
        async with asyncio.timeout(within_s):
            while not wanted(frame := await self.receive(within_s)):
                self._passed.append(frame)
        return frame

    async def ask(self, type: str, **fields: Any) -> Frame:
        """Send a question; its `result` or `error`."""
        number = uuid4().hex
        await self.send(type, id=number, **fields)
        return await self._answer(("result", "error"), number)

    async def _answer(self, types: tuple[str, ...], id: str) -> Frame:
        async with asyncio.timeout(WITHIN_S):
            while (frame := await self.receive()).get("id") != id or frame["type"] not in types:
                self._passed.append(frame)
        return frame

    # --- messages ---

    async def write(self, type: str, **fields: Any) -> Frame:
        """Send a `chat` or `group_chat`; its `ack` or `error`."""
        number = uuid4().hex
        await self.send(type, id=number, **{"client_id": number, **fields})
        return await self._answer(("ack", "error"), number)

    async def say(self, to: str, content: str, **fields: Any) -> Frame:
        """Send to a user; the ack."""
        ack = await self.write("chat", to=to, content=content, **fields)
        assert ack["type"] == "ack", ack
        return ack

    async def tell(self, group_id: str, content: str, **fields: Any) -> Frame:
        """Send to a group; the ack."""
        ack = await self.write("group_chat", group_id=group_id, content=content, **fields)
        assert ack["type"] == "ack", ack
        return ack

    async def group(self, *members: str, **fields: Any) -> Frame:
        """Create a group; it."""
        asked = {"client_id": uuid4().hex, "name": "a group", "members": members, **fields}
        result = await self.ask("group_create", **asked)
        assert result["type"] == "result", result
        group: Frame = result["group"]
        return group

    def durable(self) -> list[Frame]:
        """The events received so far that have a seq, in order of arrival."""
        return [frame for frame in self.frames if frame["type"] in DURABLE]

    def contents(self) -> list[str]:
        """The contents of the messages received so far, in order of arrival."""
        return [frame["content"] for frame in self.durable() if "content" in frame]

    @property
    def cursor(self) -> str:
        """Where this client is: the epoch with the highest seq that it has received."""
        epoch, _, seq = self.welcome["cursor"].rpartition(":")
        return f"{epoch}:{max([int(seq), *(frame['seq'] for frame in self.durable())])}"

    # --- the end ---

    async def closed(self, within_s: float = WITHIN_S) -> tuple[int, str]:
        """Wait for the server to close; code and reason."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self._passed.append(await self.receive(within_s))
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise AssertionError(f"no close frame came: {closed}") from closed
            return closed.rcvd.code, closed.rcvd.reason

    async def close(self) -> None:
        await self.socket.close()

    def abort(self) -> None:
        """Be gone without a word, like a process that was killed."""
        self.socket.transport.abort()


async def open_socket(
    edge: Hikyaku,
    *,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    subprotocols: list[str] | None = None,
    origin: str | None = None,
) -> ClientConnection:
    """A WebSocket to an edge, with nothing sent yet."""
    return await connect_websocket(
        edge.url + ("?" + urlencode(query) if query else ""),
        additional_headers={**(headers or {}), **({"Origin": origin} if origin else {})},
        subprotocols=[Subprotocol(each) for each in subprotocols or []] or None,
        compression=None,
        ping_interval=None,
        open_timeout=WITHIN_S,
        close_timeout=5,
        max_queue=None,
        max_size=None,
        proxy=None,
    )


class Clients:
    """Opens clients and closes all of them at the end."""

    def __init__(self) -> None:
        self._open: list[Chat] = []

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            await asyncio.gather(*(each.close() for each in self._open))
        for each in self._open:
            each.abort()

    async def __call__(
        self,
        edge: Hikyaku,
        user: str,
        *,
        way: Way = "header",
        jwt: str | None = None,
        welcomed: bool = True,
        origin: str | None = None,
        **asked: str,
    ) -> Chat:
        """Connect; `asked` are `device`, `cursor` and `user_id`. Waits for `welcome`."""
        jwt = token(user) if jwt is None else jwt
        socket = await open_socket(
            edge,
            query={"token": jwt, **asked} if way == "query" else {} if way == "frame" else asked,
            headers={"Authorization": f"Bearer {jwt}"} if way == "header" else None,
            subprotocols=["hikyaku.v1", f"bearer.{jwt}"] if way == "subprotocol" else None,
            origin=origin,
        )
        client = Chat(socket, user)
        self._open.append(client)
        if way == "frame":
            await client.send("connect", token=jwt, **asked)
        if welcomed:
            client.welcome = await client.until("welcome")
        return client
