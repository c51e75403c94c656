"""A search as it is asked for: every parameter checked, unknown ones refused."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from .errors import ApiError
from .settings import kind, wrong


class SearchRequest(Struct, kw_only=True, frozen=True):
    """The parameters of a search, as Meilisearch names them."""

    q: str | None = None
    offset: int = 0
    limit: int = 20
    page: int | None = None
    hits_per_page: int | None = None
    attributes_to_retrieve: tuple[str, ...] = ("*",)
    attributes_to_crop: tuple[tuple[str, int], ...] = ()
    crop_length: int = 10
    crop_marker: str = "…"
    attributes_to_highlight: tuple[str, ...] = ()
    highlight_pre_tag: str = "<em>"
    highlight_post_tag: str = "</em>"
    show_matches_position: bool = False
    filter: Any = None
    sort: tuple[str, ...] = ()
    matching_strategy: str = "last"
    attributes_to_search_on: tuple[str, ...] | None = None

    @property
    def by_page(self) -> bool:
        """Whether pages are asked for."""
        return self.page is not None or self.hits_per_page is not None


_CODES = {
    "q": "invalid_search_q",
    "offset": "invalid_search_offset",
    "limit": "invalid_search_limit",
    "page": "invalid_search_page",
    "hitsPerPage": "invalid_search_hits_per_page",
    "attributesToRetrieve": "invalid_search_attributes_to_retrieve",
    "attributesToCrop": "invalid_search_attributes_to_crop",
    "cropLength": "invalid_search_crop_length",
    "cropMarker": "invalid_search_crop_marker",
    "attributesToHighlight": "invalid_search_attributes_to_highlight",
    "highlightPreTag": "invalid_search_highlight_pre_tag",
    "highlightPostTag": "invalid_search_highlight_post_tag",
    "showMatchesPosition": "invalid_search_show_matches_position",
    "filter": "invalid_search_filter",
    "sort": "invalid_search_sort",
    "matchingStrategy": "invalid_search_matching_strategy",
    "attributesToSearchOn": "invalid_search_attributes_to_search_on",
}

_REFUSED = {
    "facets": "invalid_search_facets",
    "distinct": "invalid_search_distinct",
    "vector": "invalid_search_vector",
    "media": "invalid_search_media",
    "hybrid": "invalid_search_hybrid_query",
    "retrieveVectors": "invalid_search_retrieve_vectors",
    "showRankingScore": "invalid_search_show_ranking_score",
    "showRankingScoreDetails": "invalid_search_show_ranking_score_details",
    "rankingScoreThreshold": "invalid_search_ranking_score_threshold",
    "locales": "invalid_search_locales",
}
"""What Meilisearch can and this server cannot; null or false asks for nothing."""

STRATEGIES = ("last", "all", "frequency")


def from_body(body: Any) -> SearchRequest:
    """The request of a POST. Raises `ApiError`."""
    if not isinstance(body, dict):
        raise ApiError(
            "bad_request", f"Invalid value type: expected an object, but found {kind(body)}"
        )
    _check_names(body)
    given = {name: value for name, value in body.items() if value is not None}
    return _request(
        {
            name: _BODY[name](f".{name}", value, _CODES[name])
            for name, value in given.items()
            if name in _CODES
        }
    )


def from_query(query: Mapping[str, str]) -> SearchRequest:
    """The request of a GET. Raises `ApiError`."""
    _check_names(query)
    return _request(
        {
            name: _QUERY[name](name, value, _CODES[name])
            for name, value in query.items()
            if name in _CODES
        }
    )


def _check_names(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in _CODES or (name in _REFUSED and value in (None, False, [], "", "false")):
            continue
        if name in _REFUSED:
            raise ApiError(_REFUSED[name], f"This server does not know the parameter `{name}`.")
        known = ", ".join(f"`{each}`" for each in (*_CODES, *_REFUSED))
        raise ApiError("bad_request", f"Unknown field `{name}`: expected one of {known}")


def _request(given: dict[str, Any]) -> SearchRequest:
    names = {name: _snake(name) for name in given}
    values = {names[name]: value for name, value in given.items()}
    if "sort" in values:
        values["sort"] = tuple(values["sort"])
    crop = values.get("crop_length", 10)
    if "attributes_to_crop" in values:
        values["attributes_to_crop"] = tuple(
            _cropped(name, crop) for name in values["attributes_to_crop"]
        )
    return SearchRequest(**values)


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def _cropped(name: str, length: int) -> tuple[str, int]:
    attribute, colon, size = name.rpartition(":")
    return (attribute, int(size)) if colon and size.isdecimal() else (name, length)


_Check = Callable[[str, Any, str], Any]


def _text(where: str, value: Any, code: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, "a string", value, code)
    return value


def _whole(where: str, value: Any, code: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(where, "a positive integer", value, code)
    if value < 0:
        raise ApiError(
            code, f"Invalid value type at `{where}`: expected a positive integer, but found a"
                  f" negative integer: `{value}`"
        )  # fmt: skip
    return min(value, 2**53)


def _boolean(where: str, value: Any, code: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, "a boolean", value, code)
    return value


def _texts(where: str, value: Any, code: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise wrong(where, "an array", value, code)
    return tuple(_text(f"{where}[{at}]", item, code) for at, item in enumerate(value))


def _strategy(where: str, value: Any, code: str) -> str:
    if _text(where, value, code) not in STRATEGIES:
        known = ", ".join(f"`{each}`" for each in STRATEGIES)
        raise ApiError(code, f"Unknown value `{value}` at `{where}`: expected one of {known}")
    return str(value)


def _anything(where: str, value: Any, code: str) -> Any:
    return value


_BODY: dict[str, _Check] = {
    "q": _text,
    "offset": _whole,
    "limit": _whole,
    "page": _whole,
    "hitsPerPage": _whole,
    "attributesToRetrieve": _texts,
    "attributesToCrop": _texts,
    "cropLength": _whole,
    "cropMarker": _text,
    "attributesToHighlight": _texts,
    "highlightPreTag": _text,
    "highlightPostTag": _text,
    "showMatchesPosition": _boolean,
    "filter": _anything,
    "sort": _texts,
    "matchingStrategy": _strategy,
    "attributesToSearchOn": _texts,
}


def whole_in_query(where: str, value: str, code: str) -> int:
    """A whole number of a query string. Raises `ApiError`."""
    if not value.isdecimal() or not value.isascii() or len(value) > 18:
        raise ApiError(
            code,
            f"Invalid value in parameter `{where}`: could not parse `{value[:100]}` as a positive"
            " integer",
        )
    return int(value)


def boolean_in_query(where: str, value: str, code: str) -> bool:
    """A boolean of a query string. Raises `ApiError`."""
    if value not in ("true", "false"):
        raise ApiError(
            code,
            f"Invalid value in parameter `{where}`: could not parse `{value[:100]}` as a boolean,"
            " expected either `true` or `false`",
        )
    return value == "true"


def _listed(where: str, value: str, code: str) -> tuple[str, ...]:
    return tuple(value.split(","))


def _sorts(where: str, value: str, code: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def _filter(where: str, value: str, code: str) -> Any:
    try:
        decoded = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    return decoded if isinstance(decoded, list) else value


_NAMES = (
    "attributesToRetrieve",
    "attributesToCrop",
    "attributesToHighlight",
    "attributesToSearchOn",
)
_QUERY: dict[str, Callable[[str, str, str], Any]] = {
    **dict.fromkeys(("q", "cropMarker", "highlightPreTag", "highlightPostTag"), _anything),
    **dict.fromkeys(("offset", "limit", "page", "hitsPerPage", "cropLength"), whole_in_query),
    **dict.fromkeys(_NAMES, _listed),
    "showMatchesPosition": boolean_in_query,
    "filter": _filter,
    "sort": _sorts,
    "matchingStrategy": _strategy,
}
