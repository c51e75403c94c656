"""Who is here: the bucket `presence`, and what its keys say of a user, as pure functions.

Kinds of keys, all beginning with the user's token:

* `<user>.<edge>.<connection>`: a connection, put when it comes and removed when it goes. It counts
  only while its edge holds its lease (`broker.lease`), so nothing is renewed for each user;
* `<user>.set`: what the user has chosen to be on all devices; it lapses when the user comes
  back after all connections were gone for longer than `KEPT_S`;
* `<user>.left`: there for so long after a connection of a user who has chosen something ended;
* `<user>.lost.<connection>`: there for a minute after a connection ended without a word from the
  client, for pushes of what it may not have got;
* `<user>.seen`: when the user was last here; forgotten after 90 days.

See `docs/architecture.md`.
"""

from collections.abc import AsyncIterator, Collection, Container, Iterable
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from .bus import Bus
from .config import BrokerConfig
from .errors import Refused
from .log import Log
from .mirror import Value
from .streams import Stream, followed_bucket

BUCKET = "presence"
SEEN_TTL_S = 90 * 86_400
USERS_A_READ = 100
LOST = "lost"
LOST_TTL_S = 60
KEPT_S = 300
"""What a user has chosen outlives a gap of this length, in which no device was there."""

Status = Literal["online", "away", "dnd", "invisible", "offline"]
Choice = Literal["online", "away", "dnd", "invisible"]
_PREFIX = len(f"$KV.{BUCKET}.")


class Connection(Struct, omit_defaults=True):
    """One device that is there. `since` is its beginning, in Unix milliseconds."""

    since: int
    status: Literal["online", "away"] = "online"


class Setting(Struct, omit_defaults=True):
    """What a user has chosen on all devices: a mode beyond online and away, and a text."""

    mode: Literal["", "dnd", "invisible"] = ""
    text: str = ""

    @property
    def hidden(self) -> bool:
        """Whether others shall see nothing."""
        return self.mode == "invisible"


class Seen(Struct):
    """When a user was last here, in Unix milliseconds."""

    at: int


class Lost(Struct):
    """A connection that ended without a word: for how long the client had been silent then."""

    silent_s: float


class State(NamedTuple):
    """All that is known of a user: the connections that count, the choice, the last time."""

    connections: list[Connection]
    setting: Setting
    seen: int | None


class View(NamedTuple):
    """What someone sees of a user; `last_seen` only while the user is not there."""

    status: Status
    text: str
    last_seen: int | None


NOTHING = Setting()

_decode_connection = msgspec.json.Decoder(Connection).decode
_decode_setting = msgspec.json.Decoder(Setting).decode
_decode_seen = msgspec.json.Decoder(Seen).decode


# --- what the keys say --------------------------------------------------------------------------


def state(values: Iterable[tuple[str, bytes]], living: Container[str]) -> State:
    """Read a user's keys (without the user's token); connections of edges not `living` are none."""
    connections: list[Connection] = []
    choice, seen = NOTHING, None
    for key, data in values:
        if not data:
            continue
        if key == "set":
            choice = _decode_setting(data)
        elif key == "seen":
            seen = _decode_seen(data).at
        elif key.partition(".")[0] in living:
            connections.append(_decode_connection(data))
    return State(connections, choice, seen)


def before(values: Iterable[tuple[str, bytes]], living: Container[str], key: str) -> int:
    """How many of a user's connections that count began before the one with this key."""
    begun: list[tuple[int, str]] = []
    for each, data in values:
        if data and each.partition(".")[0] in living:
            begun.append((_decode_connection(data).since, each))
    own = next((since for since, each in begun if each == key), None)
    return sum(one < (own, key) for one in begun) if own is not None else 0


def left_lately(values: Iterable[tuple[str, bytes]]) -> bool:
    """Whether someone of whom no connection counts was there up to `KEPT_S` ago.

    A key of a connection that does not count is one of an edge that died, or is being removed.
    """
    return any(data and key not in ("set", "seen") for key, data in values)


def setting(data: bytes) -> Setting:
    """A choice as it was written; empty: none."""
    return _decode_setting(data) if data else NOTHING


def together(connections: Collection[Connection]) -> Status:
    """What several devices are together: online if one is, away if all are, else offline."""
    if not connections:
        return "offline"
    return "online" if any(each.status == "online" for each in connections) else "away"


def own_view(known: State) -> View:
    """What the user's own devices see."""
    status = together(known.connections)
    if status == "offline":
        return View("offline", "", known.seen)
    return View(known.setting.mode or status, known.setting.text, None)


def public_view(known: State) -> View:
    """What others see: who is invisible looks offline, since becoming so."""
    if known.setting.hidden:
        return View("offline", "", known.seen)
    return own_view(known)


def status_on_arrival(others: Collection[Connection]) -> Literal["online", "away"]:
    """What a device is that joins the others: what they are together."""
    return "away" if together(others) == "away" else "online"


def chosen(
    status: Choice, text: str | None, before: Setting
) -> tuple[Literal["online", "away"], Setting]:
    """What a choice makes of the device it was made on, and of the user; no text: as before."""
    kept = before.text if text is None else text
    if status == "dnd" or status == "invisible":
        return "online", Setting(status, kept)
    return status, Setting("", kept)


# --- reading ------------------------------------------------------------------------------------


def stream(config: BrokerConfig) -> Stream:
    """The bucket."""
    return followed_bucket(BUCKET, config)


class Part(NamedTuple):
    """The keys of some users at one sequence; `keys` lack the user's token."""

    users: list[str]
    keys: dict[str, dict[str, Value]]
    up_to: int


class PresenceReader:
    """Reads users' keys by Direct Get, never the whole bucket."""

    def __init__(self, bus: Bus):
        self._log = Log(bus, stream=f"KV_{BUCKET}")

    async def read(self, users: Collection[str]) -> AsyncIterator[Part]:
        """The keys of these users (tokens), 100 users at a time. Raises `Unavailable`."""
        tokens = list(users)
        waiting = [tokens[at : at + USERS_A_READ] for at in range(0, len(tokens), USERS_A_READ)]
        while waiting:
            part = waiting.pop()
            page = await self._log.snapshot([f"$KV.{BUCKET}.{token}.>" for token in part])
            if page is None:
                if len(part) == 1:
                    raise Refused(0, f"the user {part[0]} has too many connections")
                half = len(part) // 2
                waiting += [part[:half], part[half:]]
                continue
            keys: dict[str, dict[str, Value]] = {token: {} for token in part}
            for each in page.events:
                token, _, key = each.subject[_PREFIX:].partition(".")
                keys[token][key] = Value(each.seq, each.data)
            yield Part(part, keys, page.up_to)

    async def of_edge(self, edge: str) -> AsyncIterator[list[str]]:
        """The users (tokens) with connections on an edge, some at a time, by their keys."""
        subject, seq = f"$KV.{BUCKET}.*.{edge}.*", 1
        while True:
            page = await self._log.read(subject, seq, USERS_A_READ)
            if not page.events:
                return
            yield list({each.subject[_PREFIX:].partition(".")[0] for each in page.events})
            seq = page.events[-1].seq + 1
