"""Publishes messages as one atomic batch (ADR-50): one fsync, and all are stored or none."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Struct

from .api_error import ApiError, api_error
from .bus import Bus, Reply, publication
from .errors import Conflict, Unavailable

BATCH = 500
"""Messages in a batch; JetStream takes 1,000."""

WRONG_LAST = (10071, 10164)
"""Error codes of an expected last sequence that is not the last."""

_numbers = itertools.count(1)
_name = uuid4().hex[:8]


class Part(NamedTuple):
    """One message; `headers` are lines like `Nats-TTL: 3s`."""

    subject: str
    payload: bytes
    headers: tuple[str, ...] = ()


class _PubAck(Struct):
    seq: int = 0
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_PubAck).decode


async def publish_all(bus: Bus, parts: Sequence[Part], *, timeout_s: float) -> int:
    """Publish up to `BATCH` messages and wait until they are on disk; the seq of the last.

    Raises `Conflict` when one expected another last sequence, `Unavailable` when there was no
    answer (then they may be stored), and what else JetStream says.
    """
    name = f"{_name}-{next(_numbers)}" if len(parts) > 1 else ""
    answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

    def on_reply(reply: Reply | None) -> None:
        if not answer.done():
            answer.set_result(reply)

    number, inbox = bus.expect(on_reply)
    try:
        bus.write(b"".join(_commands(parts, name, inbox)))
        async with asyncio.timeout(timeout_s):
            reply = await answer
    except TimeoutError:
        bus.unanswered(timeout_s)
        raise Unavailable("no acknowledgement in time") from None
    finally:
        bus.forget(number)
    if reply is not None and reply.status:
        bus.unanswered()
    if reply is None or reply.status:
        raise Unavailable("the connection was lost, or nobody serves the stream")
    ack = _decode(reply.data)
    if ack.error is None:
        bus.answered()
        return ack.seq
    if ack.error.err_code in WRONG_LAST:
        raise Conflict(0)
    raise api_error(ack.error)


def _commands(parts: Sequence[Part], name: str, inbox: str) -> list[bytes]:
    commands = []
    for number, part in enumerate(parts, 1):
        lines = ["NATS/1.0", *part.headers]
        if name:
            lines += [f"Nats-Batch-Id: {name}", f"Nats-Batch-Sequence: {number}"]
        last = number == len(parts)
        if last and name:
            lines.append("Nats-Batch-Commit: 1")
        header = ("\r\n".join(lines) + "\r\n\r\n").encode() if len(lines) > 1 else b""
        reply = inbox if last else ""
        commands.append(publication(part.subject, part.payload, reply=reply, header=header))
    return commands
