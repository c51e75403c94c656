"""What search must be told: where the server is, and what is kept in it."""

from msgspec import Struct


class SearchConfig(Struct, frozen=True, kw_only=True):
    """Where Meilisearch is, and what it holds.

    `index` begins the names of the indexes; sites that share a server need one each. Messages older
    than `days` are not found. `locales` are the languages (ISO 639-3) that texts without spaces
    between words may be in.
    """

    url: str = "http://127.0.0.1:7700"
    key: str = ""
    index: str = "messages"
    days: float = 30.0
    locales: tuple[str, ...] = ("jpn", "cmn", "kor")
