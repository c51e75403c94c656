"""Dead letters: events that a worker could not handle, kept with the reason, to be looked at.

Each is stored on `dead.<worker>` as JSON with the event's bytes, so that it can be shown and, when
the fault is mended, replayed.
"""

import base64
from typing import Any

import msgspec
from msgspec import Struct

from .api_error import ApiError, api_error
from .bus import Bus
from .config import BrokerConfig
from .consumer import Delivery
from .streams import API_TIMEOUT_S, NANOSECOND, Stream

NAME = "DEAD"
MAX_AGE_S = 30 * 86_400
MAX_BYTES = 1024**3

_PREFIX = "dead."


def stream(config: BrokerConfig) -> Stream:
    """Kept for 30 days, at most 1 GiB; the oldest go first."""
    return Stream(
        NAME,
        {
            "subjects": [f"{_PREFIX}*"],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_age": MAX_AGE_S * NANOSECOND,
            "max_bytes": MAX_BYTES,
            "num_replicas": config.replicas,
            "allow_direct": True,
        },
    )


class DeadLetter(Struct, kw_only=True):
    """An event that `worker` could not handle. `number` is its place in the dead-letter stream."""

    worker: str
    seq: int
    subject: str
    reason: str
    data: str
    number: int = 0

    @property
    def event(self) -> bytes:
        """The event as it was stored."""
        return base64.b64decode(self.data)


class _PubAck(Struct):
    seq: int = 0
    error: ApiError | None = None


class _Message(Struct):
    data: bytes = b""
    seq: int = 0


class _Answer(Struct):
    message: _Message | None = None
    error: ApiError | None = None


class DeadLetters:
    """Buries and finds dead letters. Raises `Unavailable` when JetStream does not answer."""

    def __init__(self, bus: Bus):
        self._bus = bus

    async def bury(self, worker: str, delivery: Delivery, reason: str) -> None:
        """Keep an event with the reason; once for each worker and sequence within 2 minutes."""
        letter = DeadLetter(
            worker=worker,
            seq=delivery.seq,
            subject=delivery.subject,
            reason=reason[:1000],
            data=base64.b64encode(delivery.data).decode(),
        )
        header = b"NATS/1.0\r\nNats-Msg-Id: %b-%d\r\n\r\n" % (worker.encode(), delivery.seq)
        reply = await self._bus.request(
            _PREFIX + worker, msgspec.json.encode(letter), timeout_s=API_TIMEOUT_S, header=header
        )
        ack = msgspec.json.decode(reply.data, type=_PubAck)
        if ack.error is not None:
            raise api_error(ack.error)

    async def all(self, limit: int = 1000) -> list[DeadLetter]:
        """The oldest `limit` dead letters."""
        found: list[DeadLetter] = []
        number = 1
        while len(found) < limit:
            letter = await self._next({"next_by_subj": f"{_PREFIX}*", "seq": number})
            if letter is None:
                break
            found.append(letter)
            number = letter.number + 1
        return found

    async def get(self, number: int) -> DeadLetter | None:
        """The dead letter with this number, or None."""
        return await self._next({"seq": number})

    async def remove(self, number: int) -> None:
        """Forget a dead letter."""
        await self._call("STREAM.MSG.DELETE", {"seq": number})

    async def _next(self, request: dict[str, Any]) -> DeadLetter | None:
        answer = await self._call("STREAM.MSG.GET", request)
        if answer.message is None:
            return None
        letter = msgspec.json.decode(answer.message.data, type=DeadLetter)
        letter.number = answer.message.seq
        return letter

    async def _call(self, verb: str, request: dict[str, Any]) -> _Answer:
        payload = msgspec.json.encode(request)
        reply = await self._bus.request(f"$JS.API.{verb}.{NAME}", payload, timeout_s=API_TIMEOUT_S)
        answer = msgspec.json.decode(reply.data, type=_Answer)
        if answer.error is not None:
            if answer.error.code == 404:
                return _Answer()
            raise api_error(answer.error)
        return answer
