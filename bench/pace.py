"""An open-loop schedule finer than an event loop's timers, which round to whole milliseconds.

A Linux timer descriptor wakes the loop when the next message is due. The schedule does not wait for
answers: a message that leaves late counts from the time at which it was due.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Schedule:
    """Calls `send(number, due_ns)` for `count` messages, `rate` a second, evenly spaced."""

    def __init__(self, rate: float, count: int, send: Callable[[int, int], None]) -> None:
        self.late_ns: list[int] = []
        self._period_ns = 1e9 / rate
        self._count = count
        self._send = send
        self._next = 0
        self._start_ns = 0

    async def run(self) -> None:
        """Return when all have been sent. `late_ns` then says how late each left."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        timer = _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK))
        self._start_ns = time.monotonic_ns() + 10_000_000
        try:
            self._arm(timer)
            loop.add_reader(timer, self._wake, timer, done)
            async with asyncio.timeout(self._count * self._period_ns / 1e9 + 30):
                await done
        finally:
            loop.remove_reader(timer)
            os.close(timer)

    def _due_ns(self) -> int:
        return self._start_ns + int(self._next * self._period_ns)

    def _arm(self, timer: int) -> None:
        seconds, nanoseconds = divmod(self._due_ns(), 1_000_000_000)
        spec = _Spec(0, 0, seconds, nanoseconds)
        _checked(_libc.timerfd_settime(timer, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None))

    def _wake(self, timer: int, done: asyncio.Future[None]) -> None:
        os.read(timer, 8)
        while self._next < self._count and (now := time.monotonic_ns()) >= (due := self._due_ns()):
            self.late_ns.append(now - due)
            self._send(self._next, due)
            self._next += 1
        if self._next < self._count:
            self._arm(timer)
        elif not done.done():
            done.set_result(None)
