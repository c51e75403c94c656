"""API keys: who may do what on which indexes.

A key is not kept: it is the HMAC of its uid under the master key, as in Meilisearch, so the same
master key gives the same keys.
"""

import hashlib
import hmac
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from .database import Database
from .errors import ApiError
from .settings import wrong
from .tasks import now

ACTIONS = (
    "*",
    "search",
    *("documents.*", "documents.add", "documents.get", "documents.delete"),
    *("indexes.*", "indexes.create", "indexes.get", "indexes.update", "indexes.delete"),
    "indexes.swap",
    *("tasks.*", "tasks.cancel", "tasks.delete", "tasks.get"),
    *("settings.*", "settings.get", "settings.update"),
    *("stats.*", "stats.get"),
    *("keys.create", "keys.get", "keys.update", "keys.delete"),
    "version",
)

MAX_KEYS = 1000
_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,400}\*?|\*")
_SCHEMA = "CREATE TABLE IF NOT EXISTS keys (uid TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT"
_IMMUTABLE = ("actions", "createdAt", "expiresAt", "indexes", "key", "uid", "updatedAt")


class Key(Struct, frozen=True, kw_only=True, rename="camel"):
    """One key without its secret."""

    uid: str
    name: str | None
    description: str | None
    actions: list[str]
    indexes: list[str]
    expires_at: str | None
    created_at: str
    updated_at: str

    def allows(self, action: str) -> bool:
        """Whether it may do this at all."""
        return any(
            each in ("*", action) or (each.endswith(".*") and action.startswith(each[:-1]))
            for each in self.actions
        )

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        if self.expires_at is None:
            return False
        return datetime.fromisoformat(self.expires_at) <= datetime.now(UTC)


def covers(patterns: Sequence[str], uid: str) -> bool:
    """Whether an index is among those that a key names."""
    return any(
        pattern == uid or (pattern.endswith("*") and uid.startswith(pattern[:-1]))
        for pattern in patterns
    )


_decode = msgspec.json.Decoder(Key).decode


class Keys:
    """All keys, on disk; few, so that all are in memory."""

    def __init__(self, folder: Path, master: str):
        self._master = master
        self._database = Database(folder / "keys.db", _SCHEMA)
        rows = self._database.writer.execute("SELECT body FROM keys").fetchall()
        self._keys = {key.uid: key for key in map(_decode, (body for (body,) in rows))}
        if not self._keys:
            self._make_defaults()

    def _make_defaults(self) -> None:
        search = "Use it to search from the frontend"
        admin = "Use it for anything that is not a search operation. Caution! Do not expose it"
        self._add("Default Search API Key", search, ["search"])
        self._add("Default Admin API Key", f"{admin} on a public frontend", ["*"])

    def _add(self, name: str, description: str, actions: list[str]) -> None:
        time = now()
        self._save(
            Key(
                uid=str(uuid.uuid4()),
                name=name,
                description=description,
                actions=actions,
                indexes=["*"],
                expires_at=None,
                created_at=time,
                updated_at=time,
            )
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def secret(self, key: Key) -> str:
        """What a client sends."""
        return hmac.new(self._master.encode(), key.uid.encode(), hashlib.sha256).hexdigest()

    def view(self, key: Key) -> dict[str, Any]:
        """A key as it is answered."""
        shown: dict[str, Any] = msgspec.to_builtins(key)
        return {"name": shown["name"], "description": shown["description"],
                "key": self.secret(key), **shown}  # fmt: skip

    def by_secret(self, secret: str) -> Key | None:
        """The key that a client sent, unless its time is over."""
        given = secret.encode("utf-8", "surrogateescape")
        found = None
        for key in self._keys.values():
            if hmac.compare_digest(self.secret(key).encode(), given) and not key.expired:
                found = key
        return found

    def all(self) -> list[Key]:
        """All keys, the newest first."""
        return sorted(self._keys.values(), key=lambda key: key.created_at, reverse=True)

    def get(self, uid_or_secret: str) -> Key:
        """One key. Raises `ApiError`."""
        found = self._keys.get(uid_or_secret) or next(
            (
                key
                for key in self._keys.values()
                if hmac.compare_digest(
                    self.secret(key).encode(), uid_or_secret.encode("utf-8", "surrogateescape")
                )
            ),
            None,
        )
        if found is None:
            raise ApiError("api_key_not_found", f"API key `{uid_or_secret[:100]}` not found.")
        return found

    def create(self, body: Any) -> Key:
        """A new key. Raises `ApiError`."""
        key = _new(body)
        if key.uid in self._keys:
            raise ApiError(
                "api_key_already_exists", f"`uid` field value `{key.uid}` is already an API key."
            )
        if len(self._keys) >= MAX_KEYS:
            raise ApiError("no_space_left_on_device", f"There are {MAX_KEYS} keys already.")
        self._save(key)
        return key

    def update(self, uid_or_secret: str, body: Any) -> Key:
        """Change name and description. Raises `ApiError`."""
        if not isinstance(body, dict):
            raise wrong("", "an object", body, "bad_request")
        for name in body:
            if name in _IMMUTABLE:
                code = "immutable_api_key_" + _snake(name)
                raise ApiError(
                    code, f"Immutable field `{name}`: expected one of `description`, `name`"
                )
            if name not in ("name", "description"):
                raise ApiError(
                    "bad_request",
                    f"Unknown field `{name}`: expected one of `description`, `name`",
                )
        key = self.get(uid_or_secret)
        changed = msgspec.structs.replace(
            key,
            name=_text(body["name"], "name") if "name" in body else key.name,
            description=_text(body["description"], "description")
            if "description" in body
            else key.description,
            updated_at=now(),
        )
        self._save(changed)
        return changed

    def delete(self, uid_or_secret: str) -> None:
        """Remove a key. Raises `ApiError`."""
        key = self.get(uid_or_secret)
        with self._database.transaction() as writer:
            writer.execute("DELETE FROM keys WHERE uid = ?", (key.uid,))
        del self._keys[key.uid]

    def _save(self, key: Key) -> None:
        with self._database.transaction() as writer:
            writer.execute(
                "INSERT OR REPLACE INTO keys VALUES (?, ?)", (key.uid, msgspec.json.encode(key))
            )
        self._keys[key.uid] = key


_FIELDS = ("description", "name", "uid", "actions", "indexes", "expiresAt")


def _new(body: Any) -> Key:
    if not isinstance(body, dict):
        raise wrong("", "an object", body, "bad_request")
    given = {name: _checked(name, value) for name, value in body.items()}
    for name in ("actions", "indexes", "expiresAt"):
        if name not in given:
            raise ApiError(f"missing_api_key_{_snake(name)}", f"Missing field `{name}`")
    time = now()
    return Key(
        uid=given.get("uid") or str(uuid.uuid4()),
        name=given.get("name"),
        description=given.get("description"),
        actions=given["actions"],
        indexes=given["indexes"],
        expires_at=given["expiresAt"],
        created_at=time,
        updated_at=time,
    )


def _checked(name: str, value: Any) -> Any:
    match name:
        case "description" | "name":
            return _text(value, name)
        case "uid":
            return None if value is None else _uid(value)
        case "actions":
            return _actions(value)
        case "indexes":
            return _indexes(value)
        case "expiresAt":
            return _expiry(value)
    known = ", ".join(f"`{each}`" for each in _FIELDS)
    raise ApiError("bad_request", f"Unknown field `{name}`: expected one of {known}")


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise wrong(f".{name}", "a string", value, f"invalid_api_key_{name}")
    return value


def _uid(value: Any) -> str:
    code = "invalid_api_key_uid"
    if not isinstance(value, str):
        raise wrong(".uid", "a string", value, code)
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ApiError(code, f"Invalid value at `.uid`: `{value[:100]}` is no UUID.") from None


def _actions(value: Any) -> list[str]:
    found = _texts(value, "actions")
    for at, action in enumerate(found):
        if action not in ACTIONS:
            known = ", ".join(f"`{each}`" for each in ACTIONS)
            raise ApiError(
                "invalid_api_key_actions",
                f"Unknown value `{action}` at `.actions[{at}]`: expected one of {known}",
            )
    return found


def _indexes(value: Any) -> list[str]:
    found = _texts(value, "indexes")
    for at, pattern in enumerate(found):
        if not _PATTERN.fullmatch(pattern):
            raise ApiError(
                "invalid_api_key_indexes",
                f"Invalid value at `.indexes[{at}]`: `{pattern[:100]}` is not a valid index uid"
                " pattern. Index uid patterns can be an integer or a string containing only"
                " alphanumeric characters, hyphens (-), underscores (_), and optionally end with a"
                " star (*).",
            )
    return found


def _texts(value: Any, name: str) -> list[str]:
    code = f"invalid_api_key_{name}"
    if not isinstance(value, list):
        raise wrong(f".{name}", "an array", value, code)
    for at, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong(f".{name}[{at}]", "a string", item, code)
    return value


def _expiry(value: Any) -> str | None:
    if value is None:
        return None
    problem = (
        f"Invalid value at `.expiresAt`: `{str(value)[:100]}` is not a valid date. It should follow"
        " the RFC 3339 format to represents a date or datetime in the future or specified as a null"
        " value. e.g. 'YYYY-MM-DD' or 'YYYY-MM-DD HH:MM:SS'."
    )
    if not isinstance(value, str):
        raise ApiError("invalid_api_key_expires_at", problem)
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise ApiError("invalid_api_key_expires_at", problem) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when <= datetime.now(UTC):
        raise ApiError("invalid_api_key_expires_at", problem)
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)
