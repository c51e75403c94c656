"""What a push says, read when it is about to be sent: it may be later than it was planned.

The queue holds no content. A message that was deleted, or read in the time that a push had to wait,
is not pushed any more.
"""

import asyncio
import time
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from broker import events, subjects
from broker.bus import Bus
from broker.log import Log
from broker.notify import Address
from broker.pointers import Of, Pointers
from store.audience import Audience, Said
from store.devices import DEFAULTS, DeviceRecord, Devices, SettingsRecord
from store.history import History
from store.pushes import PushRecord

from .notify_plan import SITE, SITE_DEVICE
from .push.delivery import Prepared
from .push.keys import encoded
from .push.provider import Note, Push

PREVIEW_CHARS = 200
BADGE_CHATS = 50
BADGE_GROUPS = 1000
BADGE_MOST = 999
BADGES_AT_ONCE = 8


class _Unread(NamedTuple):
    """How many messages a user has not read: in all chats that count, and in each."""

    total: int
    chats: dict[str, int]


class Notes:
    """Prepares pushes. `content`: the site lets messages be shown in pushes."""

    def __init__(
        self,
        bus: Bus,
        *,
        devices: Devices,
        audience: Audience,
        history: History,
        content: bool,
        site: Address | None,
    ):
        self._log = Log(bus)
        self._pointers = Pointers(bus)
        self._devices = devices
        self._audience = audience
        self._history = history
        self._content = content
        self._site = site
        self._counting = asyncio.Semaphore(BADGES_AT_ONCE)

    async def prepare(self, records: list[PushRecord]) -> dict[str, Prepared]:
        """Each push by its key, or why it is not sent. Raises as the store and the broker do."""
        devices = await self._devices.of({each.user for each in records})
        by_name = {(each.user, each.device): each for some in devices.values() for each in some}
        said = await self._messages(records)
        settings = await self._devices.settings(devices)
        again = {Of(each.chat_id, each.user) for each in records if each.attempts > 1}
        read = await self._pointers.find(again)
        now_ms = time.time() * 1000
        prepared: dict[str, Prepared] = {}
        left: list[tuple[PushRecord, DeviceRecord, Said]] = []
        for each in records:
            device, message = self._device(each, by_name), said.get(each.message_id)
            pointer = read.get(Of(each.chat_id, each.user))
            if device is None or device.provider != each.provider:
                prepared[each.key] = "unregistered"
            elif message is None or message.deleted:
                prepared[each.key] = "deleted"
            elif pointer is not None and pointer.seq >= each.seq:
                prepared[each.key] = "read"
            elif each.until_ms <= now_ms:
                prepared[each.key] = "expired"
            else:
                left.append((each, device, message))
        unread = await self._unread({each.user for each, _, _ in left})
        for each, device, message in left:
            own = settings.get(each.user, DEFAULTS)
            note = self._note(each, message, unread[each.user], self._shows(device, own))
            address = self._address(device)
            ttl_s = max(1, int((each.until_ms - now_ms) / 1000))
            collapse = collapse_of(each.user, each.chat_id)
            registered_ms = device.registered_ms
            prepared[each.key] = Push(each.key, collapse, address, registered_ms, note, ttl_s)
        return prepared

    def _device(
        self, record: PushRecord, devices: dict[tuple[str, str], DeviceRecord]
    ) -> DeviceRecord | None:
        if record.device == SITE_DEVICE:
            return DeviceRecord(record.user, SITE_DEVICE, SITE, {}, True, False, 0)
        return devices.get((record.user, record.device))

    def _address(self, device: DeviceRecord) -> Address:
        if device.device == SITE_DEVICE:
            assert self._site is not None
            return self._site
        return address_of(device)

    def _shows(self, device: DeviceRecord, settings: SettingsRecord) -> bool:
        return self._content and device.content and settings.content

    @staticmethod
    def _note(record: PushRecord, message: Said, unread: _Unread, shows: bool) -> Note:
        return Note(
            user=record.user,
            device=record.device,
            chat_id=record.chat_id,
            chat_kind=record.chat_kind,
            chat_name=record.chat_name,
            message_id=str(record.message_id),
            seq=record.seq,
            sender=message.sender,
            content=message.content[:PREVIEW_CHARS] if shows else "",
            content_type=message.content_type,
            timestamp=message.at,
            mention=record.mention,
            badge=max(1, unread.total),
            unread=max(1, unread.chats.get(record.chat_id, 1)),
        )

    async def _messages(self, records: list[PushRecord]) -> dict[int, Said]:
        """From MongoDB, which has edits and deletions; what it does not have yet, from the log."""
        found = await self._audience.messages({each.message_id for each in records})
        missing = {e.message_id: e for e in records if e.message_id not in found}
        stored = await asyncio.gather(*(self._log.existing(each.seq) for each in missing.values()))
        for number, each in zip(missing, stored, strict=True):
            message = None if each is None else _message(each.data)
            if message is not None and message.id == str(number):
                assert each is not None
                found[number] = Said(
                    message.chat_id,
                    each.seq,
                    message.from_,
                    message.content,
                    message.content_type,
                    message.timestamp,
                    False,
                )
        return found

    async def _unread(self, users: Iterable[str]) -> dict[str, _Unread]:
        names = list(users)
        counts = await asyncio.gather(*(self._unread_of(user) for user in names))
        return dict(zip(names, counts, strict=True))

    async def _unread_of(self, user: str) -> _Unread:
        """Over the 50 chats with the newest messages, at most 999."""
        async with self._counting:
            chats = await self._audience.newest_chats(user, BADGE_GROUPS, BADGE_CHATS)
            read = await self._pointers.find({Of(chat, user) for chat in chats})
            behind = {}
            for chat, seq in chats.items():
                pointer = read.get(Of(chat, user))
                upto = 0 if pointer is None else pointer.seq
                if seq > upto:
                    behind[chat] = upto
            counts = await self._history.unread(user, behind) if behind else {}
        return _Unread(min(sum(counts.values()), BADGE_MOST), counts)


def address_of(device: DeviceRecord) -> Address:
    """Where a registered device is reached."""
    return msgspec.convert(device.address, Address)


def collapse_of(user: str, chat_id: str) -> str:
    """One name for all pushes of a chat to a user: 24 characters that tell a provider nothing."""
    text = b"%b\0%b" % (subjects.encode(user).encode(), chat_id.encode())
    return encoded(blake2b(text, digest_size=18).digest())


def _message(data: bytes) -> events.Message | None:
    try:
        event = events.decode(data)
    except ValueError:
        return None
    return event if isinstance(event, events.Message) else None
