"""Which attribute identifies documents, and which values may."""

import re
from typing import Any

from .errors import ApiError

_VALID = re.compile(r"[A-Za-z0-9_-]{1,511}")


def guessed_key(document: dict[str, Any]) -> str:
    """The primary key that the first document suggests. Raises `ApiError`."""
    names = [name for name in document if name.lower().endswith("id")]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ApiError(
            "index_primary_key_no_candidate_found",
            "The primary key inference failed as the engine did not find any field ending with"
            " `id` in its name. Please specify the primary key manually using the `primaryKey`"
            " query parameter.",
        )
    raise ApiError(
        "index_primary_key_multiple_candidates_found",
        f"The primary key inference failed as the engine found {len(names)} fields ending with"
        f" `id` in their names: '{names[0]}' and '{names[1]}'. Please specify the primary key"
        " manually using the `primaryKey` query parameter.",
    )


def id_of(document: dict[str, Any], key: str, shown: bytes) -> str:
    """The id of a document. Raises `ApiError` when it has none or one that cannot be."""
    if key not in document:
        text = shown[:200].decode("utf-8", "replace")
        raise ApiError(
            "missing_document_id",
            f"Document doesn't have a `{key}` attribute: `{text}`.",
        )
    return checked_id(document[key])


def checked_id(value: Any) -> str:
    """An id as a string. Raises `ApiError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and _VALID.fullmatch(value):
        return value
    text = f'"{value[:600]}"' if isinstance(value, str) else str(value)[:600]
    raise ApiError(
        "invalid_document_id",
        f"Document identifier `{text}` is invalid. A document identifier can be of type integer or"
        " string, only composed of alphanumeric characters (a-z A-Z 0-9), hyphens (-) and"
        " underscores (_), and can not be more than 511 bytes.",
    )
