"""A key-value bucket (ADR-8): compare-and-set writes, TTLs, and reads from the leader."""

import msgspec
from msgspec import Struct

from .api_error import ApiError, api_error
from .batch import Part, publish_all
from .bus import Bus

TIMEOUT_S = 2.0
MARKER_TTL_S = 1
"""How long an empty value stays, which tells that a key was removed."""

_NO_MESSAGE = 10037


class Entry(Struct):
    """A value and its revision, which a compare-and-set names."""

    data: bytes = b""
    seq: int = 0


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
        headers: tuple[str, ...] = ()
        if ttl_s is not None:
            headers += (f"Nats-TTL: {ttl_s}s",)
        if revision is not None:
            headers += (_expected(revision),)
        part = Part(self.subject(key), value, headers)
        return await publish_all(self._bus, [part], timeout_s=TIMEOUT_S)

    async def put_all(self, entries: dict[str, tuple[bytes, int]]) -> None:
        """Write values if these are still the keys' revisions, all or none, up to 500.

        Raises `Conflict` when another one wrote one of them.
        """
        parts = [
            Part(self.subject(key), value, (_expected(revision),))
            for key, (value, revision) in entries.items()
        ]
        await publish_all(self._bus, parts, timeout_s=TIMEOUT_S)

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


def _expected(revision: int) -> str:
    return f"Nats-Expected-Last-Subject-Sequence: {revision}"
