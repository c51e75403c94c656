"""Pointers in the buckets `reads` and `delivered`: one for each chat and user, only ever forward.

Moved by compare-and-set, so that of two devices the one further on wins, whoever comes last.
"""

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from .batch import BATCH
from .bucket import Bucket
from .bus import Bus
from .errors import Conflict, Unavailable
from .log import Log
from .query import Pointer
from .subjects import encode

BUCKET = "reads"
DELIVERED = "delivered"
"""Up to where a device of the user has stored a chat's messages; has no mirror."""

ATTEMPTS = 10

_RESTORED = "restored"

decode = msgspec.json.Decoder(Pointer).decode
"""Decode a value of either bucket."""


class Of(NamedTuple):
    """Whose pointer in which chat."""

    chat_id: str
    user: str


class Advanced(NamedTuple):
    """Where a pointer stands now, and whether it was moved there just now."""

    pointer: Pointer
    moved: bool


class Pointers:
    """Reads and moves pointers. Raises `Unavailable` when JetStream does not answer."""

    def __init__(self, bus: Bus, bucket: str = BUCKET):
        self._bucket = Bucket(bus, bucket)
        self._reader = Log(bus, stream=self._bucket.stream)

    async def advance(self, chat_id: str, user: str, to: Pointer) -> Advanced:
        """Move a pointer to `to` if that is forward."""
        key = self._key(chat_id, user)
        for _ in range(ATTEMPTS):
            present = await self._bucket.last(key)
            if present is not None and (stands := decode(present.data)).seq >= to.seq:
                return Advanced(stands, moved=False)
            revision = present.seq if present is not None else 0
            try:
                await self._bucket.put(key, msgspec.json.encode(to), revision=revision)
                return Advanced(to, moved=True)
            except Conflict:
                continue
        raise Unavailable("the pointer is moved by too many at once")

    async def advance_all(self, wanted: dict[Of, Pointer]) -> dict[Of, Advanced]:
        """Move pointers, each to where it is to be if that is forward; one read and one write."""
        keys = {self._bucket.subject(self._key(*of)): of for of in wanted}
        present = {keys[e.subject]: e for e in await self._reader.last(list(keys))}
        done = {of: Advanced(decode(each.data), moved=False) for of, each in present.items()}
        behind = [
            of for of, to in wanted.items() if of not in done or done[of].pointer.seq < to.seq
        ]
        for start in range(0, len(behind), BATCH):
            part = behind[start : start + BATCH]
            values = {
                self._key(*of): (
                    msgspec.json.encode(wanted[of]),
                    present[of].seq if of in present else 0,
                )
                for of in part
            }
            try:
                await self._bucket.put_all(values)
            except Conflict:
                # One was moved meanwhile, or the replica that was read lags: each by itself.
                done.update({of: await self.advance(*of, wanted[of]) for of in part})
            else:
                done.update({of: Advanced(wanted[of], moved=True) for of in part})
        return done

    async def find(self, wanted: Collection[Of]) -> dict[Of, Pointer]:
        """These pointers; those that are not there are left out."""
        keys = {self._bucket.subject(self._key(*each)): each for each in wanted}
        found = await self._reader.last(list(keys))
        return {keys[each.subject]: decode(each.data) for each in found}

    async def restored(self) -> bool:
        """Whether the bucket was filled from its mirror; if not, it is new, or was lost."""
        return await self._bucket.last(_RESTORED) is not None

    async def mark_restored(self) -> None:
        """All that the mirror had is in the bucket."""
        await self._bucket.put(_RESTORED, b"")

    @staticmethod
    def _key(chat_id: str, user: str) -> str:
        return f"{chat_id}.{encode(user)}"
