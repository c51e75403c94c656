"""Events and questions of one site, with the names that another site has for the same."""

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from . import subjects

_USER = ("by", "from_", "to", "user_id", "created_by", "reader_id", "group_id", "after")
_USERS = ("users", "mentions", "listed")

_S = TypeVar("_S", bound=Struct)
Rename = Callable[[str], str]


def renamed(value: _S, rename: Rename) -> _S:
    """A copy in which `rename` was applied to every user and group, in chat ids too.

    Raises what `rename` raises, and `InvalidName` for what is no chat id.
    """
    changed: dict[str, Any] = {}
    for name in value.__struct_fields__:
        found = getattr(value, name)
        if not found:
            continue
        if name in _USER:
            changed[name] = rename(found)
        elif name in _USERS:
            changed[name] = [rename(each) for each in found]
        elif name == "members":
            changed[name] = _members(found, rename)
        elif name == "roles":
            changed[name] = {rename(user): role for user, role in found.items()}
        elif name == "chat_id":
            changed[name] = renamed_chat(found, rename)
        elif name == "group":
            changed[name] = renamed(found, rename)
    return replace(value, **changed)


def renamed_chat(chat_id: str, rename: Rename) -> str:
    """The same chat as the other site names it."""
    kind, tokens = subjects.parse(chat_id)
    names = [rename(subjects.decode(token)) for token in tokens]
    if kind == "dm":
        return subjects.dm(*names)
    return subjects.group(names[0]) if kind == "group" else subjects.user(names[0])


def _members(found: Any, rename: Rename) -> Any:
    if isinstance(found, dict):
        return {rename(user): role for user, role in found.items()}
    return [renamed(each, rename) if isinstance(each, Struct) else rename(each) for each in found]
