"""The way to other sites: questions and answers over NATS leaf nodes, in an account of its own.

`fed.<to>.<from>.…` is what site `from` says to site `to`, answers too. Each site's credentials let
it publish as itself and receive what is for it, so that the servers between see to it that nobody
speaks for another; nothing of a site's own account passes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar
from uuid import uuid4

import msgspec

from .bus import Bus, Reply, publication
from .errors import BrokerError, NoResponders, Unavailable

MAX_BYTES = 900_000
CONCURRENT = 64
OF_A_PEER = 16
"""So many questions of one peer are worked on at a time; of all of them `CONCURRENT`."""

_T = TypeVar("_T")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Called with the peer's name and what it says; what is returned is the answer. A `BrokerError`
means that there is none, and the peer will ask again."""

_log = logging.getLogger("hikyaku.federation")


class Gate(Protocol):
    """Says how much a peer may ask."""

    def question(self, peer: str) -> bool:
        """Whether the peer may ask now."""

    def drop(self, peer: str, why: str) -> None:
        """A question is not answered, for the peer has too many on their way."""


class Postal:
    """This site as others see it. Use as a context manager around a connected `Bus`.

    What `gate` does not let through, and what is over `OF_A_PEER`, gets no answer.
    """

    def __init__(self, bus: Bus, own: str, gate: Gate | None = None):
        self._bus = bus
        self._own = own
        self._gate = gate
        self._working: Counter[str] = Counter()
        self._name = uuid4().hex
        self._answers: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._sids: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Postal":
        self._sids.append(
            self._bus.subscribe(f"fed.{self._own}.*.r.{self._name}.*", self._answered)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for sid in self._sids:
            self._bus.unsubscribe(sid)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def serve(self, verb: str, handler: Handler) -> None:
        """Answer what peers ask with `verb`. Only one process of a site does."""

        def receive(subject: bytes, reply: bytes, _: bytes | None, data: bytes) -> None:
            peer = subject.decode().split(".")[2]
            if self._gate is not None and not self._gate.question(peer):
                return
            if len(self._tasks) >= CONCURRENT or self._working[peer] >= OF_A_PEER:
                if self._gate is not None:
                    self._gate.drop(peer, f"over {OF_A_PEER} questions at a time")
                return  # The peer asks again.
            task = asyncio.create_task(self._answer(handler, peer, data, reply.decode()))
            self._tasks.add(task)
            self._working[peer] += 1

            def done(task: asyncio.Task[None]) -> None:
                self._tasks.discard(task)
                self._working[peer] -= 1

            task.add_done_callback(done)

        self._sids.append(self._bus.subscribe(f"fed.{self._own}.*.{verb}", receive))

    async def _answer(self, handler: Handler, peer: str, data: bytes, reply: str) -> None:
        try:
            answer = await handler(peer, data)
            if reply.startswith(f"fed.{peer}.{self._own}.r."):
                self._bus.publish(reply, answer)
        except BrokerError as error:
            _log.warning("%s gets no answer: %s", peer, error)
        except Exception:
            _log.exception("what %s said could not be handled", peer)

    def tell(self, peer: str, verb: str, payload: bytes) -> None:
        """Say something without an answer; at most once. Raises as `Bus.publish` does."""
        self._bus.publish(f"fed.{peer}.{self._own}.{verb}", payload)

    async def ask(self, peer: str, verb: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask a site. Raises `NoResponders` when it is not connected, `Unavailable` when it does
        not answer in time, and `Overloaded` when the connection does not keep up."""
        self._number += 1
        number = self._number
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        reply = f"fed.{self._own}.{peer}.r.{self._name}.{number}"
        try:
            self._bus.write(publication(f"fed.{peer}.{self._own}.{verb}", payload, reply=reply))
            async with asyncio.timeout(timeout_s):
                found: Reply = await answer
        except TimeoutError:
            raise Unavailable(f"the site {peer} did not answer within {timeout_s:g} s") from None
        finally:
            del self._answers[number]
        if found.status == 503:
            raise NoResponders(f"the site {peer} is not connected")
        return found.data

    def _answered(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        answer = self._answers.get(int(subject.rpartition(b".")[2]))
        if answer is not None and not answer.done():
            answer.set_result(Reply(header, data))


def read(data: bytes, kind: type[_T], peer: str) -> _T:
    """What a peer said. Raises `Malformed`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{peer}: {error}") from None


class Malformed(BrokerError):
    """A peer says what cannot be read."""
