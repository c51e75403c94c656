"""Chat ids: made from names, and taken apart. See "Frames" in `docs/protocol.md`."""

import re

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")


def dm_chat_id(user: str, other: str) -> str:
    """Give the id of the conversation of two users."""
    return ".".join(("dm", *sorted((_encoded(user), _encoded(other)))))


def group_chat_id(group_id: str) -> str:
    """Give the id of a group's conversation."""
    return f"group.{_encoded(group_id)}"


def other_of(chat_id: str, me: str) -> str | None:
    """Say with whom this conversation of two is; None if it is none of mine."""
    kind, *names = split(chat_id)
    if kind != "dm" or len(names) != 2 or me not in names:
        return None
    return names[1] if names[0] == me else names[0]


def group_of(chat_id: str) -> str | None:
    """Say which group's conversation this is; None if it is no group's."""
    kind, *names = split(chat_id)
    return names[0] if kind == "group" and len(names) == 1 else None


def split(chat_id: str) -> list[str]:
    """Take a chat id apart: its kind, then the names in it."""
    kind, *tokens = chat_id.split(".")
    return [kind, *map(_decoded, tokens)]


def _encoded(name: str) -> str:
    return _UNSAFE.sub(lambda m: b"=%02X" % m[0][0], name.encode("utf-8", "replace")).decode()


def _decoded(token: str) -> str:
    raw = _ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), token.encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")
