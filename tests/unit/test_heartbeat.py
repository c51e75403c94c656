"""Pings are spread over the interval, whenever the sessions came."""

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from edge.close_codes import CloseCode
from edge.heartbeat import TICK_S, Heartbeat
from edge.session import Session
from tests.servers import eventually

pytestmark = pytest.mark.anyio

INTERVAL_S = 0.5


class _Session:
    """Notes at what time it was pinged."""

    def __init__(self, heard_at: float):
        self.heard_at = heard_at
        self.pinged_at: list[float] = []
        self.closed: CloseCode | None = None
        self.closed_at = 0.0

    def ping(self, _: bytes) -> None:
        self.pinged_at.append(asyncio.get_running_loop().time())

    def close(self, code: CloseCode, _: str) -> None:
        self.closed = code
        self.closed_at = asyncio.get_running_loop().time()


async def beat(sessions: list[_Session], *, timeout_s: float) -> None:
    """Run until every one was served."""
    heartbeat = Heartbeat(interval_s=INTERVAL_S, timeout_s=timeout_s)
    for each in sessions:
        heartbeat.add(cast(Session, each))
    running = asyncio.create_task(heartbeat.run())
    try:
        await eventually(lambda: all(each.pinged_at or each.closed for each in sessions))
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_those_who_came_at_once_are_not_pinged_at_once() -> None:
    """A thousand that had come within a second were pinged within one turn of the loop."""
    now = asyncio.get_running_loop().time()
    sessions = [_Session(now) for _ in range(1000)]
    await beat(sessions, timeout_s=100)
    together = Counter(round(each.pinged_at[0] / TICK_S * 2) for each in sessions)
    slots = INTERVAL_S / TICK_S
    assert max(together.values()) <= 2 * len(sessions) / slots


async def test_who_was_silent_for_too_long_is_closed() -> None:
    now = asyncio.get_running_loop().time()
    silent, heard = _Session(now - 50), _Session(now)
    await beat([silent, heard], timeout_s=40)
    found: Any = (silent.closed, silent.pinged_at, heard.closed)
    assert found == (CloseCode.NO_PONG, [], None)


async def test_who_falls_silent_is_closed_when_the_time_is_over() -> None:
    """Not only when its turn to be pinged comes again."""
    now = asyncio.get_running_loop().time()
    timeout_s = 1.2 * INTERVAL_S
    silent = [_Session(now) for _ in range(round(INTERVAL_S / TICK_S))]
    gone = _Session(now)
    heartbeat = Heartbeat(interval_s=INTERVAL_S, timeout_s=timeout_s)
    for each in [gone, *silent]:
        heartbeat.add(cast(Session, each))
    running = asyncio.create_task(heartbeat.run())
    try:
        await eventually(lambda: bool(gone.pinged_at))
        heartbeat.remove(cast(Session, gone))
        await eventually(lambda: all(each.closed for each in silent))
    finally:
        running.cancel()
        await asyncio.wait([running])
    late = [each.closed_at - now - timeout_s for each in silent]
    assert min(late) > 0
    assert max(late) < INTERVAL_S / 2
    assert gone.closed is None
