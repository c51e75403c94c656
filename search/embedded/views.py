"""A collection at one moment, as searches and the writer use it."""

from typing import Any

import msgspec
import tantivy
from msgspec import Struct

from .catalog import Collection
from .text_index import TextIndex

decode_document = msgspec.json.Decoder(dict[str, Any]).decode
"""A document from its body."""


class View(Struct, frozen=True):
    """A collection and its text index. What it says of both does not change."""

    collection: Collection
    index: TextIndex


def numbers_of(
    searcher: tantivy.Searcher, query: tantivy.Query, *, limit: int | None = None
) -> list[int]:
    """The numbers of the documents that match, ascending; the least ones if there is a limit."""
    limit = searcher.num_docs if limit is None else limit
    if limit == 0:
        return []
    hits = searcher.search(
        query, limit=limit, count=False, order_by_field="n", order=tantivy.Order.Asc
    ).hits
    return [number for number, _ in hits]
