"""Groups and membership: answers `svc.directory.*` and publishes what its changes left to tell.

A change is answered after its events are in the log, with the seq of the last one, so that an edge
can wait until it has seen them: whoever creates a group can write to it with the next frame.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from prometheus_client import Metric

from broker import directory as ask
from broker import events, subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.errors import BrokerError, Retryable
from broker.fanout import LARGE, is_large
from broker.log import Log
from broker.metrics import counter
from broker.requests import Failure, Responder
from store import errors
from store.directory import Change, Directory, GroupRecord, OutboxEntry

DEADLINE_S = 10.0
SWEEP_S = 2.0
LEFT_BEHIND_S = 1.0
AGED_S = 60.0
"""Half of the time for which JetStream knows message ids."""

CLOCKS_S = 300.0
"""So far at most two machines' clocks are apart."""

ANSWER_GROUPS = 5000
"""Groups in one answer, all users together: with ids of 64 bytes, half of NATS' 1 MB."""

_OUTBOX_SENDER = "\0outbox"
"""Stands for the sender in message ids of events; has a control character, so no user has it."""

_CODES: dict[type[errors.StoreError], str] = {
    errors.NotFound: "not_found",
    errors.NotMember: "not_member",
    errors.Forbidden: "forbidden",
    errors.DuplicateGroup: "duplicate_group",
    errors.GroupFull: "group_full",
    errors.StoreUnavailable: "unavailable",
}

_log = logging.getLogger("hikyaku.directory")


def events_of(change: Change) -> list[tuple[str, bytes]]:
    """The events of a change, in an order in which every client sees exactly one.

    Who leaves is told on the own subject before the group is, and who joins after the group was:
    an edge ends and begins a user's membership with the event on the user's own subject. A large
    channel is not told about each member who comes or goes; that it became large, or is so no
    longer, comes before whoever joins or leaves with that.
    """
    group = change.group
    chat_id = subjects.group(group.group_id)
    large = is_large(group.size, group.kind)
    was_large = is_large(group.size - len(change.added) + len(change.removed), group.kind)
    tell_group = not large

    def membership(kind: type[Any], users: list[str]) -> bytes:
        return events.encode(
            kind(
                chat_id=chat_id,
                group_id=group.group_id,
                by=change.by,
                users=users,
                name=group.name,
                kind=group.kind,
                size=group.size,
            )
        )

    told = [
        (subjects.user(user), membership(events.MemberRemoved, [user])) for user in change.removed
    ]
    if large != was_large:
        crossed = events.GroupUpdated(
            chat_id=chat_id, group_id=group.group_id, by=change.by, large=large
        )
        told.append((chat_id, events.encode(crossed)))
    if tell_group and change.removed:
        told.append((chat_id, membership(events.MemberRemoved, change.removed)))
    if tell_group and change.added:
        told.append((chat_id, membership(events.MemberAdded, change.added)))
    told += [(subjects.user(user), membership(events.MemberAdded, [user])) for user in change.added]
    if change.name is not None or change.roles:
        updated = events.GroupUpdated(
            chat_id=chat_id,
            group_id=group.group_id,
            by=change.by,
            name=change.name,
            roles=dict(change.roles) if change.roles else None,
        )
        told.append((chat_id, events.encode(updated)))
    return told


def identified(entry: OutboxEntry) -> list[tuple[str, str, bytes]]:
    """The message id, subject and bytes of each event of an entry."""
    return [
        (
            subjects.message_id_header(
                _OUTBOX_SENDER, f"{entry.version}:{number}:{entry.group_id}"
            ),
            subject,
            data,
        )
        for number, (subject, data) in enumerate(entry.events)
    ]


class DirectoryWorker:
    """One process of the service. Use as a context manager."""

    def __init__(self, bus: Bus, committer: Committer, directory: Directory):
        self._committer = committer
        self._log = Log(bus)
        self._directory = directory
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._telling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sweeper: asyncio.Task[None] | None = None
        self.left_behind = 0
        self.responder = Responder(
            bus,
            ask.SERVICE,
            {
                "chats": (ask.Chats, self._guard(self._chats)),
                "shares": (ask.Shares, self._guard(self._shares)),
                "create": (ask.Create, self._guard(self._create)),
                "add": (ask.Add, self._guard(self._add)),
                "remove": (ask.Remove, self._guard(self._remove)),
                "join": (ask.Join, self._guard(self._join)),
                "leave": (ask.Leave, self._guard(self._leave)),
                "update": (ask.Update, self._guard(self._update)),
                "info": (ask.Info, self._guard(self._info)),
                "members": (ask.Members, self._guard(self._members)),
            },
            deadline_s=DEADLINE_S,
        )

    async def __aenter__(self) -> "DirectoryWorker":
        self._sweeper = asyncio.create_task(self._sweep(), name="outbox sweeper")
        await self.responder.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.responder.__aexit__(*exc_info)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from self.responder.metrics()
        yield from self._committer.metrics()
        text = "Groups whose events a worker left unpublished, published later."
        yield counter("hikyaku_directory_left_behind_total", text, self.left_behind)

    @staticmethod
    def _guard(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        """Errors of the store as failures with the protocol's code."""

        async def guarded(question: Any) -> Any:
            try:
                return await handler(question)
            except errors.StoreError as error:
                code = _CODES[type(error)]
                raise Failure(code, str(error), retryable=error.retryable) from error

        return guarded

    # --- questions ---

    async def _chats(self, question: ask.Chats) -> ask.Memberships:
        found = await self._directory.groups_of(question.users)
        await self._as_told(found)
        answered: dict[str, dict[str, ask.Kind]] = {}
        room = ANSWER_GROUPS
        for user, groups in found.items():
            if answered and len(groups) > room:
                break
            answered[user] = groups
            room -= len(groups)
        channels = {
            group
            for groups in answered.values()
            for group, kind in groups.items()
            if kind == "channel"
        }
        large = await self._directory.larger_than(LARGE, sorted(channels))
        return ask.Memberships(groups=answered, large=large)

    async def _as_told(self, found: dict[str, dict[str, ask.Kind]]) -> None:
        """Add what users have left and that is not in the log yet: edges follow the log."""
        for data in await self._directory.untold([subjects.user(user) for user in found]):
            event = events.decode_own(data)
            if isinstance(event, events.MemberRemoved):
                found[event.users[0]].setdefault(event.group_id, event.kind)

    async def _shares(self, question: ask.Shares) -> ask.Shared:
        users = set(await self._directory.sharing(question.user, question.others))
        others = [other for other in question.others if other not in users]
        dms = {subjects.dm(question.user, other): other for other in others}
        users.update(dms[dm] for dm in await self._directory.written(list(dms)))
        return ask.Shared(users=sorted(users))

    async def _info(self, question: ask.Info) -> ask.Changed:
        record = await self._directory.info(question.by, question.group_id)
        return ask.Changed(group=_group(record), seq=0)

    async def _members(self, question: ask.Members) -> ask.MemberPage:
        found, more = await self._directory.members(
            question.by, question.group_id, after=question.after, limit=question.limit
        )
        members = [ask.Member(user_id=user, role=role) for user, role in found]
        return ask.MemberPage(members=members, more=more)

    # --- changes ---

    async def _create(self, question: ask.Create) -> ask.Changed:
        group_id = question.group_id or uuid4().hex[:16]
        return await self._changed(
            group_id,
            self._directory.create(
                question.by,
                client_id=question.client_id,
                name=question.name,
                users=question.members,
                kind=question.kind,
                group_id=group_id,
            ),
        )

    async def _add(self, question: ask.Add) -> ask.Changed:
        group_id = question.group_id
        return await self._changed(
            group_id, self._directory.add(question.by, group_id, question.users)
        )

    async def _remove(self, question: ask.Remove) -> ask.Changed:
        group_id = question.group_id
        return await self._changed(
            group_id, self._directory.remove(question.by, group_id, question.users)
        )

    async def _join(self, question: ask.Join) -> ask.Changed:
        group_id = question.group_id
        return await self._changed(group_id, self._directory.join(question.by, group_id))

    async def _leave(self, question: ask.Leave) -> ask.Changed:
        group_id = question.group_id
        return await self._changed(group_id, self._directory.leave(question.by, group_id))

    async def _update(self, question: ask.Update) -> ask.Changed:
        group_id = question.group_id
        if question.mute is not None:
            record = await self._directory.mute(question.by, group_id, mute=question.mute)
            if question.name is None and not question.roles:
                return ask.Changed(group=_group(record), seq=0)
        return await self._changed(
            group_id,
            self._directory.update(question.by, group_id, name=question.name, roles=question.roles),
        )

    # --- the outbox ---

    async def _changed(self, group_id: str, making: Coroutine[Any, Any, Change]) -> ask.Changed:
        """Make a change, publish what it left in the outbox, then answer.

        Those of a group are made one after the other: transactions that meet cost each other
        retries. If publishing fails now, the change stands and the sweeper tells of it later; the
        asker learns that it may repeat the question.
        """
        with closing(making):
            async with self._making.setdefault(group_id, asyncio.Lock()):
                change = await making
        try:
            seq = await self._publish(change.group.group_id)
        except BrokerError as error:
            raise Failure("unavailable", str(error), retryable=True) from error
        return ask.Changed(group=_group(change.group), seq=seq)

    async def _publish(self, group_id: str) -> int:
        """Publish all that a group has in the outbox, in order; the last seq, or 0."""
        lock = self._telling.setdefault(group_id, asyncio.Lock())
        seq = 0
        async with lock:
            for entry in await self._directory.unpublished(group_id):
                seq = await self._publish_entry(entry)
                await self._directory.published(entry)
        return seq

    async def _publish_entry(self, entry: OutboxEntry) -> int:
        """Publish what of it is not in the log, in its order; the last seq."""
        if time.time() - entry.at / 1000 > AGED_S:
            return max([await self._publish_aged(entry, *each) for each in identified(entry)])
        publishing = [
            self._committer.commit(subject, data, msg_id=msg_id)
            for msg_id, subject, data in identified(entry)
        ]
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return max(each.seq for each in outcomes if not isinstance(each, BaseException))

    async def _publish_aged(
        self, entry: OutboxEntry, msg_id: str, subject: str, data: bytes
    ) -> int:
        """An earlier attempt may have stored it, so long ago that JetStream does not know it."""
        since_s = entry.at / 1000 - CLOCKS_S
        if seq := await self._log.find(subject, msg_id, since_s=since_s):
            return seq
        return (await self._committer.commit(subject, data, msg_id=msg_id)).seq

    async def _sweep(self) -> None:
        """Publish what a worker that died, or lost NATS, left behind."""
        while True:
            try:
                for group_id in await self._directory.groups_with_unpublished(LEFT_BEHIND_S):
                    await self._publish_left_behind(group_id)
            except (errors.StoreError, BrokerError) as error:
                _log.warning("outbox not published, next try in %g s: %s", SWEEP_S, error)
            except Exception:
                _log.exception("outbox not published, next try in %g s", SWEEP_S)
            await asyncio.sleep(SWEEP_S)

    async def _publish_left_behind(self, group_id: str) -> None:
        self.left_behind += 1
        _log.info("publishing what was left behind for group %r", group_id)
        try:
            await self._publish(group_id)
        except (errors.StoreUnavailable, Retryable):
            raise
        except Exception:
            # What can never be published of one group must not keep the others' back.
            _log.exception("what was left behind for group %r is not published", group_id)


def _group(record: GroupRecord) -> ask.Group:
    return ask.Group(
        group_id=record.group_id,
        chat_id=subjects.group(record.group_id),
        name=record.name,
        kind=record.kind,
        home=record.home,
        members=record.listed,
        member_count=record.size,
        version=record.version,
        created_by=record.created_by,
    )
