"""Questions of the service `relay`: what edges and operators ask about other sites."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from .files import PIECE_BYTES

SERVICE = "relay"
WATCH_AGAIN_S = 20.0


class Question(Struct, kw_only=True):
    """A question of the service `directory`, for the site where the group lives."""

    site: str
    verb: str
    question: Raw


class FilePiece(Struct, kw_only=True):
    """Bytes of a file that `author`, a user of another site, has sent; it is kept at that site."""

    author: str
    id: str
    start: Annotated[int, Meta(ge=0)]
    length: Annotated[int, Meta(ge=1, le=PIECE_BYTES)]


class FilePieceFound(Struct, kw_only=True):
    """What the site `site` has of it from there on."""

    site: str
    data: bytes


class Watch(Struct, kw_only=True):
    """These users of other sites are watched here; asked again every `WATCH_AGAIN_S`."""

    users: list[str]


class Watched(Struct):
    """What is known of them is in the bucket `presence`."""


class Links(Struct):
    """How are the links?"""


class Link(Struct, kw_only=True):
    """A linked site: how much waits for it, since when, and when it last took something.

    `since_s` is for how long it has been connected, or has not.
    """

    site: str
    connected: bool
    state: str
    waiting: int
    oldest_s: float | None = None
    last_s: float | None = None
    since_s: float | None = None


class LinksFound(Struct, kw_only=True):
    """All of them."""

    links: list[Link]


class Renew(Struct, kw_only=True):
    """Begin the link with a site anew, as after a restore at one of the two."""

    site: str


class Renewed(Struct, kw_only=True):
    """It begins anew at this site; the other one has to do so too."""
