"""Names across sites, and which sites this one is or was linked with.

A user or group of another site is `<id>@<site>`; what has no such ending is this site's own. Only
the name of a site in the bucket `sites` counts as an ending, so that `a@example.com` is nobody
else's. A group lives where it was made; a conversation of two lives at the site of that user whose
full name comes first in byte order, which both sites find alike.
"""

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from . import subjects
from .bus import Bus
from .config import BrokerConfig
from .errors import InvalidName, Refused
from .log import Log, sequence_of
from .mirror import Mirror, Value
from .streams import Stream, followed_bucket

BUCKET = "sites"
NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")

_LIVE = f"{subjects.LIVE}{BUCKET}."


class Peer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another site. `removed`: its users are still known by name, but nothing is sent or taken."""

    state: Literal["linked", "removed"] = "linked"
    machines: tuple[int, int] = (-1, -1)
    """First and last number in ids of its messages, as it said when it was linked."""


UNKNOWN = (-1, -1)


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ranges of machine numbers, first and last, have one in common."""
    return one[0] <= other[1] and other[0] <= one[1]


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Peer).decode


def stream(config: BrokerConfig) -> Stream:
    """The bucket: a key for each site."""
    return followed_bucket(BUCKET, config)


class Names:
    """What names mean at the site `own` when it knows the sites `others`."""

    def __init__(self, own: str, others: frozenset[str] = frozenset()):
        self.own = own
        self.others = others

    def site_of(self, name: str) -> str | None:
        """The site of a user or group; None for this one."""
        if "@" not in name:
            return None
        site = name.rpartition("@")[2]
        return site if site in self.others else None

    def home_of(self, chat_id: str) -> str | None:
        """The site that orders a chat; None for this one. Raises `InvalidName` for no chat id."""
        if "=40" not in chat_id:
            return None
        kind, tokens = subjects.parse(chat_id)
        names = [subjects.decode(token) for token in tokens]
        if kind == "dm":
            return self.site_of(min(names, key=lambda name: self.full(name).encode()))
        return self.site_of(names[0])

    def sites_in(self, chat_id: str) -> set[str]:
        """The other sites that the ids in a chat id name."""
        if "=40" not in chat_id:
            return set()
        names = map(subjects.decode, subjects.parse(chat_id).tokens)
        return {site for name in names if (site := self.site_of(name)) is not None}

    def full(self, name: str) -> str:
        """The name as all sites understand it."""
        return name if self.site_of(name) is not None else f"{name}@{self.own}"

    def local(self, name: str, peer: str) -> str:
        """What a name that `peer` uses is called here. Raises `InvalidName` when it is too long."""
        base, _, site = name.rpartition("@")
        if base and site == self.own:
            found = base
        elif base and site in self.others and site != peer:
            found = name
        else:
            found = f"{name}@{peer}"
        subjects.encode(found, "name")
        return found

    def check_short(self, name: str, field: str) -> None:
        """Raises `InvalidName` for a user of this site who is named as at other sites."""
        base, _, site = name.rpartition("@")
        if base and site == self.own and self.others:
            raise InvalidName(field, f"users of this site are named without @{site}: {base!r}")

    def check_own(self, name: str, field: str) -> None:
        """Raises `InvalidName` for a name of this site that is too long for others."""
        try:
            subjects.encode(self.full(name), field)
        except InvalidName:
            most = subjects.MAX_ID_BYTES - len(self.own) - 1
            why = f"must be at most {most} bytes to be known at other sites"
            raise InvalidName(field, why) from None


class Sites:
    """The peers, followed live. Use as a context manager; `refresh` reads them all.

    `on_change` is called when one came, changed or went.
    """

    def __init__(self, own: str, live: Bus, asking: Bus, on_change: Callable[[], None]):
        self._live = live
        self._log = Log(asking, stream=f"KV_{BUCKET}")
        self._on_change = on_change
        self._mirror = Mirror()
        self.names = Names(own)
        self.peers: dict[str, Peer] = {}

    async def __aenter__(self) -> "Sites":
        self._sid = self._live.subscribe(f"{_LIVE}*", self._on_live)
        await self.refresh()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._live.unsubscribe(self._sid)

    def linked(self, site: str) -> bool:
        """Whether events go to and come from the site."""
        peer = self.peers.get(site)
        return peer is not None and peer.state == "linked"

    async def refresh(self) -> None:
        """Read all peers. Raises `Unavailable`."""
        seen = self._mirror.seen
        page = await self._log.snapshot([f"$KV.{BUCKET}.*"])
        if page is None:
            raise Refused(0, "there are over 1,024 sites")
        start = len(f"$KV.{BUCKET}.")
        found = {each.subject[start:]: Value(each.seq, each.data) for each in page.events}
        self._mirror.replace(found, page.up_to or seen)
        self._take()

    def _on_live(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        assert header is not None
        if self._mirror.apply(subject[len(_LIVE) :].decode(), Value(sequence_of(header), data)):
            self._take()

    def _take(self) -> None:
        peers = {site: _decode(value.data) for site, value in self._mirror.values.items()}
        if peers != self.peers:
            self.peers = peers
            self.names = Names(self.names.own, frozenset(peers))
            self._on_change()
