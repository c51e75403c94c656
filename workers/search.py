"""Finds messages for a user: in the chats that the user is in now, and in no others.

The chats come from MongoDB, so a client cannot leave the filter out or add to it; a chat counts
from the moment in which the directory has the member, and no longer than that. The search server
says which messages fit; what they are now, MongoDB says. So a deleted message is not found, and an
edited one is shown as it is, whatever the index still has.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from prometheus_client import Metric

from broker import query, subjects
from broker.metrics import Spread, counter, histogram
from broker.requests import ANSWER_BYTES, Failure
from search.documents import version_of
from search.errors import IndexMissing, SearchError, SearchRefused
from search.filters import Question
from search.indexes import Found, Indexes
from store import documents
from store.directory import Directory
from store.documents import Document
from store.errors import NotMember
from store.history import History
from store.searchable import SearchNumbers

_ALL = 2**62

_log = logging.getLogger("hikyaku.search")


class Finder:
    """Answers `search`. Raises `Failure` and `StoreError`.

    `caught_up` waits until MongoDB has what the log had, so that a deletion that was acknowledged
    counts.
    """

    def __init__(
        self,
        indexes: Indexes,
        numbers: SearchNumbers,
        *,
        history: History,
        directory: Directory,
        caught_up: Callable[[], Awaitable[None]],
    ):
        self._indexes = indexes
        self._numbers = numbers
        self._history = history
        self._directory = directory
        self._caught_up = caught_up
        self._times = Spread()
        self.searches = 0
        self.failures = 0

    async def answer(self, asked: query.Search) -> query.Hits:
        """The best hits, as messages of `history` with `highlight`."""
        begin = time.monotonic()
        self.searches += 1
        try:
            chats = await self._chats(asked)
            if not chats or _is_only_signs(asked.query):
                return query.Hits(hits=[], total=0)
            question = Question(
                text=asked.query,
                chats=chats,
                sender=asked.sender,
                since=asked.since,
                until=asked.until,
                limit=asked.limit,
                offset=asked.offset,
            )
            found, _ = await asyncio.gather(self._find(question), self._caught_up())
            hits = await self._messages(found, set(chats))
            answer = query.Hits(hits=hits, total=found.total)
            if len(msgspec.json.encode(answer)) > ANSWER_BYTES:
                raise Failure(
                    "too_large", "limit: these hits are too much for one answer; ask for fewer"
                )
            self._times.add(time.monotonic() - begin)
            return answer
        except SearchError as error:
            self.failures += 1
            raise _failure(error) from error

    async def _chats(self, asked: query.Search) -> list[str]:
        """Where to look. Raises `Failure` for a chat that is not the user's."""
        if asked.chat_id is None:
            return await self._history.chat_ids(asked.user)
        kind, tokens = subjects.parse(asked.chat_id)
        member = kind == "dm" and subjects.encode(asked.user) in tokens
        if kind == "group":
            try:
                await self._directory.role(subjects.decode(tokens[0]), asked.user)
                member = True
            except NotMember:
                member = False
        if not member:
            raise Failure("not_member", f"you are not in the chat {asked.chat_id!r}")
        return [asked.chat_id]

    async def _find(self, question: Question) -> Found:
        numbers = await self._numbers.read()
        try:
            return await self._indexes.find(numbers.live, question)
        except IndexMissing:
            # It was rebuilt just now, and the old one is gone.
            again = await self._numbers.read()
            if again.live == numbers.live:
                raise
            return await self._indexes.find(again.live, question)

    async def _messages(self, found: Found, chats: set[str]) -> list[Document]:
        """The hits as they are now; those that are gone are left out."""
        now = await self._history.messages([int(hit.id) for hit in found.hits])
        there = {
            key: message
            for key, message in now.items()
            if "deleted_seq" not in message and message["chat"] in chats
        }
        replies = await self._replies(there)
        hits = []
        for hit in found.hits:
            key = int(hit.id)
            if key in there:
                seen = documents.view(there[key], replies.get(key, 0))
                if hit.edited == version_of(there[key]):
                    seen["highlight"] = hit.highlight
                hits.append(seen)
        return hits

    async def _replies(self, messages: dict[int, Document]) -> dict[int, int]:
        roots: dict[str, list[int]] = {}
        for key, message in messages.items():
            roots.setdefault(message["chat"], []).append(key)
        counts: dict[int, int] = {}
        counting = (
            self._history.replies(chat, keys, _ALL, deleted=set()) for chat, keys in roots.items()
        )
        for each in await asyncio.gather(*counting):
            counts.update(each)
        return counts

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        text = "Searches asked for."
        yield counter("hikyaku_query_searches_total", text, self.searches)
        text = "Searches that were not answered."
        yield counter("hikyaku_query_search_failures_total", text, self.failures)
        text = "Time of a search that was answered."
        yield histogram("hikyaku_query_search_seconds", text, self._times)


def _is_only_signs(text: str) -> bool:
    """Whether it asks for what no word has, which a search server takes for asking nothing."""
    return bool(text.strip()) and not any(map(str.isalnum, text))


def _failure(error: SearchError) -> Failure:
    if isinstance(error, SearchRefused) and error.code != "invalid_search_filter":
        _log.error("a search was refused: %s", error)
        return Failure("internal", "the search failed; it was logged")
    # The filter is refused while the index is not set up.
    _log.warning("search: %s", error)
    return Failure("unavailable", "the search is not ready; ask again", retryable=True)
