"""Questions to workers over core NATS: `ask` on one side, `Responder` on the other.

Every question and answer is a struct; an answer is `{"ok": …}` or `{"failure": …}` where the
failure's code is one of the protocol's error codes, so that an edge can pass it on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from prometheus_client import Metric

from .bus import MAX_PAYLOAD_BYTES, Bus
from .errors import BrokerError, NoResponders, Unavailable
from .metrics import counter
from .subjects import service

ANSWER_BYTES = 900_000
"""What an answer may hold; with what is around it, it then fits into one message of the bus."""

MAX_CONCURRENT = 256
RETRY_S = 0.1

_log = logging.getLogger("hikyaku.requests")


class Failure(Exception):
    """A question answered with an error: `code` is one of the protocol's, `retryable` as there."""

    def __init__(self, code: str, message: str, *, retryable: bool = False):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class _Failure(Struct):
    code: str
    message: str
    retryable: bool = False


class _Answer(Struct, omit_defaults=True):
    ok: Raw = Raw(b"")
    failure: _Failure | None = None


_T = TypeVar("_T")


async def ask(
    bus: Bus, name: str, verb: str, question: Any, answer: type[_T], timeout_s: float
) -> _T:
    """Ask the workers `name`. Raises `Failure` for their no, `Unavailable` for no answer.

    While there is none of them, as when the only one restarts, it waits for one until the deadline.
    """
    payload = msgspec.json.encode(question)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            left_s = max(0.0, deadline - loop.time())
            reply = await bus.request(service(name, verb), payload, timeout_s=left_s)
            break
        except NoResponders:
            if loop.time() + RETRY_S > deadline:
                raise
            await asyncio.sleep(RETRY_S)
    decoded = msgspec.json.decode(reply.data, type=_Answer)
    if decoded.failure is not None:
        failure = decoded.failure
        raise Failure(failure.code, failure.message, retryable=failure.retryable)
    return msgspec.json.decode(decoded.ok, type=answer)


Handler = Callable[[Any], Awaitable[Any]]


class Responder:
    """Answers the questions of one service, sharing them with other processes of the same name.

    `verbs` maps a verb to the type of its question and its handler. At most 256 run at once; past
    that, questions are refused with `overloaded`. Each has a deadline.
    """

    def __init__(
        self, bus: Bus, name: str, verbs: dict[str, tuple[type, Handler]], *, deadline_s: float
    ):
        self._bus = bus
        self._name = name
        self._verbs = verbs
        self._deadline_s = deadline_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._sids: list[int] = []
        self.answered = 0
        self.failed = 0

    async def __aenter__(self) -> "Responder":
        for verb in self._verbs:
            subject = service(self._name, verb)
            sid = self._bus.subscribe(subject, self._receiver(verb), queue=self._name)
            self._sids.append(sid)
        return self

    async def __aexit__(self, *_: object) -> None:
        for sid in self._sids:
            self._bus.unsubscribe(sid)
        if self._tasks:
            waited = await asyncio.wait(self._tasks, timeout=self._deadline_s)
            for task in waited[1]:
                task.cancel()

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        results = {"answered": self.answered - self.failed, "failed": self.failed}
        text = "Questions to this service, by what came of them."
        yield counter("hikyaku_service_questions_total", text, results, "result")

    def _receiver(self, verb: str) -> Callable[[bytes, bytes, bytes | None, bytes], None]:
        def receive(_: bytes, reply: bytes, _header: bytes | None, data: bytes) -> None:
            if len(self._tasks) >= MAX_CONCURRENT:
                failure = _Failure("overloaded", f"{self._name} has too much to do", True)
                self._send(reply.decode(), _Answer(failure=failure))
                return
            task = asyncio.create_task(self._answer(verb, data, reply.decode()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return receive

    async def _answer(self, verb: str, data: bytes, reply: str) -> None:
        question_type, handler = self._verbs[verb]
        try:
            question: Any = msgspec.json.decode(data, type=question_type)
            async with asyncio.timeout(self._deadline_s):
                answer = _Answer(ok=Raw(msgspec.json.encode(await handler(question))))
        except Failure as failure:
            answer = _Answer(failure=_Failure(failure.code, failure.message, failure.retryable))
        except msgspec.ValidationError as error:
            answer = _Answer(failure=_Failure("invalid", str(error)))
        except (TimeoutError, Unavailable) as error:
            _log.warning("%s.%s: %s", self._name, verb, error or "out of time")
            answer = _Answer(failure=_Failure("unavailable", f"{self._name} is not ready", True))
        except Exception:
            _log.exception("%s.%s failed", self._name, verb)
            answer = _Answer(failure=_Failure("internal", f"{self._name} failed; it was logged"))
        self.answered += 1
        self.failed += answer.failure is not None
        self._send(reply, answer)

    def _send(self, reply: str, answer: _Answer) -> None:
        payload = msgspec.json.encode(answer)
        if len(payload) > MAX_PAYLOAD_BYTES:
            _log.error("%s: an answer of %d bytes is too large", self._name, len(payload))
            failure = _Failure("internal", f"the answer of {self._name} is too large")
            payload = msgspec.json.encode(_Answer(failure=failure))
        try:
            self._bus.publish(reply, payload)
        except BrokerError as error:
            _log.warning("%s: answer not sent: %s", self._name, error)
