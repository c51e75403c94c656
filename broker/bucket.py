"""A key-value bucket (ADR-8): compare-and-set writes, TTLs, and reads from the leader."""

import msgspec
from msgspec import Struct

from .bus import Bus
from .errors import Conflict
from .log import ApiError, api_error

TIMEOUT_S = 2.0
MARKER_TTL_S = 1
"""How long an empty value stays, which tells that a key was removed."""

_WRONG_LAST = (10071, 10164)
_NO_MESSAGE = 10037


class Entry(Struct):
    """A value and its revision, which a compare-and-set names."""

    data: bytes = b""
    seq: int = 0


class _PubAck(Struct):
    seq: int = 0
    error: ApiError | None = None


class _Answer(Struct):
    message: Entry | None = None
    error: ApiError | None = None


class Bucket:
    """One bucket. Raises `Unavailable` when JetStream does not answer."""

    def __init__(self, bus: Bus, name: str):
        self._bus = bus
        self._prefix = f"$KV.{name}."
        self.stream = f"KV_{name}"

    def subject(self, key: str) -> str:
        """The subject on which the key's values are stored."""
        return self._prefix + key

    async def put(
        self, key: str, value: bytes, *, revision: int | None = None, ttl_s: int | None = None
    ) -> int:
        """Write; with `revision` only if that is still the key's (0: only if it is absent).

        Returns the new revision. Raises `Conflict` when another one wrote.
        """
        header = b""
        if ttl_s is not None:
            header += b"Nats-TTL: %ds\r\n" % ttl_s
        if revision is not None:
            header += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % revision
        block = b"NATS/1.0\r\n%b\r\n" % header if header else b""
        reply = await self._bus.request(self.subject(key), value, timeout_s=TIMEOUT_S, header=block)
        ack = msgspec.json.decode(reply.data, type=_PubAck)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code in _WRONG_LAST:
            raise Conflict(0)
        raise api_error(ack.error)

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key; those who follow the bucket are told. Raises `Conflict` as `put` does."""
        await self.put(key, b"", revision=revision, ttl_s=MARKER_TTL_S)

    async def last(self, key: str) -> Entry | None:
        """The key's value and revision as the leader knows them, or None."""
        request = msgspec.json.encode({"last_by_subj": self.subject(key)})
        subject = f"$JS.API.STREAM.MSG.GET.{self.stream}"
        reply = await self._bus.request(subject, request, timeout_s=TIMEOUT_S)
        answer = msgspec.json.decode(reply.data, type=_Answer)
        if answer.error is not None:
            if answer.error.err_code == _NO_MESSAGE:
                return None
            raise api_error(answer.error)
        return answer.message
