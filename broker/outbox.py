"""What waits for other sites, in two streams with subjects for each peer.

Edges put submissions into `SUBMITTED`, writes of this site's users in chats that live elsewhere;
`relay` puts what happened in chats that live here into `OUT`. Both are kept until the peer has
them, however long the link is cut; a stream that is full refuses, and the sender is told. A
submission stays until it came back in its chat's order, so that what a peer says about this site's
users can be checked.

They are two since submissions leave only when the peer can tell what came of them: in one stream
they would take the room that both sites need to tell each other. What is told needs no such room at
the peer, so it always leaves, and then the submissions do.
"""

import os
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from . import subjects
from .config import BrokerConfig
from .streams import DUPLICATE_WINDOW_S, NANOSECOND, Stream

STREAM = "OUT"
SUBMITTED = "SUBMITTED"
Box = Literal["told", "submitted"]
"""One of the two, as sites call it between themselves."""

BOXES: tuple[Box, ...] = ("told", "submitted")
Role = Literal["owner", "admin", "member"]
LIVE = f"{subjects.LIVE}out."

_SUBMIT = "submit"


def streams(config: BrokerConfig) -> list[Stream]:
    """Both, with half of the room each. Nothing in them ages: what a peer has not, waits."""
    return [_stream(box, config) for box in BOXES]


def _stream(box: Box, config: BrokerConfig) -> Stream:
    return Stream(
        stream(box),
        {
            "subjects": [waiting("*", box)],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_bytes": config.outbox_bytes // 2,
            "num_replicas": config.replicas,
            "duplicate_window": DUPLICATE_WINDOW_S * NANOSECOND,
            "allow_direct": True,
            "allow_atomic": True,
            "republish": {"src": ">", "dest": f"{subjects.LIVE}>"},
            "metadata": {"epoch": os.urandom(6).hex()},
        },
    )


def stream(box: Box) -> str:
    """The name of its stream."""
    return STREAM if box == "told" else SUBMITTED


def waiting(site: str, box: Box) -> str:
    """All that a box has for a site."""
    return told(site) if box == "told" else submissions(site)


def submission(site: str, chat_id: str) -> str:
    """Subject of what users here write in a chat that lives at `site`."""
    return f"out.{site}.{_SUBMIT}.{chat_id}"


def submissions(site: str) -> str:
    """All of them, for a site."""
    return f"out.{site}.{_SUBMIT}.>"


def told(site: str) -> str:
    """Subject of what `site` is told about chats that live here."""
    return f"out.{site}.told"


def submitted_chat(subject: str) -> str | None:
    """The chat of a submission's subject; None for any other."""
    parts = subject.split(".", 3)
    return parts[3] if len(parts) == 4 and parts[2] == _SUBMIT else None


class Submitted(Struct, tag="submitted", kw_only=True):
    """A write of the sending site's user, for a chat that lives at the receiver."""

    chat_id: str
    data: Raw


class _Told(Struct, kw_only=True):
    seq: int
    """Where it is in the home's log: what a receiver has seen once, it does not take again."""

    part: int = 0


class Event(_Told, tag="event", kw_only=True):
    """An event of a chat that lives at the sender, in its order."""

    chat_id: str
    data: Raw


class Own(_Told, tag="own", kw_only=True):
    """A user of the receiver came into, or went out of, a group that lives at the sender."""

    data: Raw


class GroupPage(_Told, tag="group", kw_only=True):
    """A group that lives at the sender, for a site that did not know it; members in pages."""

    group_id: str
    name: str
    kind: Literal["group", "channel"]
    created_by: str
    size: int
    members: dict[str, Role]


class Refusal(Struct, tag="refusal", kw_only=True):
    """The sender does not take a submission of the receiver; `code` is one of the protocol's."""

    chat_id: str
    by: str
    client_id: str
    id: str
    code: str
    message: str


Telling = Event | Own | GroupPage
Parcel = Submitted | Telling | Refusal


decode_submitted = msgspec.json.Decoder(Submitted).decode
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Parcel).decode
