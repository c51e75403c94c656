"""Read and delivery receipts: moves the pointers, tells of it, and answers how far everyone is.

What was read is an event of the log for the user's own devices, and mirrored in MongoDB. What was
delivered is told at once or not at all, and only in chats of up to 50 members.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from broker import events, query, subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.fanout import LARGE, SMALL
from broker.pointers import DELIVERED, Of, Pointers
from broker.requests import Failure
from store.directory import Directory
from store.reads import Reads

_READ_SENDER = "\0read"

_log = logging.getLogger("hikyaku.receipts")

PlaceOf = Callable[[str, str], Awaitable[int]]
"""The seq of a message, given its chat and id. Raises `Failure` when there is none."""


class Receipts:
    """The part of the service `query` that is about receipts."""

    def __init__(
        self, bus: Bus, committer: Committer, directory: Directory, reads: Reads, place_of: PlaceOf
    ):
        self._bus = bus
        self._committer = committer
        self._directory = directory
        self._reads = reads
        self._place_of = place_of
        self._read = Pointers(bus)
        self._delivered = Pointers(bus, DELIVERED)

    # --- moving ---

    async def move(self, question: query.Move) -> query.Moved:
        """Move pointers, and tell of those that moved. What fails for one harms no other."""
        receipts = question.receipts
        crowded = await self._crowded(receipts)
        outcomes = await asyncio.gather(*(self._placed(each, crowded) for each in receipts))
        for kind, pointers in (("read", self._read), ("delivered", self._delivered)):
            wanted: dict[Of, query.Pointer] = {}
            there: list[tuple[Of, query.Outcome]] = []
            for receipt, outcome in zip(receipts, outcomes, strict=True):
                if receipt.kind == kind and outcome.pointer is not None:
                    of = Of(receipt.chat_id, receipt.user)
                    there.append((of, outcome))
                    if of not in wanted or wanted[of].seq < outcome.pointer.seq:
                        wanted[of] = outcome.pointer
            advanced = await pointers.advance_all(wanted)
            for of, outcome in there:
                outcome.pointer = advanced[of].pointer
            if kind == "read":
                # Even if it stood there before: an earlier attempt may have ended before it told.
                stand = [(of, to) for of, to in wanted.items() if advanced[of].pointer == to]
                await asyncio.gather(*(self._tell_read(*each) for each in stand))
            else:
                for of, each in advanced.items():
                    if each.moved:
                        self._tell_delivered(of, each.pointer)
        return query.Moved(outcomes=outcomes)

    async def _placed(self, receipt: query.Receipt, crowded: set[str]) -> query.Outcome:
        """An outcome with the pointer that the receipt wants, or why there is none."""
        if receipt.kind == "delivered" and receipt.chat_id in crowded:
            return query.Outcome(crowded=True)
        try:
            seq = receipt.seq or await self._place_of(receipt.chat_id, receipt.message_id)
        except Failure as failure:
            return query.Outcome(code=failure.code, message=failure.message)
        return query.Outcome(pointer=query.Pointer(seq=seq, id=receipt.message_id))

    async def _crowded(self, receipts: list[query.Receipt]) -> set[str]:
        """The chats that are too large for delivery receipts."""
        chats = {each.chat_id for each in receipts if each.kind == "delivered"}
        groups = {
            subjects.decode(tokens[0])
            for kind, tokens in map(subjects.parse, chats)
            if kind == "group"
        }
        if not groups:
            return set()
        return {
            subjects.group(each)
            for each in await self._directory.larger_than(SMALL, sorted(groups))
        }

    async def _tell_read(self, of: Of, pointer: query.Pointer) -> None:
        """Own devices are told through the log, the others in the chat at once."""
        event = events.encode(
            events.ReadReceipt(
                chat_id=of.chat_id,
                reader_id=of.user,
                last_read_msg_id=pointer.id,
                read_seq=pointer.seq,
            )
        )
        name = f"{of.user}:{of.chat_id}:{pointer.seq}"
        told = await self._committer.commit(
            subjects.user(of.user),
            event,
            msg_id=subjects.message_id_header(_READ_SENDER, name),
        )
        if told.first is None:
            self._whisper(of, event)

    def _tell_delivered(self, of: Of, pointer: query.Pointer) -> None:
        event = events.DeliveryReceipt(
            chat_id=of.chat_id,
            user_id=of.user,
            last_delivered_msg_id=pointer.id,
            delivered_seq=pointer.seq,
        )
        self._whisper(of, events.encode(event))

    def _whisper(self, of: Of, event: bytes) -> None:
        sender = subjects.encode(of.user).encode()
        self._bus.publish(subjects.ephemeral(of.chat_id), b"%b\n%b" % (sender, event))

    # --- asking ---

    async def of_chat(self, question: query.Receipts) -> query.ReceiptsFound:
        """How far each member is, in a chat that is not large."""
        kind, tokens = subjects.parse(question.chat_id)
        if kind == "group":
            group_id = subjects.decode(tokens[0])
            users = await self._directory.member_ids(group_id, limit=LARGE + 1)
            if len(users) > LARGE:
                raise Failure("invalid", f"receipts are kept in chats of up to {LARGE} members")
        else:
            users = [subjects.decode(token) for token in dict.fromkeys(tokens)]
        wanted = [Of(question.chat_id, user) for user in users]
        found = views(wanted, await self._read.find(wanted), await self._delivered.find(wanted))
        return query.ReceiptsFound(receipts={of.user: each for of, each in found.items()})

    async def of_list(
        self, user: str, chats: list[str]
    ) -> tuple[dict[str, query.Pointer], dict[str, dict[str, dict[str, Any]]]]:
        """The user's own pointers, and by conversation of two how far the other one is."""
        others = [Of(chat, other) for chat in chats if (other := _other_of(chat, user)) is not None]
        read = await self._read.find([*(Of(chat, user) for chat in chats), *others])
        told = views(others, read, await self._delivered.find(others))
        own = {of.chat_id: each for of, each in read.items() if of.user == user}
        return own, {of.chat_id: {of.user: each} for of, each in told.items()}

    async def own(self, user: str, chats: list[str]) -> dict[str, query.Pointer]:
        """Up to where the user has read these chats."""
        found = await self._read.find([Of(chat, user) for chat in chats])
        return {of.chat_id: each for of, each in found.items()}

    # --- the bucket ---

    async def restore(self) -> None:
        """Fill the bucket of what was read from its mirror when it is new, or was lost."""
        if await self._read.restored():
            return
        restored = 0
        async for each in self._reads.all():
            pointer = query.Pointer(seq=each.seq, id=each.message_id)
            stands, _ = await self._read.advance(each.chat_id, each.user, pointer)
            restored += stands == pointer
        await self._read.mark_restored()
        if restored:
            _log.warning("restored %d read pointers from MongoDB", restored)


def views(
    wanted: list[Of], read: dict[Of, query.Pointer], delivered: dict[Of, query.Pointer]
) -> dict[Of, dict[str, Any]]:
    """What clients are told of each; what was read was delivered too."""
    found: dict[Of, dict[str, Any]] = {}
    for of in wanted:
        mine = read.get(of)
        stored = max(
            (each for each in (mine, delivered.get(of)) if each is not None),
            key=lambda each: each.seq,
            default=None,
        )
        if stored is not None:
            found[of] = {
                "last_read_msg_id": mine.id if mine is not None else None,
                "read_seq": mine.seq if mine is not None else 0,
                "last_delivered_msg_id": stored.id,
                "delivered_seq": stored.seq,
            }
    return found


def _other_of(chat_id: str, user: str) -> str | None:
    kind, tokens = subjects.parse(chat_id)
    if kind != "dm":
        return None
    return next((name for token in tokens if (name := subjects.decode(token)) != user), None)
