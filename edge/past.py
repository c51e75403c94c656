"""Questions about the past: history, search, chats, unread counts."""

from typing import TYPE_CHECKING

from broker import query
from broker.requests import Failure

from . import frames
from .writes import own_chat

if TYPE_CHECKING:
    from .asker import Asker

SEARCH_DEPTH = 1000


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


async def search(asker: "Asker", request: frames.Search) -> None:
    """Messages that fit best, in chats that the user is in; the worker knows which those are."""
    if request.offset + request.limit > SEARCH_DEPTH:
        raise Failure("invalid", f"offset: with `limit` at most {SEARCH_DEPTH}")
    question = query.Search(
        user=asker.user.user_id,
        query=request.query,
        chat_id=request.chat_id,
        sender=request.from_,
        since=request.since,
        until=request.until,
        limit=request.limit,
        offset=request.offset,
    )
    found = await asker.edge.ask_query("search", question, query.Hits)
    asker.push(frames.Result(id=request.id, hits=found.hits, total=found.total))


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
