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

    def ping(self, _: bytes) -> None:
        self.pinged_at.append(asyncio.get_running_loop().time())

    def close(self, code: CloseCode, _: str) -> None:
        self.closed = code


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
