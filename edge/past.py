"""Questions about the past: history, chats, unread counts; and read receipts.

Read receipts are coalesced: for each user and chat at most one a second goes on, the newest.
"""

from functools import partial
from typing import TYPE_CHECKING

from broker import query
from broker.errors import BrokerError
from broker.requests import Failure

from . import frames
from .writes import own_chat

if TYPE_CHECKING:
    from .asker import Asker

READ_INTERVAL_S = 1.0
READING_CHATS = 256


async def history(asker: "Asker", request: frames.History) -> None:
    """A page of a chat that the user is in."""
    own_chat(asker, request.chat_id)
    most = asker.edge.config.limits.history_page
    if request.limit > most:
        raise Failure("invalid", f"limit: at most {most}")
    question = query.History(
        chat_id=request.chat_id,
        before=request.before,
        after=request.after,
        thread=request.thread,
        limit=request.limit,
    )
    page = await asker.edge.ask_query("history", question, query.Page)
    asker.push(frames.Result(id=request.id, messages=page.messages, more=page.more))


async def chats(asker: "Asker", request: frames.Chats) -> None:
    """A page of the user's chats."""
    question = query.Chats(user=asker.user.user_id, limit=request.limit, after=request.after)
    page = await asker.edge.ask_query("chats", question, query.ChatsPage)
    asker.push(frames.Result(id=request.id, chats=page.chats, more=page.more))


async def unread(asker: "Asker", request: frames.Unread) -> None:
    """Counts for chats that the user is in."""
    for chat_id in request.chat_ids:
        own_chat(asker, chat_id)
    question = query.Unread(user=asker.user.user_id, chat_ids=request.chat_ids)
    found = await asker.edge.ask_query("unread", question, query.UnreadCounts)
    asker.push(frames.Result(id=request.id, counts=found.counts, more=found.more))


class Reading:
    """What one user has read in one chat, and whom to answer when it was passed on."""

    __slots__ = ("asking", "waiting")

    def __init__(self) -> None:
        self.asking = False
        self.waiting: list[tuple[Asker, frames.ReadReceipt]] = []


def read(asker: "Asker", request: frames.ReadReceipt) -> None:
    """Pass on that the user has read a chat; at most once a second, the newest. May raise."""
    own_chat(asker, request.chat_id)
    user = asker.user
    reading = user.reading.get(request.chat_id)
    if reading is None:
        if len(user.reading) >= READING_CHATS:
            asker.error("overloaded", "too many chats are read at once", request)
            return
        reading = user.reading[request.chat_id] = Reading()
    reading.waiting.append((asker, request))
    del reading.waiting[:-READING_CHATS]
    if not reading.asking:
        reading.asking = True
        asker.edge.spawn(_pass_on(asker, request.chat_id, reading))


async def _pass_on(asker: "Asker", chat_id: str, reading: Reading) -> None:
    edge, user = asker.edge, asker.user
    waiting, reading.waiting = reading.waiting, []
    while waiting:
        newest = max(waiting, key=lambda each: int(each[1].last_read_msg_id))[1].last_read_msg_id
        question = query.Read(user=user.user_id, chat_id=chat_id, message_id=newest)
        try:
            pointer = await edge.ask_query("read", question, query.Pointer)
        except (Failure, BrokerError, TimeoutError) as error:
            unknown = isinstance(error, Failure) and error.code == "not_found"
            for each, request in waiting:
                if not each.lost and (not unknown or request.last_read_msg_id == newest):
                    each.failed(error, request)
            # What one device made up keeps no other one's from being passed on.
            waiting = [each for each in waiting if unknown and each[1].last_read_msg_id != newest]
            continue
        for each, request in waiting:
            if request.id is not None and not each.lost:
                result = frames.Result(id=request.id, chat_id=chat_id, last_read_msg_id=pointer.id)
                each.push(result)
        break
    edge.later(READ_INTERVAL_S, partial(_next, asker, chat_id, reading))


def _next(asker: "Asker", chat_id: str, reading: Reading) -> None:
    if reading.waiting:
        asker.edge.spawn(_pass_on(asker, chat_id, reading))
    else:
        asker.user.reading.pop(chat_id, None)
