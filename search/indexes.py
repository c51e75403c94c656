"""The indexes of one site on the search server: made, filled, searched, removed.

A site has one live index, and another one while that is rebuilt; they have numbers, and names like
`messages-3`. Which is which is not known here.
"""

import logging
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec
from meilisearch import Client
from msgspec import Struct

from . import settings
from .config import SearchConfig
from .documents import MARK, PRIMARY_KEY, UNMARK, Document
from .errors import IndexMissing, SearchRefused, SearchUnavailable
from .filters import Question, filter_of
from .server import SearchServer, index_of

PAYLOAD_BYTES = 8 * 1024 * 1024
"""Of documents in one request; Meilisearch takes 100 MB unless set otherwise."""

CROP_WORDS = 40
LISTED = 1000
FIND_S = 4.0


_log = logging.getLogger("hikyaku.index")


class Refusal(NamedTuple):
    """A document that the server will never take, and why."""

    id: str
    reason: str


class Hit(Struct, frozen=True, kw_only=True):
    """A message that was found: its id, its version, and its text with what matched marked."""

    id: str
    edited: int
    highlight: str


class Found(Struct, frozen=True, kw_only=True):
    """The best hits, and about how many there are."""

    hits: list[Hit]
    total: int


class Indexes:
    """All that is asked of the server. Raises `SearchError`."""

    def __init__(self, server: SearchServer, config: SearchConfig):
        self._server = server
        self._name = config.index
        self._settings = settings.settings(config.locales)
        self._left: dict[int, settings.Settings] = {}

    def uid(self, number: int) -> str:
        """The name of an index on the server."""
        return f"{self._name}-{number}"

    async def numbers(self) -> list[int]:
        """Those of this site's indexes that the server has."""
        found = await self._server.call(lambda client: client.get_indexes({"limit": LISTED}))
        ours = re.compile(rf"{re.escape(self._name)}-([0-9]+)")
        named = (ours.fullmatch(each.uid) for each in found["results"])
        return sorted(int(each[1]) for each in named if each is not None)

    async def ensure(self, number: int) -> None:
        """Make an index if it is not there, and set what is not as it should be; idempotent."""
        uid = self.uid(number)
        try:
            present = await self._server.call(lambda c: index_of(c, uid).get_settings())
        except IndexMissing:
            await self._create(uid)
            present = await self._server.call(lambda c: index_of(c, uid).get_settings())
        lacking = settings.missing(self._settings, present)
        if lacking and lacking != self._left.get(number):
            set_up = await self._server.call(lambda c: index_of(c, uid).update_settings(lacking))
            await self._server.finished(set_up.task_uid)
            present = await self._server.call(lambda c: index_of(c, uid).get_settings())
            # A server may write a setting in its own way; to set it again and again would do harm.
            self._left[number] = settings.missing(self._settings, present)
            if self._left[number]:
                _log.warning("%s does not take as they are: %s", uid, sorted(self._left[number]))

    async def _create(self, uid: str) -> None:
        options = {"primaryKey": PRIMARY_KEY}
        made = await self._server.call(lambda client: client.create_index(uid, options))
        try:
            await self._server.finished(made.task_uid)
        except SearchRefused as error:
            if error.code != "index_already_exists":
                raise

    async def remove(self, number: int) -> None:
        """Remove an index with all in it; idempotent."""
        uid = self.uid(number)
        try:
            gone = await self._server.call(lambda client: index_of(client, uid).delete())
            await self._server.finished(gone.task_uid)
        except IndexMissing:
            return

    # --- writing ---

    async def write(
        self, number: int, documents: Iterable[Document], gone: Collection[str]
    ) -> list[Refusal]:
        """Put documents, whole, and remove others by id; returns when that can be found.

        A document that is refused holds up no other, and none of its versions stays.
        """
        uid = self.uid(number)
        refused: list[Refusal] = []
        for part in _parts(documents):
            refused += await self._put(uid, part)
        gone = [*gone, *(each.id for each in refused)]
        if gone:
            await self._remove(uid, gone)
        return refused

    async def _put(self, uid: str, part: list[tuple[str, bytes]]) -> list[Refusal]:
        body = b"[" + b",".join(data for _, data in part) + b"]"
        try:
            put = await self._server.call(
                lambda c: index_of(c, uid).add_documents_json(body, PRIMARY_KEY)
            )
            await self._server.finished(put.task_uid)
            return []
        except SearchRefused as error:
            if len(part) == 1:
                return [Refusal(part[0][0], str(error))]
        half = len(part) // 2
        return await self._put(uid, part[:half]) + await self._put(uid, part[half:])

    async def _remove(self, uid: str, ids: list[str]) -> None:
        # The client has a method for it, which only warns that it will go.
        def remove(client: Client) -> int:
            answer = client.http.post(f"indexes/{uid}/documents/delete-batch", ids)
            return int(answer["taskUid"])

        await self._server.finished(await self._server.call(remove))

    async def forget(self, number: int, chosen: str) -> int:
        """Remove what a filter of this package chooses; how many documents that were."""
        uid = self.uid(number)
        task = await self._server.call(lambda c: index_of(c, uid).delete_documents(filter=chosen))
        done = await self._server.finished(task.task_uid)
        return int((done.details or {}).get("deletedDocuments") or 0)

    # --- reading ---

    async def find(self, number: int, question: Question) -> Found:
        """Search in the chats of the question, and in no others."""
        uid = self.uid(number)
        asked: dict[str, Any] = {
            "filter": filter_of(question),
            "limit": question.limit,
            "offset": question.offset,
            "attributesToRetrieve": ["id", "edited"],
            "attributesToHighlight": ["content"],
            "attributesToCrop": ["content"],
            "cropLength": CROP_WORDS,
            "highlightPreTag": MARK,
            "highlightPostTag": UNMARK,
            "matchingStrategy": "all",
        }
        answer = await self._server.call(
            lambda client: index_of(client, uid).search(question.text, asked), timeout_s=FIND_S
        )
        try:
            return _found(answer)
        except msgspec.ValidationError as error:
            raise SearchUnavailable(f"the search server answers strangely: {error}") from None

    async def count(self, number: int) -> int:
        """How many documents there are."""
        uid = self.uid(number)
        found = await self._server.call(lambda client: index_of(client, uid).get_stats())
        return int(found.number_of_documents)

    async def waiting(self) -> int:
        """How many tasks the server has not finished."""
        asked: dict[str, Any] = {"statuses": ["enqueued", "processing"], "limit": 1}
        return int((await self._server.call(lambda client: client.get_tasks(dict(asked)))).total)


def _parts(documents: Iterable[Document]) -> Iterable[list[tuple[str, bytes]]]:
    """The documents as JSON, in parts that one request holds."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for each in documents:
        data = msgspec.json.encode(each)
        if part and size + len(data) > PAYLOAD_BYTES:
            yield part
            part, size = [], 0
        part.append((each[PRIMARY_KEY], data))
        size += len(data) + 1
    if part:
        yield part


class _Formatted(Struct):
    content: str = ""


class _RawHit(Struct):
    id: str
    edited: int
    formatted: _Formatted = msgspec.field(name="_formatted", default_factory=_Formatted)


class _Answer(Struct, rename="camel"):
    hits: list[_RawHit]
    estimated_total_hits: int


def _found(answer: Any) -> Found:
    raw = msgspec.convert(answer, _Answer)
    hits = [Hit(id=e.id, edited=e.edited, highlight=e.formatted.content) for e in raw.hits]
    return Found(hits=hits, total=min(raw.estimated_total_hits, settings.MOST_HITS))
