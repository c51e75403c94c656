"""Puts questions of many callers together: a storm costs a worker little more than a few."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Q = TypeVar("_Q")
_A = TypeVar("_A")


class Gatherer(Generic[_Q, _A]):
    """`ask` many at once, at most `most`: those that come within `gather_s`, or meanwhile.

    `ask` gives an answer for each, in order, or raises for all.
    """

    def __init__(
        self, ask: Callable[[list[_Q]], Awaitable[list[_A]]], *, most: int, gather_s: float
    ):
        self._ask = ask
        self._most = most
        self._gather_s = gather_s
        self._waiting: list[tuple[_Q, asyncio.Future[_A]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: _Q) -> _A:
        """Wait for the answer. Raises what asking raises."""
        future: asyncio.Future[_A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="gathered questions")
        return await future

    async def close(self) -> None:
        """Stop asking; whoever waits is cancelled."""
        for _, future in self._waiting:
            future.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s)
                part, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._question(part)
        finally:
            self._task = None

    async def _question(self, part: list[tuple[_Q, asyncio.Future[_A]]]) -> None:
        wanted = [(question, future) for question, future in part if not future.done()]
        if not wanted:
            return
        try:
            answers = await self._ask([question for question, _ in wanted])
        except asyncio.CancelledError:
            for _, future in wanted:
                future.cancel()
            raise
        except Exception as error:
            for _, future in wanted:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(wanted, answers, strict=True):
            if not future.done():
                future.set_result(answer)
