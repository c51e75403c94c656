"""Types of fields, with their limits, and the error codes of `docs/protocol.md`."""

from typing import Annotated, Literal

from msgspec import Meta

RequestId = Annotated[str, Meta(max_length=64)] | int
ClientId = Annotated[str, Meta(min_length=1, max_length=64)]
UserId = Annotated[str, Meta(min_length=1, max_length=64)]
GroupId = Annotated[str, Meta(min_length=1, max_length=64)]
ContentType = Annotated[str, Meta(min_length=1, max_length=64)]
MessageId = Annotated[str, Meta(pattern=r"^[0-9]{1,20}\Z")]
ChatId = Annotated[str, Meta(min_length=1, max_length=400)]
Emoji = Annotated[str, Meta(max_length=64, pattern=r"^[^\x00-\x20\x7f]+\Z")]
UnixMs = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Seq = Annotated[int, Meta(ge=0)]
FileId = Annotated[str, Meta(min_length=1, max_length=128)]
GroupName = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
StatusText = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Role = Literal["owner", "admin", "member"]
GroupKind = Literal["group", "channel"]

ErrorCode = Literal[
    "bad_frame",
    "unknown_type",
    "invalid",
    "too_large",
    "unauthorized",
    "forbidden",
    "not_member",
    "not_found",
    "conflict",
    "duplicate_group",
    "group_full",
    "rate_limited",
    "overloaded",
    "unavailable",
    "timeout",
    "internal",
]
RETRYABLE: frozenset[str] = frozenset({"rate_limited", "overloaded", "unavailable", "timeout"})
