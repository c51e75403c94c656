"""What a client can do with messages that are there: edit, delete, react.

Each takes its place among the messages of its chat: what is called later is stored later.
"""

from uuid import uuid4

from edge.frames import Ack, Delete, Edit, React

from .requests import Requests


class ChangeRequests(Requests):
    """The methods of `Client` that change messages."""

    async def edit(
        self,
        chat_id: str,
        message_id: str,
        content: str,
        *,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack:
        """Give an own message another content."""
        frame = Edit(
            client_id=client_id or str(uuid4()),
            chat_id=chat_id,
            message_id=message_id,
            content=content,
        )
        return await self._write(frame, lane=self._lane(chat_id), deadline_s=deadline_s)

    async def delete(
        self,
        chat_id: str,
        message_id: str,
        *,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack:
        """Delete an own message, or as an owner or admin of a group anybody's."""
        frame = Delete(client_id=client_id or str(uuid4()), chat_id=chat_id, message_id=message_id)
        return await self._write(frame, lane=self._lane(chat_id), deadline_s=deadline_s)

    async def react(
        self,
        chat_id: str,
        message_id: str,
        emoji: str,
        *,
        remove: bool = False,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack:
        """Put an emoji on a message, or take it back."""
        frame = React(
            client_id=client_id or str(uuid4()),
            chat_id=chat_id,
            message_id=message_id,
            emoji=emoji,
            remove=remove,
        )
        return await self._write(frame, lane=self._lane(chat_id), deadline_s=deadline_s)
