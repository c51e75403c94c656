"""How far each link to another site is, in the bucket `links`.

`<site>.in` is what was taken of what the peer tells, `<site>.out` what the peer has taken of what
is told here; with `.submitted` behind it, the same of submissions. `log` is how far the log was
looked through for what others are to be told, `lead` the process that has the links.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from .bucket import Bucket
from .bus import Bus
from .errors import Conflict
from .outbox import Box

BUCKET = "links"
LOG = "log"
LEAD = "lead"


class Taken(Struct, kw_only=True):
    """Up to where the parcels of an outbox were taken.

    `epoch` is that of the outbox, `seq` the place in it. `told` and `part` are the place in the
    peer's log of what it told last, `at` is when this was written, in Unix milliseconds. `digest`
    is that of the last parcel, so that an outbox that was set back and written to again is noticed.

    Of a link that was renewed: `renewed` makes this site's epoch another one, `old` is the peer's
    epoch that is not taken any more, and until `believe`, in Unix milliseconds, what the peer says
    that users of this site wrote is taken though it is not in the outbox here. `anew` is when it
    was renewed; what the peer told up to the place `known` in its log, and what its users had
    written by then, may be stored already.
    """

    epoch: str = ""
    seq: int = 0
    told: int = 0
    part: int = 0
    at: int = 0
    digest: str = ""
    renewed: str = ""
    old: str = ""
    believe: int = 0
    anew: int = 0
    known: int = 0


class Reached(Struct, kw_only=True):
    """Up to where the log of this `epoch` was looked through."""

    epoch: str = ""
    seq: int = 0


def way(direction: Literal["in", "out"], box: Box) -> str:
    """What the records of a box are called."""
    return direction if box == "told" else f"{direction}.{box}"


class Links:
    """Reads and writes the records. One process of a site does; another one's write is told."""

    def __init__(self, bus: Bus):
        self._bucket = Bucket(bus, BUCKET)
        self._revisions: dict[str, int] = {}

    async def taken(self, site: str, way: str) -> Taken:
        """The record of a link; `way` is one of `way`. Raises `Unavailable`."""
        data = await self._read(f"{site}.{way}")
        return msgspec.json.decode(data, type=Taken) if data else Taken()

    async def reached(self) -> Reached:
        """How far the log was looked through. Raises `Unavailable`."""
        data = await self._read(LOG)
        return msgspec.json.decode(data, type=Reached) if data else Reached()

    async def take(self, site: str, way: str, taken: Taken) -> None:
        """Write it. Raises `Conflict` when another process wrote since it was read."""
        await self._write(f"{site}.{way}", msgspec.json.encode(taken))

    async def reach(self, reached: Reached) -> None:
        """Write it. Raises as `take` does."""
        await self._write(LOG, msgspec.json.encode(reached))

    async def _read(self, key: str) -> bytes:
        entry = await self._bucket.last(key)
        self._revisions[key] = entry.seq if entry else 0
        return entry.data if entry else b""

    async def _write(self, key: str, value: bytes) -> None:
        try:
            revision = self._revisions[key]
            self._revisions[key] = await self._bucket.put(key, value, revision=revision)
        except Conflict:
            # An acknowledgement may have been lost: then the value is ours.
            if await self._read(key) != value:
                raise
