"""Requests and their answers: the `Outbox` with futures, a clock and a socket around it."""

import asyncio
import itertools
import logging
import time
from collections import deque

from websockets.asyncio.client import ClientConnection

from edge.frames import Ack, BadFrame, Error, Request, Result, Typing, decode_request, encode

from .errors import ClientError, InvalidRequest, SendTimeout, TooLarge
from .outbox import Entry, Outbox

log = logging.getLogger("hikyaku.client")

Answerable = Ack | Result
TOLD_WAITING_MAX = 64
TYPING_TARGETS_MAX = 1000


class Sender:
    """Takes requests at any time and sends them whenever there is a connection."""

    def __init__(self, size: int) -> None:
        self.outbox = Outbox(size)
        self._ids = itertools.count(1)
        self._futures: dict[int, asyncio.Future[Answerable]] = {}
        self._wake = asyncio.Event()
        self.stopped: ClientError | None = None
        self._told: deque[bytes] = deque(maxlen=TOLD_WAITING_MAX)
        self._typed: dict[str, float] = {}
        self.online = asyncio.Event()
        self.lost_at = 0.0

    async def request(
        self,
        frame: Request,
        *,
        deadline_s: float,
        lane: str | None = None,
        client_id: str | None = None,
    ) -> Answerable:
        """Send `frame`, again if need be, until it has its final answer or `deadline_s` is over.

        Requests of one `lane` reach the server in the order of the calls; without a lane a request
        waits for none. The place in the lane is taken before the first `await`.
        """
        if self.stopped is not None:
            raise self.stopped
        if client_id is not None and self.outbox.holds(client_id):
            raise InvalidRequest("invalid", "this client_id is being sent already")
        number = next(self._ids)
        entry = Entry(
            id=number,
            lane=lane or f"request {number}",
            data=_checked(frame, number),
            deadline=time.monotonic() + deadline_s,
            client_id=client_id,
        )
        self.outbox.add(entry)
        future: asyncio.Future[Answerable] = asyncio.get_running_loop().create_future()
        self._futures[number] = future
        self._wake.set()
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            if entry.last_error is not None:
                raise entry.last_error from None
            raise SendTimeout(sent=entry.attempts > 0, client_id=client_id) from None
        finally:
            self.outbox.remove(entry)
            del self._futures[number]
            if future.done() and not future.cancelled():
                future.exception()  # it may have come in the same moment as a cancellation
            self._wake.set()

    def typing(self, frame: Typing) -> None:
        """Tell that the user is typing, unless that was told just now or nobody is connected."""
        if not self.online.is_set():
            return
        now = time.monotonic()
        target = f"{frame.to}\0{frame.group_id}"
        if now - self._typed.get(target, float("-inf")) < self.outbox.limits.typing_interval_s:
            return
        if len(self._typed) >= TYPING_TARGETS_MAX:
            self._typed.clear()
        self._typed[target] = now
        self.tell(frame)

    def tell(self, frame: Request) -> None:
        """Send what has no answer, if there is a connection; at most once."""
        if self.online.is_set():
            self._told.append(_checked(frame, None))
            self._wake.set()

    def answered(self, frame: Answerable) -> None:
        """Give an answer to the request that waits for it."""
        entry = self.outbox.answered(frame)
        if entry is not None and not (future := self._futures[entry.id]).done():
            future.set_result(frame)
        self._wake.set()

    def refused(self, frame: Error) -> None:
        """Give an error to the request that waits for it, unless it is to be tried again."""
        entry, failure = self.outbox.refused(frame, time.monotonic())
        if entry is not None:
            self._fail(entry, failure)
        elif frame.id is None and frame.client_id is None:
            log.warning("the server reports %s", failure)
        self._wake.set()

    def _fail(self, entry: Entry, failure: ClientError) -> None:
        future = self._futures[entry.id]
        if not future.done():
            future.set_exception(failure)

    async def pump(self, socket: ClientConnection) -> None:
        """Send what is due over one connection, until that ends."""
        self.online.set()
        try:
            while True:
                self._wake.clear()
                await self._send_due(socket)
                await self._next_turn()
        finally:
            self.online.clear()
            self._told.clear()

    async def _send_due(self, socket: ClientConnection) -> None:
        for entry in self.outbox.take_due(time.monotonic()):
            if entry.id not in self._futures:
                continue  # its sender gave up while an earlier one went out
            if len(entry.data) > self.outbox.limits.frame_bytes:
                self.outbox.remove(entry)
                self._fail(entry, _too_large(entry, self.outbox.limits.frame_bytes))
            else:
                await socket.send(entry.data, text=True)
        while self._told:
            await socket.send(self._told.popleft(), text=True)

    async def _next_turn(self) -> None:
        due = self.outbox.next_due()
        wait_s = None if due is None else max(due - time.monotonic(), 0)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def disconnected(self) -> None:
        """Note that what was sent and not answered has to be sent again."""
        self.outbox.disconnected()
        self.lost_at = time.monotonic()

    def stop(self, error: ClientError) -> None:
        """Fail every request, now and later, with `error`."""
        if self.stopped is None:
            self.stopped = error
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)


def _checked(frame: Request, number: int | None) -> bytes:
    """Encode a request, and look at it with the server's own eyes before it leaves."""
    if number is not None and hasattr(frame, "id"):
        frame.id = number
    try:
        data = encode(frame)
        decode_request(data)
    except UnicodeEncodeError as error:
        raise InvalidRequest("invalid", f"text that cannot be written as UTF-8: {error}") from None
    except BadFrame as error:
        raise InvalidRequest(error.code, error.message) from None
    return data


def _too_large(entry: Entry, limit: int) -> TooLarge:
    message = f"the message takes {len(entry.data)} bytes, the server allows {limit}"
    return TooLarge("too_large", message, client_id=entry.client_id)
