"""Removes what the buckets hold about one person: read pointers, and what presence has put down."""

import msgspec

from . import pointers, presence, subjects
from .bus import Bus
from .errors import Unavailable
from .log import ApiError, api_error

PURGE_S = 30.0


class _Answer(msgspec.Struct):
    purged: int = 0
    error: ApiError | None = None


async def forget_pointers(bus: Bus, user: str) -> int:
    """Remove the user's read pointers in all chats; how many there were."""
    token = subjects.encode(user)
    filters = (f"dm.*.*.{token}", f"group.*.{token}")
    return sum([await _purge(bus, pointers.BUCKET, each) for each in filters])


async def forget_presence(bus: Bus, user: str) -> int:
    """Remove the status that the user chose and when it was last seen; how many keys."""
    token = subjects.encode(user)
    keys = (subjects.setting_key(token), subjects.seen_key(token))
    return sum([await _purge(bus, presence.BUCKET, each) for each in keys])


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
