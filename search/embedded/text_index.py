"""The tantivy index of one collection: its schema, and what a document becomes there.

Fields: `n` the document's number, then by slot of an attribute `t` its words, `h` its strings as
hashes, which are looked up faster, `x` its numbers, `s` whether it is there, null or empty, `a` and
`d` its rough sort keys, least and greatest. Words begin with their first letter thrice, so that no
typo of up to two changes it: such a typo counts double.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import tantivy
from msgspec import Struct
from tantivy import Query

from .fields import (
    Attributes,
    as_number,
    as_text,
    rough_key,
    searchable,
    sort_key,
    stored_facet,
)
from .words import is_unspaced, words

HEAP_BYTES = 64_000_000
GAP = "."
"""Stands in the index for a stop word and where a sentence ends, and is no word."""

_TOKENIZER = "words"
EXISTS, NULL, EMPTY = range(3)
"""What an attribute can be, in the field `s`."""


class Layout(Struct, frozen=True):
    """Which attribute has which slot. `spare` slots for words wait for new attributes.

    `stop_words`, folded, are not indexed. `salt` makes hashes that nobody can foresee, so that
    nobody can choose strings with the same.
    """

    texts: tuple[str, ...]
    filters: tuple[str, ...]
    sorts: tuple[str, ...]
    spare: int = 0
    stop_words: frozenset[str] = frozenset()
    salt: str = ""

    @property
    def text_slots(self) -> int:
        """Slots for words."""
        return len(self.texts) + self.spare


def spelled(word: str) -> str:
    """A folded word as it is written in the index."""
    return word if is_unspaced(word) else word[0] * 2 + word


class TextIndex:
    """One tantivy index; one thread writes, any search."""

    def __init__(self, path: Path, layout: Layout):
        """Open it, or make it if there is none. Raises `ValueError` if it is of no use."""
        self.path = path
        self.layout = layout
        self.schema = _schema(layout)
        path.mkdir(parents=True, exist_ok=True)
        self._index = tantivy.Index(self.schema, path=str(path))
        analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        self._index.register_tokenizer(_TOKENIZER, analyzer)
        self._index.config_reader("manual")
        self._writer: tantivy.IndexWriter | None = None

    def searcher(self) -> tantivy.Searcher:
        """What was committed, unchanged while it is used."""
        return self._index.searcher()

    def relayout(self, layout: Layout) -> None:
        """Give spare slots to new attributes."""
        self.layout = layout

    def delete(self, numbers: Iterable[int]) -> None:
        """Take documents out, with the next commit."""
        writer = self._open_writer()
        for each in numbers:
            writer.delete_documents_by_term("n", each)

    def add(self, number: int, attributes: Attributes) -> None:
        """Put a document in, with the next commit; one with the number must be deleted before."""
        self._open_writer().add_document(_document(self.layout, number, attributes))

    def commit(self) -> None:
        """Have on disk, and found, what was deleted and added."""
        self._open_writer().commit()
        self._index.reload()

    def close(self) -> None:
        """Let the writer go; what was not committed is lost."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.rollback()
            writer.wait_merging_threads()

    def remove(self) -> None:
        """Close it, and remove its files."""
        self.close()
        self.discard(self.path)

    @staticmethod
    def discard(path: Path) -> None:
        """Remove the files of an index that nothing has open."""
        shutil.rmtree(path, ignore_errors=True)

    def forget_from(self, number: int) -> None:
        """Take out documents with this number and above, at once."""
        above = Query.range_query(
            self.schema, "n", tantivy.FieldType.Integer, number, None, include_lower=True
        )
        if self.searcher().search(above, limit=1).hits:
            self._open_writer().delete_documents_by_query(above)
            self.commit()

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=HEAP_BYTES, num_threads=1)
            # A commit that was cut off leaves files, and one of the same name cannot be made.
            self._writer.garbage_collect_files()
        return self._writer


def _schema(layout: Layout) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("n", indexed=True, fast=True)
    for slot in range(layout.text_slots):
        builder.add_text_field(f"t{slot}", tokenizer_name=_TOKENIZER, index_option="position")
    for slot in range(len(layout.filters)):
        builder.add_unsigned_field(f"h{slot}", indexed=True, fast=True)
        builder.add_unsigned_field(f"s{slot}", indexed=True)
        builder.add_float_field(f"x{slot}", indexed=True, fast=True)
    for slot in range(len(layout.sorts)):
        builder.add_unsigned_field(f"a{slot}", fast=True)
        builder.add_unsigned_field(f"d{slot}", fast=True)
    return builder.build()


def _document(layout: Layout, number: int, attributes: Attributes) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("n", number)
    for slot, name in enumerate(layout.texts):
        for text in searchable(values_below(attributes, name)):
            document.add_text(f"t{slot}", " ".join(_spelled_text(text, layout.stop_words)))
    for slot, name in enumerate(layout.filters):
        for state in _states(name, attributes):
            document.add_unsigned(f"s{slot}", state)
        for value in attributes.values.get(name, ()):
            string, found = as_text(value), as_number(value)
            if string is not None:
                document.add_unsigned(f"h{slot}", hashed(stored_facet(string), layout.salt))
            elif found is not None:
                document.add_float(f"x{slot}", found + 0.0)
    for slot, name in enumerate(layout.sorts):
        keys = [key for value in attributes.values.get(name, ()) if (key := sort_key(value))]
        if keys:
            document.add_unsigned(f"a{slot}", rough_key(min(keys)))
            document.add_unsigned(f"d{slot}", greatest(keys))
    return document


def _spelled_text(text: str, stop_words: frozenset[str]) -> Iterator[str]:
    """The words of a text as they are written; a gap where no phrase reaches over."""
    expected = 0
    for word in words(text):
        if word.position != expected:
            yield GAP
        yield GAP if word.text in stop_words else spelled(word.text)
        expected = word.position + 1


def greatest(keys: Sequence[tuple[int, float, str]]) -> int:
    """The rough key to sort by descending: numbers come first then, too."""
    kind = min(key[0] for key in keys)
    return rough_key(max(key for key in keys if key[0] == kind)) ^ (1 << 63)


def values_below(attributes: Attributes, name: str) -> list[Any]:
    """The values of an attribute and of those inside it."""
    found = list(attributes.values.get(name, ()))
    inside = name + "."
    for other, values in attributes.values.items():
        if other.startswith(inside):
            found += values
    return found


def _states(name: str, attributes: Attributes) -> Iterable[int]:
    if name in attributes.values:
        yield EXISTS
    if name in attributes.null:
        yield NULL
    if name in attributes.empty:
        yield EMPTY


@lru_cache(maxsize=65_536)
def hashed(text: str, salt: str) -> int:
    """A string as it is looked up."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()
    )
    return int.from_bytes(digest.digest(), "big")
