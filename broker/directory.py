"""Questions and answers of the service `directory`: groups and who is in them."""

from typing import Literal

from msgspec import Struct

Kind = Literal["group", "channel"]
Role = Literal["owner", "admin", "member"]

SERVICE = "directory"


class Chats(Struct, kw_only=True):
    """Which groups are these users in?"""

    users: list[str]


class Memberships(Struct, kw_only=True):
    """For each user: group id to kind. Users for whom there was no room are left out.

    `large` are those of the groups that members open to follow them.
    """

    groups: dict[str, dict[str, Kind]]
    large: list[str] = []


class Shares(Struct, kw_only=True):
    """Which of these other users share a chat with this one: a group, or a DM of any age?"""

    user: str
    others: list[str]


class Shared(Struct, kw_only=True):
    """Those who are."""

    users: list[str]


class Create(Struct, kw_only=True):
    """Create a group; `by` becomes its owner. Repeating it with the same `client_id` is safe."""

    by: str
    client_id: str
    name: str
    members: list[str]
    kind: Kind
    group_id: str | None = None


class Add(Struct, kw_only=True):
    """Add users; only owners and admins may."""

    by: str
    group_id: str
    users: list[str]


class Remove(Struct, kw_only=True):
    """Remove users; only owners and admins may, and only an owner removes an owner."""

    by: str
    group_id: str
    users: list[str]


class Join(Struct, kw_only=True):
    """Join a channel."""

    by: str
    group_id: str


class Leave(Struct, kw_only=True):
    """Leave. When the last owner leaves, an admin or else a member becomes owner."""

    by: str
    group_id: str


class Update(Struct, kw_only=True):
    """Change name or roles (owners and admins), or one's own `mute`."""

    by: str
    group_id: str
    name: str | None = None
    roles: dict[str, Role] | None = None
    mute: bool | None = None


class Info(Struct, kw_only=True):
    """Describe a group."""

    by: str
    group_id: str


class Members(Struct, kw_only=True):
    """List members in order of user id, after `after`."""

    by: str
    group_id: str
    after: str | None
    limit: int


class Group(Struct, kw_only=True):
    """A group as clients see it; `members` are the first 500 by user id."""

    group_id: str
    chat_id: str
    name: str
    kind: Kind
    home: str
    members: list[str]
    member_count: int
    version: int
    created_by: str


class Changed(Struct, kw_only=True):
    """A change was made; its last event is at `seq` of the log (0: nothing changed)."""

    group: Group
    seq: int


class Member(Struct, kw_only=True):
    """A member and its role."""

    user_id: str
    role: Role


class MemberPage(Struct, kw_only=True):
    """Some members, and whether there are more."""

    members: list[Member]
    more: bool
