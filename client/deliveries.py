"""Tells the server which messages are stored here: the newest of each chat, once the cursor is.

A receipt has no answer. What was told just before a connection was lost is told again on the next.
"""

import asyncio
import time
from typing import NamedTuple

from edge.frames import ChatEvent, DeliveryReceipt, GroupChatEvent

from .inbox import ClientEvent
from .position import Position
from .sender import Sender

EVERY_S = 1.0
CHATS_A_TURN = 50
UNSURE_S = 3.0
"""What was told this long before a connection was lost may not have arrived."""


class _Newest(NamedTuple):
    seq: int
    id: str


class Deliveries:
    """Collects messages of others that the application has had; `run` tells of them."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._handed: dict[str, _Newest] = {}
        self._waiting: dict[str, _Newest] = {}
        self._told: dict[str, tuple[float, _Newest]] = {}
        self._due = asyncio.Event()

    def handed_over(self, event: ClientEvent, me: str | None) -> None:
        """The application has had an event."""
        if isinstance(event, ChatEvent | GroupChatEvent) and event.from_ != me:
            _raise(self._handed, event.chat_id, _Newest(event.seq, event.id))

    def saved(self, position: Position) -> None:
        """The cursor is stored up to here."""
        for chat_id, newest in list(self._handed.items()):
            if newest.seq <= position.seq:
                del self._handed[chat_id]
                _raise(self._waiting, chat_id, newest)
                self._due.set()

    def welcomed(self) -> None:
        """There is a new connection: tell again what may not have arrived over the last one."""
        since = self._sender.lost_at - UNSURE_S
        for chat_id, (told_at, newest) in self._told.items():
            if told_at >= since:
                _raise(self._waiting, chat_id, newest)
                self._due.set()
        self._told.clear()

    async def run(self) -> None:
        """Tell, a chat at most once a second, until cancelled."""
        while True:
            await self._due.wait()
            await self._sender.online.wait()
            now = time.monotonic()
            self._told = {
                chat: told for chat, told in self._told.items() if told[0] >= now - UNSURE_S
            }
            for chat_id in list(self._waiting)[:CHATS_A_TURN]:
                newest = self._waiting.pop(chat_id)
                self._told[chat_id] = (now, newest)
                self._sender.tell(DeliveryReceipt(chat_id=chat_id, last_delivered_msg_id=newest.id))
            if not self._waiting:
                self._due.clear()
            await asyncio.sleep(EVERY_S)


def _raise(known: dict[str, _Newest], chat_id: str, newest: _Newest) -> None:
    if chat_id not in known or known[chat_id].seq < newest.seq:
        known[chat_id] = newest
