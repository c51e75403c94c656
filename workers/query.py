"""Answers what clients ask about the past: history, search, chats, counts; receipts.

MongoDB is a little behind the log. History adds what the log has beyond it, so that a message that
was just acknowledged is there; for chats and counts the worker waits a moment until MongoDB has it.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from prometheus_client import Metric

from broker import events, query, subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.consumer import Progress, progress
from broker.errors import InvalidName
from broker.log import Log
from broker.requests import ANSWER_BYTES, Failure, Responder
from search.indexes import Indexes
from store import documents
from store.directory import Directory
from store.documents import Document
from store.errors import NotMember, StoreError
from store.history import PREVIEW_CHARS, ChatRecord, History, Window
from store.reads import Reads
from store.searchable import SearchNumbers

from .persist import CONSUMER
from .receipts import Receipts
from .search import Finder

DEADLINE_S = 10.0
PROGRESS_S = 0.2
CATCH_UP_S = 2.0
CATCH_UP_EVENTS = 5000
"""So far behind, waiting would not help: the answer is then as old as MongoDB is."""
CATCH_UP_POLL_S = 0.005
TAIL_EVENTS = 5000
COUNTED = 1000


class QueryWorker:
    """One process of the service. Use as a context manager."""

    def __init__(
        self,
        bus: Bus,
        committer: Committer,
        *,
        history: History,
        directory: Directory,
        reads: Reads,
        indexes: Indexes,
        search_numbers: SearchNumbers,
    ):
        self._bus = bus
        self._log = Log(bus)
        self._committer = committer
        self._history = history
        self._directory = directory
        self.receipts = Receipts(bus, committer, directory, reads, self._place_of)
        self._progress = Progress(0, 0)
        self._progress_at = 0.0
        self._finder = Finder(
            indexes,
            search_numbers,
            history=history,
            directory=directory,
            caught_up=self._catch_up,
        )
        self.responder = Responder(
            bus,
            query.SERVICE,
            {
                "history": (query.History, self._guarded(self._page)),
                "message": (query.FindMessage, self._guarded(self._message)),
                "search": (query.Search, self._guarded(self._finder.answer)),
                "chats": (query.Chats, self._guarded(self._chats)),
                "unread": (query.Unread, self._guarded(self._unread)),
                "move": (query.Move, self._guarded(self.receipts.move)),
                "receipts": (query.Receipts, self._guarded(self.receipts.of_chat)),
            },
            deadline_s=DEADLINE_S,
        )

    async def __aenter__(self) -> "QueryWorker":
        await self.responder.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.responder.__aexit__(*exc_info)

    @staticmethod
    def _guarded(handler: Any) -> Any:
        async def guarded(question: Any) -> Any:
            try:
                return await handler(question)
            except StoreError as error:
                code = "unavailable" if error.retryable else "internal"
                raise Failure(code, str(error), retryable=error.retryable) from error
            except InvalidName as error:
                raise Failure("invalid", str(error)) from error

        return guarded

    # --- history ---

    async def _page(self, question: query.History) -> query.Page:
        chat = question.chat_id
        persisted, tail = await self._tail(chat)
        before = await self._seq_of(chat, question.before, tail)
        after = await self._seq_of(chat, question.after, tail)
        thread = _number(question.thread) if question.thread is not None else None
        oldest = after is not None and before is None
        window = Window(chat, before, after, thread, question.limit + 1, oldest)
        found = {int(each["_id"]): each for each in await self._history.page(window)}
        _add_tail(found, tail, window)
        ordered = sorted(found.values(), key=lambda each: int(each["seq"]), reverse=not oldest)
        page = ordered[: question.limit]
        replies = await self._replies(chat, page, persisted, tail)
        views = [documents.view(each, replies.get(int(each["_id"]), 0)) for each in page]
        messages = _fitting(views)
        more = len(ordered) > len(messages)
        if oldest:
            messages.reverse()
        return query.Page(messages=messages, more=more)

    async def _replies(
        self, chat: str, page: list[Document], persisted: int, tail: list[documents.Entry]
    ) -> dict[int, int]:
        roots = [int(each["_id"]) for each in page]
        deleted = {e.event.id for e in tail if isinstance(e.event, events.MessageDeleted)}
        counts = await self._history.replies(chat, roots, persisted, deleted=deleted)
        for entry in tail:
            if entry.event.id in deleted:
                continue
            if isinstance(entry.event, events.Message) and entry.event.thread is not None:
                root = int(entry.event.thread)
                counts[root] = counts.get(root, 0) + 1
        return counts

    async def _tail(self, chat: str) -> tuple[int, list[documents.Entry]]:
        """Up to where all is in MongoDB, and the chat's events in the log after that."""
        persisted = (await self._persisted()).floor
        tail: list[documents.Entry] = []
        async for page in self._log.read_all(chat, persisted + 1):
            if len(tail) > TAIL_EVENTS:
                raise Failure(
                    "unavailable", "history is being caught up; ask again", retryable=True
                )
            for stored in page:
                try:
                    event = events.decode(stored.data)
                    if isinstance(event, events.Message | events.Change):
                        documents.check(event)
                        tail.append(documents.Entry(stored.seq, event))
                except ValueError:
                    continue  # It goes to the dead letters.
        return persisted, tail

    async def _persisted(self, to: int = 0) -> Progress:
        """The progress of `persist`, at most 0.2 s old; an older one only means more to read."""
        now = asyncio.get_running_loop().time()
        if now - self._progress_at > PROGRESS_S:
            self._progress = await progress(self._bus, CONSUMER, to=to)
            self._progress_at = now
        return self._progress

    async def _seq_of(
        self, chat: str, message_id: str | None, tail: list[documents.Entry]
    ) -> int | None:
        if message_id is None:
            return None
        found = await self._find(chat, message_id, tail)
        if found is None:
            raise Failure("not_found", f"there is no message {message_id} in this chat")
        return int(found["seq"])

    async def _place_of(self, chat: str, message_id: str) -> int:
        _, tail = await self._tail(chat)
        seq = await self._seq_of(chat, message_id, tail)
        assert seq is not None
        return seq

    async def _find(
        self, chat: str, message_id: str, tail: list[documents.Entry]
    ) -> Document | None:
        found = await self._history.message(chat, _number(message_id))
        for entry in tail:
            if entry.event.id != message_id:
                continue
            if isinstance(entry.event, events.Message):
                found = found or documents.new(entry)
            elif found is not None:
                documents.apply(found, entry.seq, entry.event)
        return found

    async def _message(self, question: query.FindMessage) -> query.FoundMessage:
        _, tail = await self._tail(question.chat_id)
        found = await self._find(question.chat_id, question.message_id, tail)
        if found is None:
            raise Failure("not_found", f"there is no message {question.message_id} in this chat")
        if question.emoji is not None and (
            why := documents.why_not_react(found, question.by, question.emoji)
        ):
            raise Failure("invalid", f"emoji: {why}")
        return query.FoundMessage(
            seq=int(found["seq"]),
            author=found["from"],
            deleted="deleted_seq" in found,
            attached=bool(found.get("attachments")),
            manager=await self._manages(question.by, question.chat_id),
        )

    async def _manages(self, user: str, chat_id: str) -> bool:
        kind, tokens = subjects.parse(chat_id)
        if kind != "group":
            return False
        try:
            return await self._directory.role(subjects.decode(tokens[0]), user) != "member"
        except NotMember:
            return False

    # --- chats and counts ---

    async def _catch_up(self) -> None:
        """Wait until MongoDB has what was in the log when the question came, but not for long."""
        last = (await self._log.state()).last_seq
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_S
        while loop.time() < deadline:
            self._progress_at = 0.0
            behind = await self._persisted(last)
            if behind.reached(last) or behind.behind > CATCH_UP_EVENTS:
                return
            await asyncio.sleep(CATCH_UP_POLL_S)

    async def _chats(self, question: query.Chats) -> query.ChatsPage:
        await self._catch_up()
        chats = await self._history.chats(question.user)
        start = 0
        if question.after is not None:
            known = [number for number, chat in enumerate(chats) if chat.chat_id == question.after]
            if not known:
                raise Failure("not_found", f"after: {question.after!r} is not a chat of yours")
            start = known[0] + 1
        page = chats[start : start + question.limit]
        latest = await self._history.latest([(c.chat_id, c.seq) for c in page if c.seq])
        ids = [chat.chat_id for chat in page]
        pointers, told = await self.receipts.of_list(question.user, ids)
        counts = await self._counts(question.user, page, pointers)
        return query.ChatsPage(
            chats=[
                _chat(chat, latest.get(chat.chat_id), pointers.get(chat.chat_id), counts, told)
                for chat in page
            ],
            more=len(chats) > start + question.limit,
        )

    async def _counts(
        self, user: str, chats: list[ChatRecord], pointers: dict[str, query.Pointer]
    ) -> dict[str, int]:
        behind: dict[str, int] = {}
        for chat in chats:
            pointer = pointers.get(chat.chat_id)
            seq = pointer.seq if pointer is not None else 0
            if chat.seq > seq:
                behind[chat.chat_id] = seq
        return await self._history.unread(user, behind)

    async def _unread(self, question: query.Unread) -> query.UnreadCounts:
        await self._catch_up()
        chats = await self._history.last_seqs(question.chat_ids)
        pointers = await self.receipts.own(question.user, question.chat_ids)
        counts = dict.fromkeys(question.chat_ids, 0)
        counts.update(await self._counts(question.user, chats, pointers))
        more = [chat for chat, count in counts.items() if count >= COUNTED]
        return query.UnreadCounts(counts=counts, more=more)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from self.responder.metrics()
        yield from self._committer.metrics()
        yield from self._finder.metrics()


def _number(message_id: str) -> int:
    try:
        return documents.number(message_id)
    except ValueError as error:
        raise Failure("not_found", str(error)) from None


def _add_tail(found: dict[int, Document], tail: list[documents.Entry], window: Window) -> None:
    """Add the log's messages to those of MongoDB, and make its changes to all of them."""
    for entry in tail:
        event = entry.event
        if isinstance(event, events.Message):
            if (
                (window.before is None or entry.seq < window.before)
                and (window.after is None or entry.seq > window.after)
                and (window.thread is None or event.thread == str(window.thread))
            ):
                found.setdefault(int(event.id), documents.new(entry))
        elif int(event.id) in found:
            documents.apply(found[int(event.id)], entry.seq, event)


def _chat(
    chat: ChatRecord,
    latest: Document | None,
    pointer: query.Pointer | None,
    counts: dict[str, int],
    told: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    preview = None
    if latest is not None:
        preview = documents.view(latest)
        preview["content"] = preview["content"][:PREVIEW_CHARS]
    receipts = {"receipts": told.get(chat.chat_id, {})} if chat.kind == "dm" else {}
    return {
        "chat_id": chat.chat_id,
        "kind": chat.kind,
        "name": chat.name,
        "seq": chat.seq,
        "last_message": preview,
        "unread": counts.get(chat.chat_id, 0),
        "last_read_msg_id": pointer.id if pointer is not None else None,
        "members": chat.members,
        **receipts,
    }


def _fitting(views: list[Document]) -> list[Document]:
    """The first of them, as many as an answer holds, and at least one."""
    size = 0
    for number, each in enumerate(views):
        size += len(msgspec.json.encode(each))
        if number and size > ANSWER_BYTES:
            return views[:number]
    return views
