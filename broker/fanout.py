"""How a message reaches a chat's members, by the number of them: who gets it live, who a push.

    members                live              offline members get a push
    up to 50               everyone          now, for each message
    51 to 500              everyone          soon, put together by user and chat
    over 500 (a channel)   who has it open   only who is mentioned

A member who is VIP is served as in a chat of up to 50, whatever its size.
"""

from typing import Literal, NamedTuple

from .directory import Kind

SMALL = 50
LARGE = 500


class Fanout(NamedTuple):
    """What one member gets: each message live or only when open; a push how."""

    live: Literal["always", "open"]
    push: Literal["now", "coalesced", "mentions"]


def fanout(members: int, kind: Kind, *, vip: bool = False) -> Fanout:
    """The class of a member's delivery. A `group` is never large, whatever limit is configured."""
    if vip or members <= SMALL:
        return Fanout("always", "now")
    if members <= LARGE or kind == "group":
        return Fanout("always", "coalesced")
    return Fanout("open", "mentions")


def is_large(members: int, kind: Kind) -> bool:
    """Whether the chat is one that members open."""
    return fanout(members, kind).live == "open"
