"""What edges and the worker `files` tell each other: who asks, what a file is, signed links.

An edge passes HTTP requests about files on. Who asks stands in a header that only a process with
the shared secret can make; it is good for some minutes, and the secret itself never travels.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import Annotated

from msgspec import Meta, Struct

from . import subjects
from .errors import InvalidName

SERVICE = "files"
PIECE_BYTES = 512 * 1024
"""The most bytes of a file in one answer; as text they fit into a message of the bus."""

ASKER = "hikyaku-asker"
VOUCHED_S = 300
"""Also how far the clocks of an edge and a worker may differ."""

PATH = "/v1/files"


class File(Struct, kw_only=True):
    """A file as clients see it. `thumbnail` is a path on the same server."""

    id: str
    name: str
    size: int
    content_type: str
    sha256: str
    width: int | None = None
    height: int | None = None
    thumbnail: str | None = None


class Check(Struct, kw_only=True):
    """May `user` attach these files to a message in the chat? They are kept for it then."""

    user: str
    chat_id: str
    files: list[str]


class Checked(Struct, kw_only=True):
    """It may; the files in the order of the question."""

    files: list[File]


class Piece(Struct, kw_only=True):
    """The bytes of a file from `start` on, up to `length` of them, asked by `relay` for a peer."""

    id: str
    start: Annotated[int, Meta(ge=0)]
    length: Annotated[int, Meta(ge=1, le=PIECE_BYTES)]


class PieceFound(Struct, kw_only=True):
    """The bytes; who is in the chat may have them."""

    chat_id: str
    data: bytes


class Vouching:
    """Makes and checks what needs the shared secret. Times are Unix seconds."""

    def __init__(self, secret: str):
        if not secret:
            raise ValueError("there is no shared secret")
        self._asker_key = _derived(secret, b"asker of a request")
        self._link_key = _derived(secret, b"link to a file")

    def asker(self, user: str, now_s: float) -> str:
        """The header's value for a request of this user."""
        said = f"{subjects.encode(user)}.{int(now_s) + VOUCHED_S}"
        return f"{said}.{_signature(self._asker_key, said)}"

    def asked(self, value: str, now_s: float) -> str | None:
        """The user of a header's value, or None if it is not one of ours or too old."""
        said, _, signature = value.rpartition(".")
        token, _, until = said.partition(".")
        if not _same(signature, _signature(self._asker_key, said)) or float(until) < now_s:
            return None
        return subjects.decode(token)

    def link(self, path: str, user: str, until_s: int) -> str:
        """The path with a query by which anyone reads it as this user, until then."""
        by = subjects.encode(user)
        signature = _signature(self._link_key, _linked(path, by, str(until_s)))
        return f"{path}?by={by}&expires={until_s}&signature={signature}"

    def linked(
        self, path: str, *, by: str, expires: str, signature: str, now_s: float
    ) -> str | None:
        """The user as whom a link is followed, or None if it is changed or has expired."""
        if not _same(signature, _signature(self._link_key, _linked(path, by, expires))):
            return None
        try:
            return subjects.decode(by) if float(expires) >= now_s else None
        except (InvalidName, ValueError):
            return None


def _linked(path: str, by: str, expires: str) -> str:
    return f"{path}\n{by}\n{expires}"


def _derived(secret: str, purpose: bytes) -> bytes:
    return hmac.digest(secret.encode("utf-8", "surrogateescape"), purpose, hashlib.sha256)


def _signature(key: bytes, said: str) -> str:
    digest = hmac.digest(key, said.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())
