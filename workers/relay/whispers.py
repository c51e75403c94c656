"""What is told at once or not at all, across sites: who is typing, and how far somebody has read.

A site tells what its own users do, to the sites where the chat's other members are; the home of a
group passes on what it was told. A receipt that comes moves the pointer here too, so that it can be
asked for later. What is lost on the way is lost: the next one says it as well.
"""

import asyncio
import logging
from typing import Any

import msgspec
from msgspec import Struct

from broker import events, query, subjects
from broker.bus import Bus
from broker.errors import BrokerError, InvalidName
from broker.federation import Postal, read
from broker.renaming import renamed
from broker.requests import Failure, ask
from broker.sites import Sites
from store.errors import StoreError
from store.mirrored import Mirrored

GATHER_S = 0.05
WAITING = 2000
A_MESSAGE = 500
MOVE_S = 5.0

_EPHEMERAL = len(subjects.EPHEMERAL)

_log = logging.getLogger("hikyaku.relay")

_Whisper = events.Typing | events.ReadReceipt | events.DeliveryReceipt


class _Whispers(Struct):
    said: list[_Whisper]


_decode = msgspec.json.Decoder(_Whisper).decode


class Whispers:
    """Both directions. Use as a context manager; `run` is its task."""

    def __init__(self, bus: Bus, postal: Postal, sites: Sites, mirrored: Mirrored):
        self._bus = bus
        self._postal = postal
        self._sites = sites
        self._mirrored = mirrored
        self._heard: list[tuple[str, bytes]] = []
        self._waiting: dict[str, list[_Whisper]] = {}
        self._work = asyncio.Event()
        self.unreadable = 0

    async def __aenter__(self) -> "Whispers":
        self._sid = self._bus.subscribe(f"{subjects.EPHEMERAL}>", self._on_whisper)
        self._postal.serve("whispers", self._take)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.unsubscribe(self._sid)

    def _on_whisper(self, subject: bytes, _: bytes, _header: bytes | None, data: bytes) -> None:
        """Someone here did something; most of it concerns nobody elsewhere."""
        chat_id = subject[_EPHEMERAL:].decode()
        if not self._sites.peers or len(self._heard) >= WAITING:
            return
        if chat_id.startswith("group.") or "=40" in chat_id:
            self._heard.append((chat_id, data))
            self._work.set()

    async def run(self) -> None:
        """Tell others, some times a second, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER_S)
            self._work.clear()
            heard, self._heard = self._heard, []
            try:
                await self._sort(heard)
            except (StoreError, BrokerError) as error:
                _log.info("%d whispers are not passed on: %s", len(heard), error)
            for site, said in self._waiting.items():
                for start in range(0, len(said), A_MESSAGE):
                    self._say(site, said[start : start + A_MESSAGE])
            self._waiting.clear()

    def _say(self, site: str, said: list[_Whisper]) -> None:
        try:
            self._postal.tell(site, "whispers", msgspec.json.encode(_Whispers(said)))
        except BrokerError as error:
            _log.debug("not whispered to %s: %s", site, error)

    async def _sort(self, heard: list[tuple[str, bytes]]) -> None:
        names = self._sites.names
        for chat_id, data in heard:
            token, _, frame = data.partition(b"\n")
            try:
                sender, said = subjects.decode(token.decode()), _decode(frame)
            except ValueError as error:
                self.unreadable += 1  # An edge of a later version said it.
                _log.warning("a whisper in %s is not passed on: %s", chat_id, error)
                continue
            told = await self._told(chat_id)
            if names.site_of(sender) is not None:
                # Its own site tells; but not everyone's, in a group that lives here.
                told = set() if chat_id.startswith("dm.") else told - {names.site_of(sender)}
            elif (home := names.home_of(chat_id)) is not None:
                told = {home}
            for site in told:
                if self._sites.linked(site):
                    self._waiting.setdefault(site, []).append(said)

    async def _told(self, chat_id: str) -> set[str]:
        """The other sites that are to know; of a group elsewhere, none but by its home."""
        if chat_id.startswith("dm."):
            return self._sites.names.sites_in(chat_id)
        if self._sites.names.home_of(chat_id) is not None:
            return set()
        return await self._mirrored.told(subjects.decode(chat_id[6:]))

    # --- from others ---

    async def _take(self, peer: str, data: bytes) -> bytes:
        if not self._sites.linked(peer):
            return b""
        names = self._sites.names
        receipts: list[query.Receipt] = []
        for each in read(data, _Whispers, peer).said:
            try:
                said = renamed(each, lambda name: names.local(name, peer))
                user = said.from_ if isinstance(said, events.Typing) else _reader(said)
                if names.site_of(user) != peer and names.home_of(said.chat_id) != peer:
                    raise InvalidName("user", f"{user!r} is not a user of {peer}")
                if names.site_of(user) is None:
                    raise InvalidName("user", f"{user!r} is a user here")
                if isinstance(said, events.Typing):
                    await self._typing(said)
                else:
                    receipts.append(_receipt(said))
            except InvalidName as error:
                _log.warning("a whisper of %s is refused: %s", peer, error)
        if receipts:
            await self._move(receipts)
        return b""

    async def _typing(self, said: events.Typing) -> None:
        payload = b"%b\n%b" % (subjects.encode(said.from_).encode(), events.encode(said))
        self._bus.publish(subjects.ephemeral(said.chat_id), payload)

    async def _move(self, receipts: list[query.Receipt]) -> None:
        """As an edge does for its users; what moved is told here, and passed on by a home."""
        try:
            question = query.Move(receipts=receipts)
            await ask(self._bus, query.SERVICE, "move", question, query.Moved, MOVE_S)
        except Failure as failure:
            _log.info("receipts are not taken: %s", failure)


def _reader(said: events.ReadReceipt | events.DeliveryReceipt) -> str:
    return said.reader_id if isinstance(said, events.ReadReceipt) else said.user_id


def _receipt(said: events.ReadReceipt | events.DeliveryReceipt) -> query.Receipt:
    fields: dict[str, Any] = {"user": _reader(said), "chat_id": said.chat_id}
    if isinstance(said, events.ReadReceipt):
        return query.Receipt(kind="read", message_id=said.last_read_msg_id, **fields)
    return query.Receipt(kind="delivered", message_id=said.last_delivered_msg_id, **fields)
