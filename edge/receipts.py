"""Read and delivery receipts, coalesced: of each user and chat one a second goes on, the newest.

Those of all users go on together, a few questions a second, with the place of the message where it
is known here: so a receipt costs less than its message.

Delivery receipts are for chats of up to 50 members. The worker knows the size; what it says of a
chat that is larger is kept here for a while, so that its members' receipts end here.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from broker import query
from broker.errors import BrokerError
from broker.requests import Failure

from . import frames
from .writes import own_chat

if TYPE_CHECKING:
    from .asker import Asker

INTERVAL_S = 1.0
GATHER_S = 0.05
RECEIPTS_A_QUESTION = 500
CHATS = 256
CROWDED_S = 60.0
CROWDED_CHATS = 10_000

_Kind = Literal["read", "delivered"]


class Pending:
    """Receipts of one user in one chat that wait for their turn, and whom to answer then."""

    __slots__ = ("asking", "waiting")

    def __init__(self) -> None:
        self.asking = False
        self.waiting: list[tuple[Asker, Any]] = []


class Crowded:
    """Chats that are too large for delivery receipts, each known for a minute."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, chat_id: str, now: float) -> None:
        """The worker said so just now."""
        if len(self._until) >= CROWDED_CHATS:
            self._until = {chat: until for chat, until in self._until.items() if until > now}
            if len(self._until) >= CROWDED_CHATS:
                return
        self._until[chat_id] = now + CROWDED_S

    def has(self, chat_id: str, now: float) -> bool:
        """Whether that was said within the last minute."""
        return self._until.get(chat_id, 0.0) > now


def read(asker: "Asker", request: frames.ReadReceipt) -> None:
    """Pass on that the user has read a chat. May raise."""
    own_chat(asker, request.chat_id)
    if not _submit(asker, "read", request):
        asker.error("overloaded", "too many chats are read at once", request)


def delivered(asker: "Asker", request: frames.DeliveryReceipt) -> None:
    """Pass on that a device of the user has stored a chat's messages. May raise.

    Nothing is answered. What is too much is dropped: the next message's receipt says it too.
    """
    own_chat(asker, request.chat_id)
    if not asker.edge.crowded.has(request.chat_id, asker.edge.now()):
        _submit(asker, "delivered", request)


async def of_chat(asker: "Asker", request: frames.Receipts) -> None:
    """How far each member of a chat is that the user is in."""
    own_chat(asker, request.chat_id)
    question = query.Receipts(chat_id=request.chat_id)
    found = await asker.edge.ask_query("receipts", question, query.ReceiptsFound)
    asker.push(frames.Result(id=request.id, receipts=found.receipts))


# --- one at a time for each user and chat ---


def _submit(asker: "Asker", kind: _Kind, request: Any) -> bool:
    """Queue a receipt; False when too many chats of the user have one under way."""
    pendings = asker.user.receipts
    key = (kind, request.chat_id)
    pending = pendings.get(key)
    if pending is None:
        if len(pendings) >= CHATS:
            return False
        pending = pendings[key] = Pending()
    pending.waiting.append((asker, request))
    del pending.waiting[:-CHATS]
    if not pending.asking:
        pending.asking = True
        asker.edge.spawn(_turn(asker, key, pending))
    return True


async def _turn(asker: "Asker", key: tuple[_Kind, str], pending: Pending) -> None:
    waiting, pending.waiting = pending.waiting, []
    try:
        await _pass_on(asker, *key, waiting)
    finally:
        asker.edge.later(INTERVAL_S, partial(_next, asker, key, pending))


def _next(asker: "Asker", key: tuple[_Kind, str], pending: Pending) -> None:
    if pending.waiting:
        asker.edge.spawn(_turn(asker, key, pending))
    else:
        asker.user.receipts.pop(key, None)


async def _pass_on(
    asker: "Asker", kind: _Kind, chat_id: str, waiting: list[tuple["Asker", Any]]
) -> None:
    def message_id(request: frames.ReadReceipt | frames.DeliveryReceipt) -> str:
        if isinstance(request, frames.ReadReceipt):
            return request.last_read_msg_id
        return request.last_delivered_msg_id

    edge = asker.edge
    while waiting:
        newest = max((message_id(request) for _, request in waiting), key=int)
        receipt = query.Receipt(
            kind=kind,
            user=asker.user.user_id,
            chat_id=chat_id,
            message_id=newest,
            seq=edge.hub.places.seq_of(chat_id, newest),
        )
        try:
            outcome = await edge.moving.ask(receipt)
            if outcome.code:
                retryable = outcome.code in frames.RETRYABLE
                raise Failure(outcome.code, outcome.message, retryable=retryable)
        except (Failure, BrokerError, TimeoutError) as error:
            unknown = isinstance(error, Failure) and error.code == "not_found"
            for each, request in waiting:
                if not each.lost and (not unknown or message_id(request) == newest):
                    each.failed(error, request)
            # What one device made up keeps no other one's from being passed on.
            waiting = [each for each in waiting if unknown and message_id(each[1]) != newest]
            continue
        if outcome.crowded:
            edge.crowded.add(chat_id, edge.now())
        if kind == "read" and outcome.pointer is not None:
            for each, request in waiting:
                if request.id is not None and not each.lost:
                    stands = outcome.pointer.id
                    result = frames.Result(id=request.id, chat_id=chat_id, last_read_msg_id=stands)
                    each.push(result)
        return
