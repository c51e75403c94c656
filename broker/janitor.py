"""Removes what edges left that ended without a word: their connections in the bucket `presence`.

Nobody looks at those any more once the lease has ended; this keeps the bucket small, and notes when
the users were last seen, and who may come back as what they had chosen to be. Any edge may do it; a
claim keeps two from doing the same work.
"""

import logging
from collections.abc import Container

import msgspec

from . import lease, presence, subjects
from .bucket import Bucket
from .bus import Bus
from .errors import Conflict, Unavailable
from .key_writer import KeyWriter
from .log import Log

CLAIM_S = 60
WRITE_S = 30.0
PURGE_S = 30.0

_CLAIM = "claim."

_log = logging.getLogger("hikyaku.janitor")


class Janitor:
    """`sweep` cleans up after all dead edges. Raises `Unavailable`; what was not done stays."""

    def __init__(self, bus: Bus, writer: KeyWriter):
        self._bus = bus
        self._writer = writer
        self._edges = Bucket(bus, lease.BUCKET)
        self._known = Log(bus, stream=f"KV_{lease.BUCKET}")
        self._reader = presence.PresenceReader(bus)
        self.swept = 0

    async def sweep(self, living: Container[str]) -> None:
        """Clean up after edges that are known and hold no lease."""
        prefix = self._edges.subject(lease.KNOWN)
        for each in await self._known.last([f"{prefix}*"]):
            edge = each.subject[len(prefix) :]
            if not each.data or edge in living:
                continue
            held = await self._edges.last(edge)  # from the leader: a lease that ended stays so
            if held is None or not held.data:
                await self._clean(edge, int(each.data), living)

    async def _clean(self, edge: str, heard_ms: int, living: Container[str]) -> None:
        try:
            await self._edges.put(_CLAIM + edge, b"1", revision=0, ttl_s=CLAIM_S)
        except Conflict:
            return
        number = 0
        async for users in self._reader.of_edge(edge):
            async for part in self._reader.read(users):
                for user, keys in part.keys.items():
                    values = ((key, value.data) for key, value in keys.items())
                    known = presence.state(values, living)
                    if known.setting != presence.NOTHING:
                        key = subjects.left_key(user)
                        number = self._writer.put(key, b"1", ttl_s=presence.KEPT_S)
                    if not known.setting.hidden and (known.seen or 0) < heard_ms:
                        data = msgspec.json.encode(presence.Seen(heard_ms))
                        key = subjects.seen_key(user)
                        number = self._writer.put(key, data, ttl_s=presence.SEEN_TTL_S)
        if number:
            await self._writer.written(number, timeout_s=WRITE_S)
        await self._purge(edge)
        await self._edges.purge(lease.KNOWN + edge)
        await self._edges.purge(_CLAIM + edge)
        self.swept += 1
        _log.info("removed the connections of %s, which is gone", edge)

    async def _purge(self, edge: str) -> None:
        request = msgspec.json.encode({"filter": f"$KV.{presence.BUCKET}.*.{edge}.*"})
        subject = f"$JS.API.STREAM.PURGE.KV_{presence.BUCKET}"
        reply = await self._bus.request(subject, request, timeout_s=PURGE_S)
        if b'"success":true' not in reply.data:
            raise Unavailable(f"the connections of {edge} were not removed: {reply.data!r}")
