"""Decides which devices a message is pushed to, and puts that down in MongoDB.

Everything that can be asked for many at once is: one batch of messages costs a few questions to
MongoDB and to NATS, whatever the number of users. Planning the same messages again changes nothing.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from broker import events, presence, subjects
from broker.bus import Bus
from broker.fanout import is_large
from broker.lease import LivingEdges
from broker.log import Log
from broker.mirror import Value
from broker.pointers import DELIVERED, Of, Pointers
from broker.presence import PresenceReader, State
from store.audience import Audience, GroupInfo
from store.devices import DEFAULTS, DeviceRecord, Devices
from store.errors import StoreUnavailable
from store.pushes import News, Pushes, PushRecord, key_of

from . import notify_rules as rules
from .notify_passed import Ask, Passed
from .notify_rules import When

SITE_DEVICE = "*"
"""Stands for the site's own webhook, which gets the pushes of all users; no device has the name."""

SITE = "site"
VIPS_S = 10.0
CACHED_MEMBERS = 200_000
MOST_MEMBERS = 10_000
"""Of a group; `HIKYAKU_GROUP_MEMBERS` allows no more."""

CHANGES_READ = 1000


class Fresh(NamedTuple):
    """A message of the log that may be pushed until `until_ms`."""

    seq: int
    event: events.Message
    until_ms: int


class Planner:
    """Plans pushes. Raises `StoreUnavailable` and `BrokerError`; then plan the same again."""

    def __init__(
        self,
        bus: Bus,
        living: LivingEdges,
        *,
        devices: Devices,
        pushes: Pushes,
        audience: Audience,
        coalesce_s: float,
        passed: Passed,
        away_counts: bool,
        site: bool,
        on_planned: Callable[[set[str]], None],
    ):
        """`site`: all users are pushed to by the site's webhook, too.

        `on_planned` is called with the providers for which there is something to send.
        """
        self._log = Log(bus)
        self._living = living
        self._presence = PresenceReader(bus)
        self._pointers = Pointers(bus)
        self._delivered = Pointers(bus, DELIVERED)
        self._devices = devices
        self._pushes = pushes
        self._audience = audience
        self._coalesce_s = coalesce_s
        self._passed = passed
        self._away_counts = away_counts
        self._site = site
        self._on_planned = on_planned
        self._members: OrderedDict[str, tuple[int, list[str]]] = OrderedDict()
        self._cached = 0
        self._vips: list[str] = []
        self._vips_at = -VIPS_S
        self.planned = 0
        self.skipped: Counter[str] = Counter()

    async def concerned(self, messages: list[events.Message]) -> list[bool]:
        """Which of these may have to be pushed: not those to one user who has no device.

        It only saves work, so while MongoDB does not answer it is all of them.
        """
        readers = [
            [] if isinstance(each, events.GroupChat) else rules.readers_of_dm(each)
            for each in messages
        ]
        asked = {user for users in readers for user in users}
        try:
            having = asked if self._site else await self._devices.having(asked)
        except StoreUnavailable:
            having = asked
        found = [
            isinstance(each, events.GroupChat) or any(user in having for user in users)
            for each, users in zip(messages, readers, strict=True)
        ]
        self.skipped["no_device"] += found.count(False)
        return found

    async def plan(self, fresh: list[Fresh]) -> None:
        """Plan the pushes of these messages."""
        await self._tell(await self._asks(await self._standing(fresh)))

    async def plan_left(self) -> None:
        """Plan for those who only seemed to be here, and have not got what came meanwhile."""
        now = asyncio.get_running_loop().time()
        doubted = self._passed.doubted(now)
        try:
            keys = await self._keys({each.ask.user for each in doubted})
            fates = {each: self._passed.fate(each, keys[each.ask.user], now) for each in doubted}
            lost = [each.ask for each, fate in fates.items() if fate == "lost"]
            await self._tell(await self._undelivered(lost), at_once=True)
        except BaseException:
            self._passed.doubt(each.token for each in doubted)
            raise
        self._passed.drop(each for each, fate in fates.items() if fate != "here")

    async def _undelivered(self, asks: list[Ask]) -> list[Ask]:
        """Without what a device has said that it has."""
        found = await self._delivered.find({Of(ask.chat_id, ask.user) for ask in asks})

        def has(ask: Ask) -> str | None:
            pointer = found.get(Of(ask.chat_id, ask.user))
            return "delivered" if pointer is not None and pointer.seq >= ask.seq else None

        return self._kept(asks, has)

    async def _tell(self, asks: list[Ask], *, at_once: bool = False) -> None:
        """`at_once`: what is told of together is so without another wait."""
        devices = await self._devices_of(asks)
        times = {ask: _when(ask, devices[ask.user]) for ask in asks if ask.user in devices}
        asks = await self._heard(ask for ask, when in times.items() if when is not None)
        together = [ask for ask in asks if times[ask] == "coalesced"]
        newest = {(e.user, e.chat_id): e for e in sorted(together, key=lambda ask: ask.seq)}
        now = [ask for ask in asks if times[ask] == "now"]
        await self._put(now + list(newest.values()) if at_once else now, devices)
        if not at_once:
            news = [
                News(e.user, e.chat_id, e.message_id, e.seq, e.until_ms) for e in newest.values()
            ]
            await self._pushes.plan_news(news, self._coalesce_s)

    async def plan_news(self, news: list[News]) -> None:
        """Plan the pushes of chats whose time has come."""
        ids = {each.chat_id: subjects.decode(each.chat_id.partition(".")[2]) for each in news}
        groups = await self._audience.groups(set(ids.values()))
        asks = []
        for each in news:
            group = groups.get(ids[each.chat_id])
            if group is not None:
                message = (each.message_id, each.seq, each.until_ms)
                asks.append(Ask(each.user, False, each.chat_id, group, *message))
        asks = await self._members_only(asks)
        devices = await self._devices_of(asks)
        asks = await self._heard(ask for ask in asks if ask.user in devices)
        await self._put(asks, devices)
        await self._pushes.told(news, self._coalesce_s)

    async def _put(self, asks: list[Ask], devices: dict[str, list[DeviceRecord]]) -> None:
        records = [
            PushRecord(
                key_of(ask.message_id, each.user, each.device),
                each.user,
                each.device,
                each.provider,
                ask.chat_id,
                ask.kind,
                "" if ask.group is None else ask.group.name,
                ask.message_id,
                ask.seq,
                ask.mention,
                ask.until_ms,
            )
            for ask in asks
            for each in devices[ask.user]
        ]
        await self._pushes.plan(records)
        self.planned += len(records)
        if records:
            self._on_planned({each.provider for each in records})

    # --- whom messages concern ---

    async def _standing(self, fresh: list[Fresh]) -> list[Fresh]:
        """Those that were not deleted meanwhile, by the log: MongoDB may be behind."""
        first: dict[str, int] = {}
        for each in fresh:
            chat = each.event.chat_id
            first[chat] = min(each.seq, first.get(chat, each.seq))
        newest = await self._log.last(list(first), has=max(first.values(), default=0))
        changed = [each.subject for each in newest if each.seq > first[each.subject]]
        found = await asyncio.gather(*(self._deleted(chat, first[chat]) for chat in changed))
        deleted = set().union(*found)
        standing = [each for each in fresh if each.event.id not in deleted]
        self.skipped["deleted"] += len(fresh) - len(standing)
        return standing

    async def _deleted(self, chat: str, seq: int) -> set[str]:
        page = await self._log.read(chat, seq + 1, CHANGES_READ)
        return {found for each in page.events if (found := _deletion(each.data))}

    async def _asks(self, fresh: list[Fresh]) -> list[Ask]:
        told = {each.event.group_id for each in fresh if isinstance(each.event, events.GroupChat)}
        groups = await self._audience.groups(told)
        large = any(is_large(each.size, each.kind) for each in groups.values())
        vips = await self._important() if large else []
        asks = []
        for each in fresh:
            event, group = each.event, None
            if isinstance(event, events.GroupChat):
                group = groups.get(event.group_id)
                users = [] if group is None else await self._of_group(event, group, vips)
            else:
                users = rules.readers_of_dm(event)
            message = (event.chat_id, group, int(event.id), each.seq, each.until_ms)
            asks += [Ask(user, user in event.mentions, *message) for user in users]
        return asks

    async def _of_group(
        self, event: events.GroupChat, group: GroupInfo, vips: list[str]
    ) -> list[str]:
        if is_large(group.size, group.kind):
            asked = rules.asked_in_large(event, vips)
            return await self._audience.members_among(group.group_id, asked)
        return [user for user in await self._members_of(group) if user != event.from_]

    async def _members_of(self, group: GroupInfo) -> list[str]:
        """The members at this version of the group, remembered until it is another."""
        version, members = self._members.pop(group.group_id, (-1, []))
        self._cached -= len(members)
        if version != group.version:
            members = await self._audience.members(group.group_id, MOST_MEMBERS)
        self._members[group.group_id] = (group.version, members)
        self._cached += len(members)
        while self._cached > CACHED_MEMBERS and len(self._members) > 1:
            _, (_, dropped) = self._members.popitem(last=False)
            self._cached -= len(dropped)
        return members

    async def _members_only(self, asks: list[Ask]) -> list[Ask]:
        kept = []
        for group in {ask.group for ask in asks if ask.group is not None}:
            there = [ask for ask in asks if ask.group == group]
            users = {ask.user for ask in there}
            members = set(await self._audience.members_among(group.group_id, users))
            kept += [ask for ask in there if ask.user in members]
        return kept

    def forget_vips(self) -> None:
        """Somebody may have become one."""
        self._vips_at = -VIPS_S

    async def _important(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        if now - self._vips_at > VIPS_S:
            self._vips, self._vips_at = await self._devices.vips(), now
        return self._vips

    async def _devices_of(self, asks: list[Ask]) -> dict[str, list[DeviceRecord]]:
        users = {ask.user for ask in asks}
        found = await self._devices.of(users)
        if self._site:
            for user in users:
                own = DeviceRecord(user, SITE_DEVICE, SITE, {}, True, False, 0)
                found.setdefault(user, []).append(own)
        self.skipped["no_device"] += sum(ask.user not in found for ask in asks)
        return found

    # --- what users want ---

    async def _heard(self, found: Iterable[Ask]) -> list[Ask]:
        """Without those whose users are here, want none now, or have read the message."""
        asks = list(found)
        known, connections = await self._states({ask.user for ask in asks})
        passed_at = asyncio.get_running_loop().time()

        def here(ask: Ask) -> str | None:
            if not rules.is_here(known[ask.user], away_counts=self._away_counts):
                return None
            self._passed.add(ask, connections[ask.user], passed_at)
            return "online"

        asks = self._kept(asks, here)
        settings = await self._devices.settings({ask.user for ask in asks})
        muting = await self._muting(asks)
        now = datetime.now(UTC)

        def silenced(ask: Ask) -> str | None:
            user = ask.user
            own = settings.get(user, DEFAULTS)
            muted = ask.chat_id in own.muted or (ask.chat_id, user) in muting
            mention = ask.mention
            return rules.silenced(known[user], own, muted=muted, mention=mention, now=now)

        asks = self._kept(asks, silenced)
        read = await self._pointers.find({Of(ask.chat_id, ask.user) for ask in asks})

        def seen(ask: Ask) -> str | None:
            pointer = read.get(Of(ask.chat_id, ask.user))
            return "read" if pointer is not None and pointer.seq >= ask.seq else None

        return self._kept(asks, seen)

    def _kept(self, asks: list[Ask], why_not: Callable[[Ask], str | None]) -> list[Ask]:
        kept = []
        for ask in asks:
            reason = why_not(ask)
            if reason is None:
                kept.append(ask)
            else:
                self.skipped[reason] += 1
        return kept

    async def _states(self, users: set[str]) -> tuple[dict[str, State], dict[str, set[str]]]:
        """What is known of users, and by which connections they are here."""
        states: dict[str, State] = {}
        connections: dict[str, set[str]] = {}
        # Only when all is read, so that what was told of connections meanwhile counts.
        for user, keys in (await self._keys(users)).items():
            counting = connections[user] = set(self._passed.connections(keys))
            values = ((key, each.data) for key, each in keys.items())
            kept = ((key, data) for key, data in values if "." not in key or key in counting)
            states[user] = presence.state(kept, self._living)
        return states, connections

    async def _keys(self, users: set[str]) -> dict[str, dict[str, Value]]:
        """Users' keys in the bucket `presence`."""
        tokens = {subjects.encode(user): user for user in users}
        found: dict[str, dict[str, Value]] = {}
        async for part in self._presence.read(tokens):
            found.update({tokens[token]: keys for token, keys in part.keys.items()})
        return found

    async def _muting(self, asks: list[Ask]) -> set[tuple[str, str]]:
        users: dict[tuple[str, str], set[str]] = {}
        for ask in asks:
            if ask.group is not None:
                users.setdefault((ask.chat_id, ask.group.group_id), set()).add(ask.user)
        found = await asyncio.gather(
            *(self._audience.muting(group, some) for (_, group), some in users.items())
        )
        chats = [chat for chat, _ in users]
        return {(chat, user) for chat, muting in zip(chats, found, strict=True) for user in muting}


def _when(ask: Ask, devices: list[DeviceRecord]) -> When | None:
    """When the user is told; VIP is who registered a device with such a token."""
    if ask.group is None:
        return "now"
    vip = any(each.vip for each in devices)
    return rules.when(ask.group.size, ask.group.kind, vip=vip, mention=ask.mention)


def _deletion(data: bytes) -> str:
    """The message that a stored event deletes, or empty."""
    try:
        event = events.decode(data)
    except ValueError:
        return ""
    return event.id if isinstance(event, events.MessageDeleted) else ""
