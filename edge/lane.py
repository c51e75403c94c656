"""The writes of one connection, in the order in which they came.

One may have to wait: for the word of `files` on what it has attached, for the message that it
changes, for the directory's answer to a change of a group. What came behind it waits too. Questions
are asked at once, so that all together wait no longer than one; only a change of a group is asked
for when everything before it is stored, so that who leaves has said goodbye before, and what comes
behind it is asked and decided when it is done.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .asker import Asker

WAITING_MOST = 64


class _Waiting(NamedTuple):
    """A write, sent by `send` with the answer to `question`; that is a task once it is asked.

    Without `send` it is `question` itself that acts, alone.
    """

    request: Any
    send: Callable[[Any], None] | None
    question: "Callable[[], Coroutine[Any, Any, Any]] | asyncio.Task[Any] | None"


class Lane:
    """What waits, and what is on its way to the log: `writing` counts both."""

    __slots__ = ("_asker", "_quiet", "_waiting", "writing")

    def __init__(self, asker: "Asker"):
        self._asker = asker
        self._waiting: deque[_Waiting] = deque()
        self._quiet: asyncio.Event | None = None
        self.writing = 0

    @property
    def free(self) -> bool:
        """Whether a write that has to wait for nothing may be sent right now."""
        return not self._waiting

    def put(
        self,
        request: Any,
        send: Callable[[Any], None],
        question: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        """Call `send` with the answer to `question`, or None, behind all that waits already.

        What they raise is the request's answer.
        """
        if self._full(request):
            return
        asked: Any = question
        if question is not None and all(each.send for each in self._waiting):
            asked = asyncio.create_task(question())
        self._append(_Waiting(request, send, asked))

    def put_alone(self, request: Any, does: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `does` when all before it is stored or refused, and what comes behind it after it."""
        if not self._full(request):
            self._append(_Waiting(request, None, does))

    def written(self) -> None:
        """A write was answered."""
        self.writing -= 1
        if self._quiet is not None and self.writing <= len(self._waiting):
            self._quiet.set()

    def _full(self, request: Any) -> bool:
        if len(self._waiting) < WAITING_MOST:
            return False
        message = "too many writes wait for their turn"
        self._asker.error("overloaded", message, request, retry_after_ms=500)
        return True

    def _append(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self.writing += 1
        if len(self._waiting) == 1:
            self._asker.edge.spawn(self._run())

    async def _run(self) -> None:
        """Send what waits, one after the other; what fails is answered so and ends no other."""
        try:
            while self._waiting:
                request, send, question = self._waiting[0]
                try:
                    if send is None:
                        await self._until_quiet()
                    answer = question and await (question() if callable(question) else question)
                    if send is not None:
                        send(answer)
                except Exception as error:
                    if not self._asker.lost:
                        self._asker.failed(error, request)
                finally:
                    self._waiting.popleft()
                    self._asker.written()
        finally:
            for each in self._waiting:
                if isinstance(each.question, asyncio.Task):
                    each.question.cancel()
            self._waiting.clear()

    async def _until_quiet(self) -> None:
        """Wait until nothing of ours is on its way to the log; the committer has a deadline."""
        while self.writing > len(self._waiting):
            self._quiet = asyncio.Event()
            await self._quiet.wait()
        self._quiet = None
