"""Takes what a peer's outbox has for this site: in its order, each parcel once, and only what is
the peer's to say.

A peer may say what happens in the chats that live there, and submit what its users write in chats
that live here. Anything else is refused, counted and named in the log, and does not hold up the
rest. How far the outbox was taken is written after what was taken is on disk; what may have been
stored just before a crash is looked for before it is stored again.
"""

import logging
from collections import Counter
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from broker import events, outbox, sites, subjects
from broker.bus import Bus
from broker.errors import InvalidName, Unavailable
from broker.federation import Postal, read
from broker.links import Links, Taken, way
from broker.renaming import renamed, renamed_chat
from broker.sites import Names, Sites
from broker.snowflake import unix_ms
from store.errors import StoreError
from store.mirrored import Mirrored, Place

from .copies import CLOCKS_MS, Copier, Copy, too_large
from .homing import Homing, Members
from .limits import Limits
from .sending import PARCELS, Answer, Batch, Where, digest
from .submissions import Submissions

_log = logging.getLogger("hikyaku.relay")


BELIEVE_S = 3600.0


_Way = tuple[str, outbox.Box]
"""A peer, and one of its boxes: each is taken in its own order, beside the other."""


class NotTheirs(Exception):
    """A peer says what is not its to say."""


class _Inbox:
    """What is known of the way from one peer. `doubt`: so many parcels may be stored already."""

    def __init__(self, taken: Taken):
        self.taken = taken
        self.doubt = PARCELS
        self.busy = False


class Taker:
    """Answers peers. `serve` begins; the `Postal` ends it."""

    def __init__(
        self,
        bus: Bus,
        *,
        links: Links,
        linked: Sites,
        mirrored: Mirrored,
        homing: Homing,
        machines: tuple[int, int],
        limits: Limits,
        check: Callable[[], None],
    ):
        self._limits = limits
        self._machines = machines
        self._links = links
        self._sites = linked
        self._mirrored = mirrored
        self._homing = homing
        self._check = check
        self._copier = Copier(bus, check)
        self._submissions: dict[_Way, Submissions] = {}
        self._bus = bus
        self._inboxes: dict[_Way, _Inbox] = {}
        self._heard: dict[str, tuple[int, int]] = {}
        self._overlapping: dict[str, str] = {}
        self._strange: dict[_Way, str] = {}
        self.taken = 0
        self.refused: Counter[str] = Counter()

    def serve(self, postal: Postal) -> None:
        """Answer what peers say from now on."""
        postal.serve("where", self._where)
        postal.serve("parcels", self._parcels)

    async def _inbox(self, peer: str, box: outbox.Box) -> _Inbox:
        inbox = self._inboxes.get((peer, box))
        if inbox is None:
            taken = await self._links.taken(peer, way("in", box))
            inbox = self._inboxes.setdefault((peer, box), _Inbox(taken))
        return inbox

    async def _where(self, peer: str, data: bytes) -> bytes:
        question = read(data, Where, peer)
        if not self._sites.linked(peer):
            return _encode(Answer(at=0, state="removed"))
        if self._overlaps(peer, question.machines):
            return _encode(Answer(at=0, state="overlap"))
        inbox = await self._inbox(peer, question.box)
        if _other(inbox.taken, question.epoch):
            if self._strange.get((peer, question.box)) != question.epoch:
                _log.error(
                    "%s has another outbox than the one known here; nothing is taken from it. "
                    "See docs/federation.md, 'A site from a backup'",
                    peer,
                )
            self._strange[peer, question.box] = question.epoch
            return _encode(Answer(at=0, state="stranger"))
        taken = inbox.taken
        return _encode(Answer(at=taken.seq, digest=taken.digest, busy=inbox.busy))

    def _overlaps(self, peer: str, machines: tuple[int, int]) -> bool:
        """Whether the peer's ids can be the same as those of this site, or of another peer."""
        self._heard[peer] = machines
        others = {"this site": self._machines}
        for site, known in self._sites.peers.items():
            found = self._heard.get(site, known.machines)
            if site != peer and known.state == "linked" and found != sites.UNKNOWN:
                others[site] = found
        for site, theirs in others.items():
            if sites.overlap(machines, theirs):
                if self._overlapping.get(peer) != site:
                    _log.error(
                        "%s has the machine numbers %d-%d and %s has %d-%d: nothing is taken"
                        " from it until it has others",
                        *(peer, *machines, site, *theirs),
                    )
                self._overlapping[peer] = site
                return True
        self._overlapping.pop(peer, None)
        return False

    async def _parcels(self, peer: str, data: bytes) -> bytes:
        batch = read(data, Batch, peer)
        if not self._sites.linked(peer):
            return _encode(Answer(at=0, state="removed"))
        inbox = await self._inbox(peer, batch.box)
        taken = inbox.taken
        if inbox.busy or _other(taken, batch.epoch) or batch.after > taken.seq:
            return _encode(Answer(at=taken.seq, state="again"))
        inbox.busy = True
        try:
            new = [each for each in batch.parcels if each[0] > taken.seq]
            if new:
                batch.parcels = new[: await self._limits.parcels(peer, len(new))]
                await self._take(peer, inbox, batch)
        finally:
            inbox.busy = False
        return _encode(Answer(at=inbox.taken.seq))

    async def _take(self, peer: str, inbox: _Inbox, batch: Batch) -> None:
        before = inbox.taken
        work = _Work(self, peer, inbox, batch)
        # Until all is done: what of it is stored already is looked for when it comes again.
        doubt, inbox.doubt = inbox.doubt, PARCELS
        try:
            for seq, raw in batch.parcels:
                await work.take(seq, bytes(raw))
            await work.flush()
        except StoreError as error:
            raise Unavailable(str(error)) from error
        last, raw = batch.parcels[-1]
        after = replace(
            before,
            epoch=batch.epoch,
            seq=last,
            told=work.told,
            part=work.part,
            at=unix_ms(),
            digest=digest(bytes(raw)),
        )
        await self._links.take(peer, way("in", batch.box), after)
        inbox.taken = after
        inbox.doubt = max(0, doubt - len(batch.parcels)) if work.doubting else 0
        self.taken += len(batch.parcels)

    async def renew(self, peer: str) -> None:
        """Take from an outbox of the peer that is not known yet, from its beginning.

        Raises `Unavailable`, also while something of the peer is being taken.
        """
        for box in outbox.BOXES:
            await self._renew(peer, box)

    async def _renew(self, peer: str, box: outbox.Box) -> None:
        inbox = await self._inbox(peer, box)
        if inbox.busy:
            raise Unavailable(f"something of {peer} is being taken just now; try again")
        inbox.busy = True
        try:
            await self._links.taken(peer, way("in", box))
            known = inbox.taken
            now = unix_ms()
            taken = Taken(
                at=known.at,
                old=known.epoch or known.old,
                believe=now + int(BELIEVE_S * 1000),
                anew=now,
                known=max(known.told, known.known),
            )
            # If its log was set back, what it tells has places of which more is known here.
            await self._mirrored.begin_anew(peer)
            await self._links.take(peer, way("in", box), taken)
            self._inboxes[peer, box] = _Inbox(taken)
        except StoreError as error:
            raise Unavailable(str(error)) from error
        finally:
            inbox.busy = False

    def refuse(self, peer: str, why: str, seq: int) -> None:
        """Count and name what a peer must not say."""
        self.refused[peer] += 1
        _log.error("parcel %d of %s is refused: %s", seq, peer, why[:500])

    def submissions(self, peer: str, box: outbox.Box) -> Submissions:
        """What users here have sent to the peer, for what comes of one box."""
        if (peer, box) not in self._submissions:
            self._submissions[peer, box] = Submissions(self._bus)
        return self._submissions[peer, box]


class _Work:
    """One batch of one peer. What was gathered is stored by `flush`.

    Of a link that was renewed, `_old` are copies that may have been taken before. They are looked
    for one by one: the peer need not have all that was taken, nor in the same order.
    """

    def __init__(self, taker: Taker, peer: str, inbox: _Inbox, batch: Batch):
        self._taker = taker
        self._box = batch.box
        self._peer = peer
        self._inbox = inbox
        self._names: Names = taker._sites.names
        self._copies: list[Copy] = []
        self._old: set[str] = set()
        self._ids: dict[str, set[str]] = {}
        self._refusals: list[outbox.Refusal] = []
        self._members: Members = set()
        self.doubting = inbox.doubt > 0
        self._submissions = taker.submissions(peer, batch.box)
        self._submissions.begin()
        self.told = inbox.taken.told
        self.part = inbox.taken.part

    async def take(self, seq: int, data: bytes) -> None:
        """One parcel."""
        try:
            parcel = outbox.decode(data)
            if isinstance(parcel, outbox.Submitted) != (self._box == "submitted"):
                raise NotTheirs(f"no parcel of the box {self._box!r}")
            if isinstance(parcel, outbox.Telling):
                if not (0 <= parcel.seq < 2**63 and 0 <= parcel.part < 2**31):
                    raise NotTheirs("no place in a log")
                if (parcel.seq, parcel.part) <= (self.told, self.part):
                    return  # It was put into the outbox twice.
                self.told, self.part = parcel.seq, parcel.part
            match parcel:
                case outbox.Event():
                    await self._event(parcel)
                case outbox.Own():
                    await self._own(parcel)
                case outbox.GroupPage():
                    await self._group(parcel)
                case outbox.Refusal():
                    await self._refusal(parcel, seq)
                case outbox.Submitted():
                    await self._submitted(parcel)
        except (msgspec.DecodeError, ValueError, OverflowError) as error:
            # The last: a number that the database cannot hold.
            self._taker.refuse(self._peer, f"not readable: {error}", seq)
        except (InvalidName, NotTheirs) as error:
            self._taker.refuse(self._peer, str(error), seq)

    async def flush(self) -> None:
        """Store what was gathered, then remove the submissions that came back."""
        copies, self._copies = self._copies, []
        refusals, self._refusals = self._refusals, []
        if refusals:
            # First: what comes back of a chat settles all that was sent before it.
            self._taker._check()
            await self._taker._homing.tell(self._peer, refusals)
        await self._store(copies)
        await self._submissions.settle()

    async def _store(self, copies: list[Copy]) -> None:
        new: list[Copy] = []
        for copy in copies:
            if copy.msg_id in self._old:
                if await self._there(copy):
                    continue
            elif self.doubting:
                # Behind the first one that is not there, none is.
                self.doubting = await self._there(copy)
                if self.doubting:
                    continue
            new.append(copy)
        await self._taker._copier.store(new)

    async def _there(self, copy: Copy) -> bool:
        copier = self._taker._copier
        if copy.msg_id not in self._old:
            return await copier.there(copy, self._inbox.taken.at)
        if copy.subject not in self._ids:
            self._ids[copy.subject] = await copier.ids(copy.subject)
        return copy.msg_id in self._ids[copy.subject]

    def _copy(self, subject: str, data: bytes, parcel: outbox.Event | outbox.Own) -> Copy:
        """Named by the place in the peer's log and what is there: both outlast its outbox."""
        old = parcel.seq <= self._inbox.taken.known
        name = f"{parcel.seq}:{parcel.part}:{digest(bytes(parcel.data))}"
        return self._named(subject, data, name, old=old)

    def _named(self, subject: str, data: bytes, name: str, *, old: bool) -> Copy:
        msg_id = subjects.message_id_header(f"\0site {self._peer}", name)
        if old:
            self._old.add(msg_id)
        return Copy(subject, data, msg_id)

    def _local(self, name: str) -> str:
        return self._names.local(name, self._peer)

    # --- what happens in chats that live there ---

    async def _event(self, parcel: outbox.Event) -> None:
        chat_id = renamed_chat(parcel.chat_id, self._local)
        if self._names.home_of(chat_id) != self._peer:
            raise NotTheirs(f"the chat {chat_id} does not live there")
        event = renamed(events.decode(parcel.data), self._local)
        if getattr(event, "chat_id", None) != chat_id:
            raise NotTheirs(f"an event of another chat than {chat_id}")
        copy = self._copy(chat_id, _encoded(event), parcel)
        if isinstance(event, events.Message | events.Change):
            self._check_author(event, chat_id)
            if not (
                await self._returned(event)
                or ((self.doubting or copy.msg_id in self._old) and await self._there(copy))
                or unix_ms() < self._inbox.taken.believe
            ):
                raise NotTheirs(f"{event.from_!r} of this site did not write it")
        elif isinstance(event, events.Membership) and chat_id.startswith("group."):
            await self.flush()
            await self._changed(event, _place(parcel))
        else:
            raise NotTheirs(f"no event of a chat: {type(event).__name__}")
        self._copies.append(copy)

    async def _returned(self, event: events.Message | events.Change) -> bool:
        """Whether its author is a user elsewhere, or sent it from here."""
        if self._names.site_of(event.from_) is not None:
            return True
        return await self._submissions.find(self._peer, event)

    def _check_author(self, event: events.Message | events.Change, chat_id: str) -> None:
        if chat_id.startswith("dm."):
            tokens = subjects.parse(chat_id).tokens
            if subjects.encode(event.from_) not in tokens:
                raise NotTheirs(f"{event.from_!r} is not in the chat {chat_id}")

    async def _changed(self, event: events.Membership, place: Place) -> None:
        mirrored, group = self._taker._mirrored, event.group_id
        match event:
            case events.MemberAdded():
                users, size, name = event.users, event.size, event.name
                await mirrored.join(group, place, event.kind, users, size=size, name=name)
            case events.MemberRemoved():
                await mirrored.remove(group, place, event.users, size=event.size)
            case events.GroupUpdated():
                await mirrored.update(group, place, name=event.name, roles=_roles(event.roles))

    async def _own(self, parcel: outbox.Own) -> None:
        event = renamed(events.decode_own(parcel.data), self._local)
        if not isinstance(event, events.MemberAdded | events.MemberRemoved):
            raise NotTheirs("no membership")
        (user,) = event.users
        if self._names.site_of(user) is not None:
            raise NotTheirs(f"{user!r} is no user of this site")
        if self._names.site_of(event.group_id) != self._peer:
            raise NotTheirs(f"the group {event.group_id!r} does not live there")
        copy = self._copy(subjects.user(user), _encoded(event), parcel)
        await self.flush()
        mirrored, group, place = self._taker._mirrored, event.group_id, _place(parcel)
        if isinstance(event, events.MemberAdded):
            await mirrored.join(group, place, event.kind, [user], size=event.size)
        else:
            await mirrored.remove(group, place, [user], size=event.size)
        self._copies.append(copy)

    async def _group(self, parcel: outbox.GroupPage) -> None:
        page = renamed(parcel, self._local)
        if self._names.site_of(page.group_id) != self._peer:
            raise NotTheirs(f"the group {page.group_id!r} does not live there")
        await self.flush()
        await self._taker._mirrored.know(
            page.group_id,
            _place(parcel),
            home=self._peer,
            name=page.name,
            kind=page.kind,
            created_by=page.created_by,
            size=page.size,
            members=page.members,
        )

    async def _refusal(self, parcel: outbox.Refusal, seq: int) -> None:
        local = renamed(parcel, self._local)
        if not await self._submissions.refused(self._peer, local):
            return  # It is known already.
        refused = events.WriteRefused(
            id=local.id,
            chat_id=local.chat_id,
            client_id=local.client_id,
            code=local.code,
            message=local.message,
        )
        name = f"{seq}:{digest(outbox.encode(parcel))}"
        old = self._inbox.taken.anew > 0
        self._copies.append(self._named(subjects.user(local.by), _encoded(refused), name, old=old))

    # --- what the peer's users write in chats that live here ---

    async def _submitted(self, parcel: outbox.Submitted) -> None:
        chat_id = renamed_chat(parcel.chat_id, self._local)
        event = renamed(events.decode(parcel.data), self._local)
        if not isinstance(event, events.Message | events.Change) or event.chat_id != chat_id:
            raise NotTheirs("no write in a chat")
        if self._names.site_of(event.from_) != self._peer:
            raise NotTheirs(f"{event.from_!r} is not its user")
        if self._names.home_of(chat_id) is not None:
            raise NotTheirs(f"the chat {chat_id} does not live here")
        data = _encoded(event)
        if isinstance(event, events.Change):
            await self.flush()
        refusal = await self._taker._homing.refusal(event, self._members)
        if refusal is not None:
            self._refusals.append(refusal)
            return
        msg_id = subjects.message_id_header(event.from_, event.client_id)
        if events.decode_identity(parcel.data).at < self._inbox.taken.anew + CLOCKS_MS:
            self._old.add(msg_id)
        self._copies.append(Copy(chat_id, data, msg_id))


def _other(taken: Taken, epoch: str) -> bool:
    """Whether this is not the outbox that is known, or one that is not taken from any more."""
    return epoch != taken.epoch if taken.epoch else epoch == taken.old


def _place(parcel: outbox.Telling) -> Place:
    return Place(parcel.seq, parcel.part)


def _roles(roles: dict[str, str] | None) -> dict[str, outbox.Role]:
    return msgspec.convert(roles or {}, dict[str, outbox.Role])


def _encoded(event: events.Event) -> bytes:
    """As it is stored; longer names may have made it larger than the log takes."""
    data = events.encode(event)
    if too_large(data):
        raise NotTheirs(f"an event of {len(data)} bytes is too large")
    return data


_encode = msgspec.json.Encoder().encode
