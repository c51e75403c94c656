"""What stands in the index for a message: a pure function of the message as MongoDB has it.

Names are indexed as keys, not as they are. Meilisearch compares strings in filters without regard
to case or surrounding spaces, so that `group.Sales` would also find `group.sales`; and its quoting
has no way to write a backslash before a quote. A key is 32 hexadecimal digits, whatever the name.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

Document = dict[str, Any]

PRIMARY_KEY = "id"

MARK, UNMARK = "\ue000", "\ue001"
"""Stand around what matched in a highlight; characters for private use, kept out of the index."""

_WITHOUT_MARKS = str.maketrans("", "", MARK + UNMARK)


def key(name: str) -> str:
    """What stands in documents and filters for a chat id or a user id."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def document_of(message: Mapping[str, Any] | None, *, since_ms: int) -> Document | None:
    """The document of a message, or None if it is not to be found.

    That is one that is not there (yet), deleted, without text, or older than `since_ms`. `edited`
    says which version it is. Message ids are strings, for numbers are exact to 2^53 only.
    """
    if message is None or "at" not in message or "deleted_seq" in message:
        return None
    content = str(message.get("content", "")).translate(_WITHOUT_MARKS)
    if not content.strip() or message["at"] < since_ms:
        return None
    return {
        PRIMARY_KEY: str(message["_id"]),
        "chat": key(message["chat"]),
        "from": key(message["from"]),
        "at": int(message["at"]),
        "seq": int(message["seq"]),
        "edited": version_of(message),
        "content": content,
    }


def version_of(message: Mapping[str, Any]) -> int:
    """The `seq` of the last edit of a message, 0 if there was none."""
    return int(message.get("edited_seq", 0))
