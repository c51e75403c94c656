"""The client: `async with Client(url, token) as c`, `await c.send(…)`, `async for event in c`.

See `docs/client.md`. This module only joins the parts: `runner` keeps connected, `sender` has the
requests, `inbox` the events, `tracker` knows which are new, `keeper` saves the cursor. What can be
asked stands in `groups`, `changes`, `files`, `past` and `following`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from uuid import uuid4

from edge.frames import (
    Ack,
    Activity,
    Chat,
    GroupChat,
    PresenceEvent,
    Refresh,
    Request,
    Result,
    Typing,
    Welcome,
)

from .address import endpoint, web_base, with_parameters
from .changes import ChangeRequests
from .chat_ids import group_of, other_of
from .cursor_store import CursorStore, MemoryCursorStore
from .deliveries import Deliveries
from .errors import (
    ClientClosed,
    ClientError,
    ConnectionStopped,
    ConnectTimeout,
    InvalidRequest,
    NotAllowed,
    ServerError,
)
from .files import FileRequests
from .following import Followed, FollowRequests
from .groups import GroupRequests
from .inbox import ClientEvent, Inbox
from .keeper import CursorKeeper
from .past import PastRequests
from .requests import Write
from .runner import Runner
from .sender import Sender
from .state import ConnectionState
from .tokens import Tokens, TokenSource
from .tracker import Tracker
from .web import Web

log = logging.getLogger("hikyaku.client")

SHUT_DOWN_WITHIN_S = 10.0


class Client(ChangeRequests, FileRequests, PastRequests, GroupRequests, FollowRequests):
    """One user on one device. Everything runs in the event loop in which it was started.

    Entering the context waits until the server has welcomed us, at most `open_timeout_s`; `start`
    does not wait, and requests made meanwhile wait for the connection until their own deadline.
    `inbox_size` events may wait for the application, `outbox_size` requests for their answers.
    `on_state` is called with each change of the connection. With `delivery_receipts` the others in
    a chat are told which of their messages the application has had.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        device: str | None = None,
        user: str | None = None,
        cursor_store: CursorStore | None = None,
        on_state: Callable[[ConnectionState], None] | None = None,
        delivery_receipts: bool = False,
        deadline_s: float = 30.0,
        open_timeout_s: float = 30.0,
        inbox_size: int = 1000,
        outbox_size: int = 1000,
    ) -> None:
        self.state = ConnectionState("closed")
        self.session: Welcome | None = None
        self._user = user
        self._address = with_parameters(endpoint(url), user_id=user, device=device)
        self._tokens = Tokens(token)
        self._store = cursor_store or MemoryCursorStore()
        self._on_state = on_state
        self._deadline_s = deadline_s
        self._open_timeout_s = open_timeout_s
        self._sender = Sender(outbox_size)
        self._deliveries = Deliveries(self._sender)
        self._delivery_receipts = delivery_receipts
        self._inbox = Inbox(inbox_size, self._handed_over)
        self._keeper = CursorKeeper(self._store, self._inbox, on_saved=self._deliveries.saved)
        self._followed = Followed()
        self._online = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    # --- beginning and end ---

    async def __aenter__(self) -> "Client":
        await self.start()
        try:
            await self._wait_online()
        except BaseException:
            await self._shut_down()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(settle=kind is None)

    async def start(self) -> None:
        """Begin to connect. Raises `CursorStoreError` if the cursor cannot be read."""
        if self._main is not None:
            raise RuntimeError("a client is started only once")
        tracker = Tracker(await self._keeper.load())
        runner = Runner(
            self._address,
            tokens=self._tokens,
            sender=self._sender,
            inbox=self._inbox,
            tracker=tracker,
            on_state=self._set_state,
            on_welcome=self._welcomed,
        )
        self._main = asyncio.create_task(self._serve(runner), name="hikyaku client")

    async def _serve(self, runner: Runner) -> None:
        error: ClientError
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keeper.run(), name="hikyaku cursor")
                tasks.create_task(self._keep_following(), name="hikyaku following")
                tasks.create_task(self._deliveries.run(), name="hikyaku receipts")
                await runner.run()
        except* ConnectionStopped as group:
            error = next(e for e in group.exceptions if isinstance(e, ConnectionStopped))
            self._stop(error)
            self._set_state(ConnectionState("stopped", reason=error.reason, error=error))
        except* Exception as group:
            log.exception("the client failed")
            error = ClientError(f"the client failed: {group.exceptions[0]!r}")
            error.__cause__ = group
            self._stop(error)
            self._set_state(ConnectionState("stopped", reason=str(error), error=error))

    async def _wait_online(self) -> None:
        assert self._main is not None
        online = asyncio.create_task(self._online.wait())
        try:
            await asyncio.wait(
                {online, self._main},
                timeout=self._open_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            online.cancel()
        if self._main.done():
            raise self._sender.stopped or ClientClosed("the client was closed")
        if not self._online.is_set():
            why = self.state.reason or "no answer"
            raise ConnectTimeout(f"not connected after {self._open_timeout_s:g} s: {why}")

    async def close(self, *, settle: bool = True) -> None:
        """Disconnect, fail what is waiting and save the cursor. May be called again.

        With `settle` the event given last counts as handed over; without, it will come again.
        """
        if settle:
            self._inbox.settle()
        await self._shut_down()
        await self._keeper.flush()

    async def _shut_down(self) -> None:
        self._stop(ClientClosed("the client was closed"))
        self._inbox.drop()
        if self._main is not None and not self._main.done():
            self._main.cancel()
            await asyncio.wait({self._main}, timeout=SHUT_DOWN_WITHIN_S)
        if self.state.phase != "stopped":
            self._set_state(ConnectionState("closed"))

    def _stop(self, error: ClientError) -> None:
        self._sender.stop(error)
        self._inbox.stop(error)

    def _welcomed(self, frame: Welcome) -> None:
        self.session = frame
        self._online.set()
        self._followed.welcomed.set()
        self._deliveries.welcomed()

    def _handed_over(self, event: ClientEvent) -> None:
        if self._delivery_receipts and self.session is not None:
            self._deliveries.handed_over(event, self.session.user_id)

    def _set_state(self, state: ConnectionState) -> None:
        if state != self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(state)

    # --- events ---

    def __aiter__(self) -> "Client":
        return self

    async def __anext__(self) -> ClientEvent:
        try:
            return await self._inbox.get()
        except ClientClosed:
            raise StopAsyncIteration from None

    async def _give(self, event: PresenceEvent | Activity) -> None:
        await self._inbox.put_patiently(event)

    # --- messages ---

    async def send(
        self,
        to: str,
        content: str,
        *,
        content_type: str = "text",
        reply_to: str | None = None,
        thread: str | None = None,
        attachments: Sequence[str] = (),
        mentions: Sequence[str] = (),
        expect_seq: int | None = None,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack:
        """Send a message to a user; returns when it is on the server's disk.

        Messages to one chat are stored in the order of the calls. After an error it is safe to
        call again with the same `client_id`: the server stores it once.
        """
        frame = Chat(
            to=to,
            client_id=client_id or str(uuid4()),
            content=content,
            content_type=content_type,
            reply_to=reply_to,
            thread=thread,
            attachments=list(attachments),
            mentions=list(mentions),
            expect_seq=expect_seq,
        )
        return await self._write(frame, lane=f"dm {to}", deadline_s=deadline_s)

    async def send_group(
        self,
        group_id: str,
        content: str,
        *,
        content_type: str = "text",
        reply_to: str | None = None,
        thread: str | None = None,
        attachments: Sequence[str] = (),
        mentions: Sequence[str] = (),
        expect_seq: int | None = None,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack:
        """Send a message to a group; as `send`."""
        frame = GroupChat(
            group_id=group_id,
            client_id=client_id or str(uuid4()),
            content=content,
            content_type=content_type,
            reply_to=reply_to,
            thread=thread,
            attachments=list(attachments),
            mentions=list(mentions),
            expect_seq=expect_seq,
        )
        return await self._write(frame, lane=f"group {group_id}", deadline_s=deadline_s)

    def _lane(self, chat_id: str) -> str:
        """Sends name their lane after whom they go to, for that is known before we are welcomed."""
        me = self._user or (self.session.user_id if self.session is not None else None)
        if me is not None and (other := other_of(chat_id, me)) is not None:
            return f"dm {other}"
        group_id = group_of(chat_id)
        return f"chat {chat_id}" if group_id is None else f"group {group_id}"

    async def _write(self, frame: Write, *, lane: str, deadline_s: float | None) -> Ack:
        answer = await self._request(
            frame, lane=lane, client_id=frame.client_id, deadline_s=deadline_s
        )
        if not isinstance(answer, Ack):
            raise ServerError("internal", "the server answered a write with a result")
        return answer

    async def typing(self, *, to: str | None = None, group_id: str | None = None) -> None:
        """Tell a user or a group that this user is typing; at most one in 3 s goes out."""
        if (to is None) == (group_id is None):
            raise InvalidRequest("invalid", "give either `to` or `group_id`")
        self._sender.typing(Typing(to=to, group_id=group_id))

    async def refresh(self, token: str) -> None:
        """Extend the session with a new token, which is also used from now on."""
        before = self._tokens.present
        self._tokens.use(token)
        try:
            await self._ask(Refresh(token=token))
        except NotAllowed:
            if before is not None:
                self._tokens.use(before)
            raise

    # --- requests ---

    def _web(self, patience_s: float) -> Web:
        return Web(web_base(self._address), self._tokens, patience_s=patience_s)

    async def _ask(
        self,
        frame: Request,
        *,
        lane: str | None = None,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Result:
        answer = await self._request(frame, lane=lane, client_id=client_id, deadline_s=deadline_s)
        if not isinstance(answer, Result):
            raise ServerError("internal", "the server answered a question with an ack")
        return answer

    async def _request(
        self,
        frame: Request,
        *,
        lane: str | None = None,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Ack | Result:
        if self._main is None:
            raise ClientClosed("the client was not started")
        return await self._sender.request(
            frame,
            lane=lane,
            client_id=client_id,
            deadline_s=self._deadline_s if deadline_s is None else deadline_s,
        )
