"""What a client can ask about the past, and how it tells what was read."""

from collections.abc import AsyncIterator, Iterable

from edge.frames import Chats, History, Limits, Missing, ReadReceipt, Receipts, Search, Unread

from .messages import ChatPage, ChatSummary, Hit, Message, MessagePage, Receipt, SearchPage
from .requests import Requests, read_answer


class PastRequests(Requests):
    """The methods of `Client` about history, chats and what is unread."""

    async def history(
        self,
        chat_id: str,
        *,
        before: str | None = None,
        after: str | None = None,
        thread: str | None = None,
        limit: int = 50,
    ) -> MessagePage:
        """Read messages of a chat, newest first; `before`, `after` and `thread` are message ids.

        With `after` alone it is the oldest ones after that message, else the newest there are.
        """
        frame = History(chat_id=chat_id, before=before, after=after, thread=thread, limit=limit)
        result = await self._ask(frame)
        return MessagePage(
            messages=read_answer(result.messages, list[Message]), more=bool(result.more)
        )

    async def fill(self, missing: Missing, *, before: str | None = None) -> AsyncIterator[Message]:
        """Read the messages of a range of `CaughtUp.missing`, newest first.

        `before`, the id of a message after the range, spares reading down to it. What happened in
        the range to messages older than it is not told.
        """
        limits = self.session.limits if self.session is not None else Limits()
        while True:
            page = await self.history(missing.chat_id, before=before, limit=limits.history_page)
            for message in page.messages:
                if message.seq < missing.from_seq:
                    return
                if message.seq <= missing.to_seq:
                    yield message
            if not page.more or not page.messages:
                return
            before = page.messages[-1].id

    async def search(
        self,
        query: str,
        *,
        chat_id: str | None = None,
        from_: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> SearchPage:
        """Find messages in the user's chats, those that fit best first.

        Every word must be there, the last one may be its beginning; words in `"quotes"` must stand
        together, one after `-` must not be there. `since` and `until` are Unix milliseconds.
        """
        frame = Search(
            query=query,
            chat_id=chat_id,
            from_=from_,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
        )
        result = await self._ask(frame)
        return SearchPage(
            hits=read_answer(result.hits, list[Hit]), total=read_answer(result.total, int)
        )

    async def chats(self, *, limit: int = 50, after: str | None = None) -> ChatPage:
        """List the user's chats, that of the newest message first; `after` is a chat id."""
        result = await self._ask(Chats(limit=limit, after=after))
        return ChatPage(chats=read_answer(result.chats, list[ChatSummary]), more=bool(result.more))

    async def unread(self, chat_ids: Iterable[str]) -> dict[str, int]:
        """Count the unread messages of up to 200 chats; 1,000 stands for that many or more."""
        result = await self._ask(Unread(chat_ids=list(chat_ids)))
        return read_answer(result.counts, dict[str, int])

    async def read(self, chat_id: str, message_id: str) -> str:
        """Tell that the user has read a chat up to a message; says up to where it counts as read.

        The server passes on one a second for a chat, the newest; this waits until it is its turn.
        """
        result = await self._ask(ReadReceipt(chat_id=chat_id, last_read_msg_id=message_id))
        return read_answer(result.last_read_msg_id, str)

    async def receipts(self, chat_id: str) -> dict[str, Receipt]:
        """How far each member is in a chat that is not large, as far as anything is known."""
        result = await self._ask(Receipts(chat_id=chat_id))
        return read_answer(result.receipts, dict[str, Receipt])
