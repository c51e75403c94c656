"""What tests of the broker package share: a bus, a log, and the truth about what is stored."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from broker.bus import Bus
from broker.committer import Committed, Committer, Outcome
from broker.config import BrokerConfig
from broker.declared import declared
from broker.log import STREAM, Log
from broker.roles import OPERATOR
from broker.streams import ensure

from .servers import password

TIMEOUT_S = 10.0


def as_role(url: str, role: str = OPERATOR) -> BrokerConfig:
    return BrokerConfig(urls=(url,), role=role, password=password(role))


def make_bus(url: str, name: str = "test", *, role: str = OPERATOR) -> Bus:
    return Bus(as_role(url, role), name=name)


async def prepare(bus: Bus, config: BrokerConfig | None = None) -> Log:
    """Connect, and make the streams as a starting worker does."""
    await bus.wait_connected(TIMEOUT_S)
    await ensure(bus, declared(config or BrokerConfig()))
    return Log(bus)


async def api(bus: Bus, verb: str, request: Any = None) -> dict[str, Any]:
    """Call the JetStream API; an error in the answer fails the test."""
    payload = b"" if request is None else msgspec.json.encode(request)
    reply = await bus.request(f"$JS.API.{verb}", payload, timeout_s=TIMEOUT_S)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    assert "error" not in answer, answer["error"]
    return answer


class Outcomes:
    """Collects what the committer's `done` is called with, by name."""

    def __init__(self) -> None:
        self.of: dict[str, list[Outcome]] = {}

    def __call__(self, name: str) -> Callable[[Outcome], None]:
        calls = self.of.setdefault(name, [])
        return calls.append

    def seq(self, name: str) -> int:
        outcome = self.one(name)
        assert isinstance(outcome, Committed), outcome
        return outcome.seq

    def one(self, name: str) -> Outcome:
        (outcome,) = self.of[name]
        return outcome

    @property
    def complete(self) -> bool:
        return all(len(calls) == 1 for calls in self.of.values())


class Event(NamedTuple):
    """A stored event, as STREAM.MSG.GET tells it."""

    seq: int
    subject: str
    msg_id: str
    data: bytes


async def event_at(bus: Bus, seq: int) -> Event:
    """Read by the leader itself, another way than the code under test takes."""
    message = (await api(bus, f"STREAM.MSG.GET.{STREAM}", {"seq": seq}))["message"]
    data = base64.b64decode(message.get("data", ""))
    msg_id = _headers(message).get("Nats-Msg-Id", "")
    return Event(message["seq"], message["subject"], msg_id, data)


async def batch_at(bus: Bus, seq: int) -> str:
    """The atomic batch with which the event came; empty if it came alone."""
    message = (await api(bus, f"STREAM.MSG.GET.{STREAM}", {"seq": seq}))["message"]
    return _headers(message).get("Nats-Batch-Id", "")


def _headers(message: dict[str, Any]) -> dict[str, str]:
    lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


async def last_seq(bus: Bus) -> int:
    state = (await api(bus, f"STREAM.INFO.{STREAM}"))["state"]
    seq: int = state["last_seq"]
    return seq


async def until_stored(bus: Bus, seq: int) -> None:
    """Wait until the log has come this far."""
    async with asyncio.timeout(TIMEOUT_S):
        while await last_seq(bus) < seq:
            pass


async def all_events(bus: Bus) -> list[Event]:
    """Everything in the log, in order of seq; nothing may have been deleted."""
    return [await event_at(bus, seq) for seq in range(1, await last_seq(bus) + 1)]


async def commit_all(bus: Bus, events: list[tuple[str, bytes]]) -> list[int]:
    """Store events in this order, quickly; returns their seqs."""
    outcomes = Outcomes()
    async with Committer(bus, Log(bus)) as committer:
        for subject, payload in events:
            name = uuid4().hex
            committer.submit(subject, payload, msg_id=name, done=outcomes(name))
        await committer.drain(60)
    return [outcomes.seq(name) for name in outcomes.of]
