"""Questions about groups that live at another site: asked for users here, answered for theirs.

An edge asks `svc.relay.directory`, the relay asks the group's home, and there the directory answers
as it answers its own users. Each site reads what the other says with its own names.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker import directory
from broker.bus import Bus
from broker.errors import BrokerError, InvalidName, Unavailable
from broker.federation import Postal, read
from broker.relay import SERVICE, Question
from broker.renaming import renamed
from broker.requests import Failure, Responder, ask
from broker.sites import Sites

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


class _Answer(Struct, kw_only=True, omit_defaults=True):
    ok: Raw = Raw(b"")
    code: str = ""
    message: str = ""
    retryable: bool = False


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
        if not self._sites.linked(question.site):
            raise Failure("not_found", f"there is no link to the site {question.site!r}")
        payload = msgspec.json.encode(question)
        try:
            data = await self._postal.ask(question.site, "directory", payload, timeout_s=ASK_S)
        except Unavailable as error:
            raise Failure("unavailable", f"{error}; try again later", retryable=True) from error
        answer = read(data, _Answer, question.site)
        if not bytes(answer.ok):
            raise Failure(answer.code, answer.message, retryable=answer.retryable)
        kind = _VERBS[question.verb][1]
        found = renamed(read(bytes(answer.ok), kind, question.site), self._local(question.site))
        return (
            msgspec.structs.replace(found, seq=0) if isinstance(found, directory.Changed) else found
        )

    async def _answer(self, peer: str, data: bytes) -> bytes:
        """For a user of the peer."""
        try:
            return msgspec.json.encode(_Answer(ok=Raw(await self._ask_here(peer, data))))
        except Failure as failure:
            answer = _Answer(
                code=failure.code, message=failure.message, retryable=failure.retryable
            )
        except InvalidName as error:
            answer = _Answer(code="invalid", message=str(error))
        except BrokerError as error:
            answer = _Answer(code="unavailable", message=str(error), retryable=True)
        return msgspec.json.encode(answer)

    async def _ask_here(self, peer: str, data: bytes) -> bytes:
        question = read(data, Question, peer)
        if not self._sites.linked(peer) or question.verb not in _VERBS:
            raise Failure("forbidden", "this is not asked across sites")
        asked, answered = _VERBS[question.verb]
        local: Any = renamed(read(bytes(question.question), asked, peer), self._local(peer))
        names = self._sites.names
        if names.site_of(local.by) != peer:
            raise Failure("forbidden", f"{local.by!r} is not a user of {peer}")
        if names.site_of(local.group_id) is not None:
            raise Failure("not_found", f"the group {local.group_id!r} does not live here")
        found = await ask(self._bus, directory.SERVICE, question.verb, local, answered, ASK_S)
        return msgspec.json.encode(found)

    def _local(self, peer: str) -> Any:
        return lambda name: self._sites.names.local(name, peer)
