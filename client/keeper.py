"""Saves the cursor: not for every event, but surely when the client closes."""

import asyncio
import logging
from collections.abc import Callable

from .cursor_store import CursorStore
from .errors import CursorStoreError
from .inbox import Inbox
from .position import Position

log = logging.getLogger("hikyaku.client")

SAVE_EVERY_S = 1.0
STORE_WITHIN_S = 10.0


class CursorKeeper:
    """Moves what the inbox has handed over into a cursor store."""

    def __init__(
        self,
        store: CursorStore,
        inbox: Inbox,
        *,
        every_s: float = SAVE_EVERY_S,
        on_saved: Callable[[Position], None] = lambda _: None,
    ) -> None:
        self._on_saved = on_saved
        self._store = store
        self._inbox = inbox
        self._every_s = every_s
        self._saved: Position | None = None

    async def load(self) -> Position | None:
        """Read where to go on from. Raises `CursorStoreError` if that makes no sense."""
        async with asyncio.timeout(STORE_WITHIN_S):
            text = await self._store.load()
        if text is None:
            return None
        try:
            self._saved = Position.parse(text)
        except ValueError as error:
            raise CursorStoreError(f"the stored cursor cannot be read: {error}") from None
        self._inbox.begin_at(self._saved)
        return self._saved

    async def run(self) -> None:
        """Save from time to time. A store that fails is tried again with the next event."""
        while True:
            await self._inbox.moved.wait()
            self._inbox.moved.clear()
            try:
                await self.flush()
            except Exception:
                log.exception("the cursor could not be saved; trying again")
                self._inbox.moved.set()
            await asyncio.sleep(self._every_s)

    async def flush(self) -> None:
        """Save now, if there is anything new."""
        position = self._inbox.handed_over
        if position is None or position == self._saved:
            return
        async with asyncio.timeout(STORE_WITHIN_S):
            await self._store.save(str(position))
        self._saved = position
        self._on_saved(position)
