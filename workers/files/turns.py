"""Work of which only so much goes on at once; who waits too long is told to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import Refused

WAIT_S = 60.0


class Turns:
    """`at_once` turns; `what` is being done, for people. `waiting` counts who wants one."""

    def __init__(self, at_once: int, what: str):
        self._turns = asyncio.Semaphore(at_once)
        self._what = what
        self.waiting = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold a turn while the block runs. Raises `Refused`."""
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Refused("overloaded", f"too many {self._what} at once; try again") from None
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
