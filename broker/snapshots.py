"""Whole streams out of and into JetStream, with their consumers: its snapshot and restore API.

What is written is the server's own format (a compressed tar of block files): only for `load`. It is
taken while messages flow, and holds at least what was in the stream when it began.

Only `hikyaku backup` and `hikyaku restore` use it, as the operator (`broker.roles`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from .api_error import ApiError, api_error
from .bus import Bus, Reply, status_of
from .errors import Unavailable
from .streams import call

CHUNK_BYTES = 128 * 1024
QUIET_S = 120.0
"""A server that says nothing for this long has failed; one with much to store needs some time."""

_WELL = (0, 204)


class Taken(NamedTuple):
    """A stream's configuration and its state when the snapshot began."""

    config: dict[str, Any]
    state: dict[str, Any]


async def save(bus: Bus, stream: str, write: Callable[[bytes], None]) -> Taken:
    """Give a stream with its consumers to `write`, piece by piece.

    The server waits for what was not written yet. Raises `Refused` and `Unavailable`.
    """
    inbox = bus.new_inbox() + "snapshot"
    pieces: asyncio.Queue[tuple[str, int, bytes]] = asyncio.Queue()

    def on_piece(_: bytes, reply: bytes, header: bytes | None, data: bytes) -> None:
        pieces.put_nowait((reply.decode(), status_of(header), data))

    sid = bus.subscribe(inbox, on_piece)
    lost = bus.on_connect(lambda: pieces.put_nowait(("", 503, b"")))
    try:
        request = {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES}
        answer = await call(bus, f"STREAM.SNAPSHOT.{stream}", request)
        while True:
            async with asyncio.timeout(QUIET_S):
                reply, status, data = await pieces.get()
            if status not in _WELL:
                raise Unavailable(f"the snapshot of {stream} was broken off ({status})")
            if not data:
                return Taken(answer["config"], answer["state"])
            write(data)
            if reply:
                bus.publish(reply, b"")
    except TimeoutError:
        raise Unavailable(f"the snapshot of {stream} fell silent") from None
    finally:
        lost()
        bus.unsubscribe(sid)


async def load(
    bus: Bus, config: dict[str, Any], state: dict[str, Any], pieces: AsyncIterator[bytes]
) -> None:
    """Make a stream of what `save` gave; `config` may differ from what it was, but for the name.

    Raises `Refused`, also when there is such a stream, and `Unavailable`.
    """
    name = config["name"]
    answer = await call(bus, f"STREAM.RESTORE.{name}", {"config": config, "state": state})
    subject = answer["deliver_subject"]
    async for piece in pieces:
        await _send(bus, subject, piece)
    await _send(bus, subject, b"")


async def _send(bus: Bus, subject: str, piece: bytes) -> None:
    reply: Reply = await bus.request(subject, piece, timeout_s=QUIET_S)
    if not reply.data:
        return
    answer = msgspec.json.decode(reply.data)
    if "error" in answer:
        raise api_error(msgspec.convert(answer["error"], ApiError))
