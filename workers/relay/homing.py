"""Whether a user of another site may write what it submits to a chat that lives here."""

from collections.abc import Sequence

from broker import events, outbox, query, subjects
from broker.batch import BATCH, Part, publish_all
from broker.bus import Bus
from broker.errors import Unavailable
from broker.requests import Failure, ask
from store.directory import Directory
from store.errors import NotMember, StoreError

ASK_S = 5.0
PUT_S = 5.0


Members = set[tuple[str, str]]
"""Groups and members of them, as known while one batch is taken."""


class Homing:
    """Asks the directory and the past. Raises `Unavailable` when they do not answer."""

    def __init__(self, bus: Bus, directory: Directory):
        self._bus = bus
        self._directory = directory

    async def refusal(
        self, event: events.Message | events.Change, members: Members
    ) -> outbox.Refusal | None:
        """Why not, or None if it may be written. Whom it finds to be a member is put to `members`,
        and not asked for again."""
        try:
            await self._check(event, members)
            return None
        except Failure as failure:
            if failure.retryable:
                raise Unavailable(f"{event.chat_id}: {failure}") from failure
            return outbox.Refusal(
                chat_id=event.chat_id,
                by=event.from_,
                client_id=event.client_id,
                id=event.id,
                code=failure.code,
                message=failure.message,
            )

    async def tell(self, site: str, refusals: Sequence[outbox.Refusal]) -> None:
        """Put them into the outbox."""
        parts = [Part(outbox.told(site), outbox.encode(each)) for each in refusals]
        for start in range(0, len(parts), BATCH):
            await publish_all(self._bus, parts[start : start + BATCH], timeout_s=PUT_S)

    async def _check(self, event: events.Message | events.Change, members: Members) -> None:
        kind, tokens = subjects.parse(event.chat_id)
        if kind == "group":
            member = subjects.decode(tokens[0]), event.from_
            if member not in members:
                await self._member(*member)
                members.add(member)
        elif kind != "dm" or subjects.encode(event.from_) not in tokens:
            raise Failure("not_member", f"{event.from_!r} is not in the chat {event.chat_id}")
        if isinstance(event, events.Change):
            await self._change(event)

    async def _member(self, group_id: str, user: str) -> None:
        try:
            await self._directory.role(group_id, user)
        except NotMember as error:
            raise Failure("not_member", str(error)) from error
        except StoreError as error:
            if error.retryable:
                raise Unavailable(str(error)) from error
            raise Failure("not_found", str(error)) from error

    async def _change(self, event: events.Change) -> None:
        emoji = None
        if isinstance(event, events.Reaction) and not event.removed:
            emoji = event.emoji
        question = query.FindMessage(
            chat_id=event.chat_id, message_id=event.id, by=event.from_, emoji=emoji
        )
        found = await ask(self._bus, query.SERVICE, "message", question, query.FoundMessage, ASK_S)
        own = found.author == event.from_
        if isinstance(event, events.MessageEdited) and not own:
            raise Failure("forbidden", "only its author edits a message")
        if isinstance(event, events.MessageDeleted) and not (own or found.manager):
            raise Failure("forbidden", "only its author or an admin of the group deletes a message")
        if found.deleted and not isinstance(event, events.MessageDeleted):
            raise Failure("not_found", "the message was deleted")
