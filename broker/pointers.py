"""Read pointers in the bucket `reads`: one for each chat and user, which only ever moves forward.

Moved by compare-and-set, so that of two devices the one further on wins, whoever comes last.
"""

import msgspec

from .bucket import Bucket
from .bus import Bus
from .errors import Conflict, Unavailable
from .log import Log
from .query import Pointer
from .subjects import encode

BUCKET = "reads"
ATTEMPTS = 10

_RESTORED = "restored"

_decode = msgspec.json.Decoder(Pointer).decode


class Pointers:
    """Reads and moves pointers. Raises `Unavailable` when JetStream does not answer."""

    def __init__(self, bus: Bus):
        self._bucket = Bucket(bus, BUCKET)
        self._reader = Log(bus, stream=self._bucket.stream)

    async def advance(self, chat_id: str, user: str, to: Pointer) -> Pointer:
        """Move a pointer to `to` if that is forward; where it stands then."""
        key = self._key(chat_id, user)
        for _ in range(ATTEMPTS):
            present = await self._bucket.last(key)
            if present is not None and (stands := _decode(present.data)).seq >= to.seq:
                return stands
            revision = present.seq if present is not None else 0
            try:
                await self._bucket.put(key, msgspec.json.encode(to), revision=revision)
                return to
            except Conflict:
                continue
        raise Unavailable("the read pointer is moved by too many at once")

    async def of(self, user: str, chats: list[str]) -> dict[str, Pointer]:
        """The user's pointers in these chats; chats without one are left out."""
        keys = {self._bucket.subject(self._key(chat, user)): chat for chat in chats}
        found = await self._reader.last(list(keys))
        return {keys[each.subject]: _decode(each.data) for each in found}

    async def restored(self) -> bool:
        """Whether the bucket was filled from its mirror; if not, it is new, or was lost."""
        return await self._bucket.last(_RESTORED) is not None

    async def mark_restored(self) -> None:
        """All that the mirror had is in the bucket."""
        await self._bucket.put(_RESTORED, b"")

    @staticmethod
    def _key(chat_id: str, user: str) -> str:
        return f"{chat_id}.{encode(user)}"
