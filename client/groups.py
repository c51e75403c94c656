"""What a client can do with groups. Each call waits for the server's answer or raises."""

from collections.abc import Iterable, Mapping
from uuid import uuid4

from msgspec import Struct

from edge.frames import (
    GroupAdd,
    GroupCreate,
    GroupInfo,
    GroupJoin,
    GroupKind,
    GroupLeave,
    GroupMembers,
    GroupRemove,
    GroupUpdate,
    Result,
    Role,
)

from .errors import NotMember
from .requests import Requests, read_answer


class Group(Struct, kw_only=True):
    """A group as the server describes it; `members` may be only the first of them."""

    group_id: str
    chat_id: str
    name: str
    kind: GroupKind = "group"
    home: str = ""
    members: list[str] = []
    member_count: int = 0
    version: int = 0
    created_by: str = ""


class Member(Struct, kw_only=True):
    """One member of a group."""

    user_id: str
    role: Role = "member"


class MemberPage(Struct, kw_only=True):
    """Some members in order of user id; if `more`, ask again `after` the last of them."""

    members: list[Member]
    more: bool = False


class GroupRequests(Requests):
    """The group methods of `Client`."""

    async def create_group(
        self,
        name: str,
        members: Iterable[str] = (),
        *,
        kind: GroupKind = "group",
        group_id: str | None = None,
        client_id: str | None = None,
    ) -> Group:
        """Create a group and become its owner. Raises `DuplicateGroup` or `GroupFull`."""
        client_id = client_id or str(uuid4())
        frame = GroupCreate(
            client_id=client_id, name=name, members=list(members), kind=kind, group_id=group_id
        )
        return _group(await self._ask(frame, client_id=client_id))

    async def add_members(self, group_id: str, users: Iterable[str]) -> Group:
        """Add users. Only owners and admins may."""
        return _group(await self._ask(GroupAdd(group_id=group_id, users=list(users))))

    async def remove_members(self, group_id: str, users: Iterable[str]) -> Group:
        """Remove users. Only owners and admins may."""
        return _group(await self._ask(GroupRemove(group_id=group_id, users=list(users))))

    async def join(self, group_id: str) -> Group:
        """Join a channel."""
        return _group(await self._ask(GroupJoin(group_id=group_id)))

    async def leave(self, group_id: str) -> None:
        """Leave a group or a channel."""
        try:
            await self._ask(GroupLeave(group_id=group_id))
        except NotMember as error:
            if error.attempts == 1:
                raise
            # The first try worked and only its answer was lost: we are out, as was asked.

    async def members(
        self, group_id: str, *, after: str | None = None, limit: int = 100
    ) -> MemberPage:
        """List members, `limit` at a time."""
        result = await self._ask(GroupMembers(group_id=group_id, after=after, limit=limit))
        found = read_answer(result.members, list[Member])
        return MemberPage(members=found, more=bool(result.more))

    async def group_info(self, group_id: str) -> Group:
        """Describe a group."""
        return _group(await self._ask(GroupInfo(group_id=group_id)))

    async def update_group(
        self,
        group_id: str,
        *,
        name: str | None = None,
        roles: Mapping[str, Role] | None = None,
        mute: bool | None = None,
    ) -> Group:
        """Change what is given: the name, members' roles, or `mute`."""
        given = None if roles is None else dict(roles)
        frame = GroupUpdate(group_id=group_id, name=name, roles=given, mute=mute)
        return _group(await self._ask(frame))


def _group(result: Result) -> Group:
    return read_answer(result.group, Group)
