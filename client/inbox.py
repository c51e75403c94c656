"""Events between the connection and the application: bounded, and counted only when handed over."""

import asyncio
from collections import deque
from collections.abc import Callable

from edge.frames import (
    Activity,
    CaughtUp,
    DeliveryReceiptEvent,
    Event,
    PresenceEvent,
    Provisional,
    ReadReceiptEvent,
    TypingEvent,
)

from .errors import ClientError
from .position import Position

ClientEvent = (
    Event
    | ReadReceiptEvent
    | DeliveryReceiptEvent
    | TypingEvent
    | PresenceEvent
    | Activity
    | Provisional
    | CaughtUp
)
"""What `async for event in client` gives; the kinds of `Event` are those of `edge.frames`."""


class Inbox:
    """A queue of at most `size` events for one reader.

    An event counts as handed over when the application asks for the next one, or closes the client
    in good order: what it was working on when it died is given again after a restart.
    """

    def __init__(
        self, size: int, on_handed_over: Callable[[ClientEvent], None] = lambda _: None
    ) -> None:
        self.size = size
        self._on_handed_over = on_handed_over
        self.handed_over: Position | None = None
        self.moved = asyncio.Event()
        self.room = asyncio.Event()
        self._events: deque[tuple[ClientEvent, Position | None]] = deque()
        self._arrived = asyncio.Event()
        self._in_hand: tuple[ClientEvent, Position | None] | None = None
        self._stopped: ClientError | None = None
        self._reading = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        """Whether the application is behind by as much as it may be."""
        return len(self._events) >= self.size

    def put(self, event: ClientEvent, position: Position | None) -> None:
        """Queue an event; `position` is where the application is once it has had it."""
        self._events.append((event, position))
        self._arrived.set()

    async def put_patiently(self, event: ClientEvent) -> None:
        """Queue an event that is not of the log, once there is room."""
        while self.full and self._stopped is None:
            self.room.clear()
            await self.room.wait()
        self.put(event, None)

    async def get(self) -> ClientEvent:
        """Give the next event. Raises the error that `stop` was given when no more will come."""
        self.settle()
        if self._reading:
            raise RuntimeError("the events of a client are read in one place only")
        self._reading = True
        try:
            while not self._events:
                if self._stopped is not None:
                    raise self._stopped
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._reading = False
        self._in_hand = self._events.popleft()
        self.room.set()
        return self._in_hand[0]

    def settle(self) -> None:
        """Count the event given last as handed over."""
        if self._in_hand is None:
            return
        (event, position), self._in_hand = self._in_hand, None
        self._on_handed_over(event)
        if position is not None:
            self.handed_over = position
            self.moved.set()

    def begin_at(self, position: Position | None) -> None:
        """Take `position` as handed over if nothing was yet: there is nothing to read before it."""
        if self.handed_over is None and position is not None:
            self.handed_over = position
            self.moved.set()

    def drop(self) -> None:
        """Forget the events that were not given to the application."""
        self._events.clear()

    def stop(self, error: ClientError) -> None:
        """Let `get` raise `error` once what is queued has been read."""
        if self._stopped is None:
            self._stopped = error
        self._arrived.set()
