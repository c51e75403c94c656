"""Group frames: questions to the directory, and its answers as results."""

from typing import TYPE_CHECKING, Any

import msgspec

from broker import directory, subjects

from . import frames

if TYPE_CHECKING:
    from .asker import Asker


async def answer(asker: "Asker", request: Any) -> None:
    """Ask, and push the result once this edge has seen the events of the change."""
    verb, question = _question(asker, request)
    if isinstance(question, directory.Members):
        page = await asker.edge.ask_directory(verb, question, directory.MemberPage)
        members = msgspec.to_builtins(page.members)
        asker.push(frames.Result(id=request.id, members=members, more=page.more))
        return
    changed = await asker.edge.ask_directory(verb, question, directory.Changed)
    await asker.edge.reached(changed.seq)
    asker.push(frames.Result(id=request.id, group=msgspec.to_builtins(changed.group)))


def _question(asker: "Asker", request: Any) -> tuple[str, Any]:
    """Verb and question of a group frame. Raises `InvalidName` for an id that can be none."""
    by, sites = asker.user.user_id, asker.edge.sites
    group_id = request.group_id
    if group_id is not None:
        subjects.encode(group_id, "group_id")
    for field in ("users", "members", "roles"):
        for user in getattr(request, field, None) or ():
            subjects.encode(user, field)
            if sites is not None:
                sites.names.check_short(user, field)
    match request:
        case frames.GroupCreate():
            return "create", directory.Create(
                by=by,
                client_id=request.client_id,
                name=request.name,
                members=request.members,
                kind=request.kind,
                group_id=group_id,
            )
        case frames.GroupAdd():
            return "add", directory.Add(by=by, group_id=group_id, users=request.users)
        case frames.GroupRemove():
            return "remove", directory.Remove(by=by, group_id=group_id, users=request.users)
        case frames.GroupJoin():
            return "join", directory.Join(by=by, group_id=group_id)
        case frames.GroupLeave():
            return "leave", directory.Leave(by=by, group_id=group_id)
        case frames.GroupInfo():
            return "info", directory.Info(by=by, group_id=group_id)
        case frames.GroupMembers():
            return "members", directory.Members(
                by=by, group_id=group_id, after=request.after, limit=request.limit
            )
        case frames.GroupUpdate():
            return "update", directory.Update(
                by=by,
                group_id=group_id,
                name=request.name,
                roles=request.roles,
                mute=request.mute,
            )
        case _:
            raise AssertionError(f"no directory question for {type(request).__name__}")
