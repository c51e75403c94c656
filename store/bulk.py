"""Unordered bulk writes that say what became of each operation.

What may succeed later (no primary, no majority, shutting down, disk full) is `StoreUnavailable` for
the whole bulk: writes here are idempotent, so all of it is written again. What never will is a
`Refusal` of one operation, and holds up no other.
"""

from typing import Any, NamedTuple

from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge

from .database import Database
from .errors import StoreUnavailable

DUPLICATE_KEY = 11000
RACES = 5
REASON_CHARS = 500

_ID = ("_id",)
_UNFIT = (BSONError, DocumentTooLarge, OverflowError, TypeError, ValueError)
"""What the driver raises for a value that BSON has no place for."""

_LATER = frozenset(
    {6, 7, 24, 50, 64, 89, 91, 100, 112, 189, 202, 262, 317, 9001, 10058, 10107}
    | {11600, 11601, 11602, 13388, 13435, 13436, 14031}
)
"""Error codes of a server that cannot now: network, locks, primaries, write concern, disk."""


class Refusal(NamedTuple):
    """The operation `at` this place never will be done; `key` is that of a duplicate."""

    at: int
    key: tuple[str, ...]
    reason: str


async def write(database: Database, collection: Any, operations: list[Any]) -> list[Refusal]:
    """Do all that can be done. Raises `StoreUnavailable`; then any of it may have been done."""
    refused: list[Refusal] = []
    waiting = list(range(len(operations)))
    for _ in range(RACES):
        if not waiting:
            break
        found = await _once(database, collection, [operations[index] for index in waiting])
        refusals = [Refusal(waiting[each.at], each.key, each.reason) for each in found]
        # Two upserts of one new document: the one that lost finds it now.
        lost = [e for e in refusals if e.key == _ID and isinstance(operations[e.at], UpdateOne)]
        refused += [each for each in refusals if each not in lost]
        waiting = [each.at for each in lost]
    if waiting:
        raise StoreUnavailable(f"{len(waiting)} writes lost every race")
    return refused


async def _once(database: Database, collection: Any, operations: list[Any]) -> list[Refusal]:
    try:
        with database.errors():
            await collection.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        concern = error.details.get("writeConcernErrors") or []
        errors = error.details.get("writeErrors") or []
        later = [*concern, *(each for each in errors if each["code"] in _LATER)]
        if later:
            raise StoreUnavailable(str(later[0].get("errmsg"))[:REASON_CHARS]) from error
        return [_refusal(each) for each in errors]
    except _UNFIT as error:
        if len(operations) == 1:
            return [Refusal(0, (), f"{type(error).__name__}: {error}"[:REASON_CHARS])]
        half = len(operations) // 2
        first = await _once(database, collection, operations[:half])
        second = await _once(database, collection, operations[half:])
        return first + [each._replace(at=each.at + half) for each in second]
    return []


def _refusal(error: dict[str, Any]) -> Refusal:
    key = tuple(error.get("keyPattern") or ()) if error["code"] == DUPLICATE_KEY else ()
    return Refusal(error["index"], key, str(error["errmsg"])[:REASON_CHARS])
