"""What the buckets hold about one person: pointers, and what presence has put down."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from . import pointers, presence, subjects
from .api_error import ApiError, api_error
from .bus import Bus
from .errors import Unavailable
from .log import Log

PURGE_S = 30.0


class _Answer(msgspec.Struct):
    purged: int = 0
    error: ApiError | None = None


# --- reading ---


async def delivered(bus: Bus, user: str) -> AsyncIterator[dict[str, Any]]:
    """Up to where each chat was delivered to the user's devices."""
    prefix = len(f"$KV.{pointers.DELIVERED}.")
    for keys in _pointer_keys(user):
        async for subject, data in _read(bus, pointers.DELIVERED, keys):
            pointer = pointers.decode(data)
            chat_id = subject[prefix:].rpartition(".")[0]
            yield {"chat_id": chat_id, "delivered_up_to": pointer.id, "seq": pointer.seq}


async def presence_of(bus: Bus, user: str) -> AsyncIterator[dict[str, Any]]:
    """What the user chose to be, and when it was last here."""
    chosen, seen = _presence_keys(user)
    async for _, data in _read(bus, presence.BUCKET, chosen):
        if data:
            yield {"chosen": msgspec.json.decode(data)}
    async for _, data in _read(bus, presence.BUCKET, seen):
        if data:
            yield {"last_here": msgspec.json.decode(data)["at"]}


async def _read(bus: Bus, bucket: str, keys: str) -> AsyncIterator[tuple[str, bytes]]:
    log = Log(bus, stream=f"KV_{bucket}")
    seq, pending = 1, 1
    while pending:
        page = await log.read(f"$KV.{bucket}.{keys}", seq)
        for each in page.events:
            yield each.subject, each.data
            seq = each.seq + 1
        pending = page.pending


# --- forgetting ---


async def forget_read(bus: Bus, user: str) -> int:
    """Remove the user's read pointers in all chats; how many there were."""
    return sum([await _purge(bus, pointers.BUCKET, each) for each in _pointer_keys(user)])


async def forget_delivered(bus: Bus, user: str) -> int:
    """Remove up to where chats were delivered to the user; how many there were."""
    return sum([await _purge(bus, pointers.DELIVERED, each) for each in _pointer_keys(user)])


async def forget_presence(bus: Bus, user: str) -> int:
    """Remove the status that the user chose and when it was last seen; how many keys."""
    return sum([await _purge(bus, presence.BUCKET, each) for each in _presence_keys(user)])


def _pointer_keys(user: str) -> tuple[str, ...]:
    token = subjects.encode(user)
    return f"dm.*.*.{token}", f"group.*.{token}"


def _presence_keys(user: str) -> tuple[str, ...]:
    token = subjects.encode(user)
    return subjects.setting_key(token), subjects.seen_key(token)


async def _purge(bus: Bus, bucket: str, keys: str) -> int:
    request = msgspec.json.encode({"filter": f"$KV.{bucket}.{keys}"})
    reply = await bus.request(f"$JS.API.STREAM.PURGE.KV_{bucket}", request, timeout_s=PURGE_S)
    try:
        answer = msgspec.json.decode(reply.data, type=_Answer)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the bucket {bucket} answers nonsense: {error}") from error
    if answer.error is not None:
        raise api_error(answer.error)
    return answer.purged
