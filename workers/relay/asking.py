"""Questions about groups that live at another site: asked for users here, answered for theirs.

An edge asks `svc.relay.directory`, the relay asks the group's home, and there the directory answers
as it answers its own users. Each site reads what the other says with its own names.
"""

from typing import Any

import msgspec
from msgspec import Struct

from broker import directory
from broker.bus import Bus
from broker.federation import Postal, read
from broker.relay import SERVICE, Question
from broker.renaming import renamed
from broker.requests import Failure, Responder, ask
from broker.sites import Sites

from .answers import answered, asked

ASK_S = 4.0
DEADLINE_S = 5.0

_VERBS: dict[str, tuple[type[Struct], type[Struct]]] = {
    "add": (directory.Add, directory.Changed),
    "remove": (directory.Remove, directory.Changed),
    "join": (directory.Join, directory.Changed),
    "leave": (directory.Leave, directory.Changed),
    "update": (directory.Update, directory.Changed),
    "info": (directory.Info, directory.Changed),
    "members": (directory.Members, directory.MemberPage),
}
"""What may be asked across sites."""


class Asking:
    """Both ends. Use as a context manager; `serve` begins answering peers."""

    def __init__(self, bus: Bus, postal: Postal, sites: Sites):
        self._bus = bus
        self._postal = postal
        self._sites = sites
        self.responder = Responder(
            bus, SERVICE, {"directory": (Question, self._ask)}, deadline_s=DEADLINE_S
        )

    async def __aenter__(self) -> "Asking":
        await self.responder.__aenter__()
        self._postal.serve("directory", self._answer)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.responder.__aexit__(*exc_info)

    async def _ask(self, question: Question) -> Any:
        """For a user here."""
        data = await asked(
            self._sites, self._postal, question.site, "directory", question, timeout_s=ASK_S
        )
        kind = _VERBS[question.verb][1]
        found = renamed(read(data, kind, question.site), self._local(question.site))
        return (
            msgspec.structs.replace(found, seq=0) if isinstance(found, directory.Changed) else found
        )

    async def _answer(self, peer: str, data: bytes) -> bytes:
        """For a user of the peer."""
        return await answered(self._ask_here(peer, data))

    async def _ask_here(self, peer: str, data: bytes) -> bytes:
        question = read(data, Question, peer)
        if not self._sites.linked(peer) or question.verb not in _VERBS:
            raise Failure("forbidden", "this is not asked across sites")
        kind, found_kind = _VERBS[question.verb]
        local: Any = renamed(read(bytes(question.question), kind, peer), self._local(peer))
        names = self._sites.names
        if names.site_of(local.by) != peer:
            raise Failure("forbidden", f"{local.by!r} is not a user of {peer}")
        if names.site_of(local.group_id) is not None:
            raise Failure("not_found", f"the group {local.group_id!r} does not live here")
        found = await ask(self._bus, directory.SERVICE, question.verb, local, found_kind, ASK_S)
        return msgspec.json.encode(found)

    def _local(self, peer: str) -> Any:
        return lambda name: self._sites.names.local(name, peer)
