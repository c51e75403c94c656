"""Names on the bus: the only place where a subject or a key is built.

An id becomes one subject token: UTF-8 bytes outside `[A-Za-z0-9_-]` are written as `=XX`, so that
`.`, `*`, `>`, spaces and any script are safe in ids and cannot reach another subject. The encoding
is injective: `=` itself is written `=3D`.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category

from .errors import InvalidName

MAX_ID_BYTES = 64

CHAT_SUBJECTS = ("dm.*.*", "group.*", "user.*")
LIVE = "live."
EPHEMERAL = "eph."
SERVICE = "svc."

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
_ESCAPE = re.compile(r"=([0-9A-F]{2})")


@lru_cache(maxsize=65_536)
def encode(name: str, field: str = "id") -> str:
    """The subject token of an id of 1 to 64 bytes without control characters.

    Raises `InvalidName` with `field` for anything else.
    """
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise InvalidName(field, "must be valid Unicode") from None
    if not 1 <= len(raw) <= MAX_ID_BYTES:
        raise InvalidName(field, f"must be 1 to {MAX_ID_BYTES} bytes of UTF-8, not {len(raw)}")
    if any(category(char) == "Cc" for char in name):
        raise InvalidName(field, "must not contain control characters")
    return _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], raw).decode()


@lru_cache(maxsize=65_536)
def decode(token: str, field: str = "token") -> str:
    """The id of a token. Raises `InvalidName` with `field` if `encode` cannot have made it."""
    if not _TOKEN.fullmatch(token):
        raise InvalidName(field, f"{token[:200]!r} is not an encoded id")
    try:
        raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), token).encode("latin-1")
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidName(field, f"{token[:200]!r} is not UTF-8") from None
    if encode(name) != token:
        raise InvalidName(field, f"{token[:200]!r} is not an encoded id")
    return name


def dm(user: str, peer: str) -> str:
    """Subject and chat id of a conversation of two: the tokens in byte order."""
    first, second = encode(user, "user"), encode(peer, "to")
    return f"dm.{first}.{second}" if first <= second else f"dm.{second}.{first}"


def group(group_id: str) -> str:
    """Subject and chat id of a group."""
    return f"group.{encode(group_id, 'group_id')}"


def user(user_id: str) -> str:
    """Subject of what concerns one user on all devices."""
    return f"user.{encode(user_id, 'user')}"


def user_feed(user_id: str) -> tuple[str, str, str]:
    """Filters that match the user's own subject and all conversations of two of that user."""
    token = encode(user_id, "user")
    return f"user.{token}", f"dm.{token}.*", f"dm.*.{token}"


def ephemeral(chat_id: str) -> str:
    """Core subject for what is never stored about a chat: typing, receipts, call signalling."""
    return EPHEMERAL + chat_id


def service(name: str, verb: str) -> str:
    """Core subject of a question to a worker."""
    return f"{SERVICE}{name}.{verb}"


def inbox(role: str) -> str:
    """How all inboxes of a role (see `broker.roles`) begin; without one, of no role."""
    return f"_INBOX.{role}." if role else "_INBOX."


def connection_key(user_token: str, edge: str, connection: str) -> str:
    """Key of one connection in the bucket `presence`."""
    return f"{user_token}.{edge}.{connection}"


def setting_key(user_token: str) -> str:
    """Key of what a user has chosen to be, on all devices, in the bucket `presence`."""
    return f"{user_token}.set"


def seen_key(user_token: str) -> str:
    """Key of when a user was last seen in the bucket `presence`."""
    return f"{user_token}.seen"


def lost_key(user_token: str, connection: str) -> str:
    """Key of a connection that ended without a word, in the bucket `presence`."""
    return f"{user_token}.lost.{connection}"


def left_key(user_token: str) -> str:
    """Key of who left a short time ago and had chosen something, in the bucket `presence`."""
    return f"{user_token}.left"


def edge_id(name: str, unique: str) -> str:
    """The id of one start of an edge: a token that no other start has."""
    return encode(name, "edge")[:64] + "-" + unique


class Chat(NamedTuple):
    """A chat id taken apart: `kind` is dm, group or user; `tokens` are the encoded ids in it."""

    kind: str
    tokens: tuple[str, ...]


def parse(chat_id: str) -> Chat:
    """Take a subject of the log apart. Raises `InvalidName` if it is none."""
    kind, *tokens = chat_id.split(".")
    if len(tokens) != {"dm": 2, "group": 1, "user": 1}.get(kind):
        raise InvalidName("chat_id", f"{chat_id[:200]!r} is no chat id")
    for token in tokens:
        decode(token, "chat_id")
    if kind == "dm" and tokens[0] > tokens[1]:
        raise InvalidName("chat_id", "the two users of a dm stand in byte order")
    return Chat(kind, tuple(tokens))


def message_id_header(sender: str, client_id: str) -> str:
    """`Nats-Msg-Id` of a write: 20 characters that stand for the sender and its `client_id`.

    A hash, so that what a client chose never stands in a header.
    """
    text = b"%d:%b%b" % (len(sender), sender.encode(), client_id.encode("utf-8", "surrogatepass"))
    return urlsafe_b64encode(hashlib.blake2b(text, digest_size=15).digest()).decode()


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern with `*` for single tokens matches a subject."""
    one, other = pattern.split("."), subject.split(".")
    return len(one) == len(other) and all(a in ("*", b) for a, b in zip(one, other, strict=True))
