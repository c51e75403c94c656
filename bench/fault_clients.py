"""Clients that come back: senders that repeat what has no ack, receivers that resume by cursor.

They wait 50 to 250 ms before each attempt to connect and take the edges in turn, so that the times
measured are the server's, not those of a client's backoff.
"""

import asyncio
import random
import time
from typing import Any

from . import messages
from .client import Client, Closed
from .scenario import Target
from .wire import WireError

Key = tuple[int, int]
PAUSE_S = (0.05, 0.25)


class Journal:
    """What happened: the messages by sender and number, and every arrival with its delay."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked: set[Key] = set()
        self.delivered: set[Key] = set()
        self.refused: list[str] = []
        self.told: set[Key] = set()
        self.repeats = 0
        self.doubled = 0
        self.out_of_order = 0
        self.overtaken = 0
        self.unrecovered = 0
        self.arrivals: list[tuple[int, int]] = []
        self.closes: dict[int, int] = {}


class Peer:
    """One user that connects again whenever the connection ends."""

    def __init__(self, user: str, target: Target, edge: int, journal: Journal) -> None:
        self.user = user
        self.journal = journal
        self.client: Client | None = None
        self._target = target
        self._edge = edge
        self._stop = asyncio.Event()
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until `stop`."""
        while not self._stop.is_set():
            client = self.make()
            try:
                await client.open(self._target.edge(self._edge), self._target.secret)
            except (OSError, Closed, WireError, TimeoutError):
                await self._pause()
                continue
            self.client = client
            self.opened(client)
            self.connected.set()
            stopped = asyncio.ensure_future(self._stop.wait())
            either: set[asyncio.Future[Any]] = {client.closed, stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            self.connected.clear()
            if client.closed.done():
                code = client.closed.result().code
                self.journal.closes[code] = self.journal.closes.get(code, 0) + 1
                await self._pause()
            client.close()

    def stop(self) -> None:
        """Leave."""
        self._stop.set()

    def make(self) -> Client:
        """A client for the next connection."""
        raise NotImplementedError

    def opened(self, client: Client) -> None:
        """A connection has been welcomed."""

    async def _pause(self) -> None:
        self._edge += 1
        await asyncio.sleep(random.uniform(*PAUSE_S))


class Sender(Peer):
    """Keeps what has no ack; sends it again, in order, on a new connection and after an error."""

    def __init__(self, index: int, run: str, to: str, target: Target, journal: Journal) -> None:
        super().__init__(f"fs{index}-{run}", target, 0, journal)
        self.index = index
        self.unacked: dict[int, bytes] = {}
        self._template = messages.Template(run, index, to=to)
        self._next = 0
        self._holding = False

    def make(self) -> Client:
        """A client that reports acks and errors here."""
        return _SenderClient(self)

    def opened(self, client: Client) -> None:
        """Send again everything without an ack."""
        self._holding = False
        for frame in self.unacked.values():
            client.send(frame)

    def say(self, due_ns: int) -> None:
        """A new message: sent now if connected and not waiting after an error."""
        frame = self._template.frame(self._next, due_ns)
        self.unacked[self._next] = frame
        self._next += 1
        self.journal.sent += 1
        client = self.client
        if client is not None and not client.closed.done() and not self._holding:
            client.send(frame)

    def ack(self, number: int) -> None:
        """A message is on disk."""
        if self.unacked.pop(number, None) is not None:
            self.journal.acked.add((self.index, number))

    def refused(self, client: Client, fields: dict[str, Any]) -> None:
        """An error: hold everything back, then send it all again; or give the message up."""
        if not fields.get("retryable"):
            self.journal.refused.append(f"{fields.get('code')}: {fields.get('message')}")
            self.unacked.pop(_number(fields), None)
            return
        # Told to send it again, it may come after what was sent behind it and was taken.
        self.journal.told.add((self.index, _number(fields)))
        if not self._holding:
            self._holding = True
            wait_s = float(fields.get("retry_after_ms") or 200) / 1e3
            asyncio.get_running_loop().call_later(wait_s, self._again, client)

    def _again(self, client: Client) -> None:
        if client is self.client and self._holding and not client.closed.done():
            self.opened(client)


class _SenderClient(Client):
    def __init__(self, sender: Sender) -> None:
        super().__init__(sender.user)
        self._sender = sender

    def other(self, fields: dict[str, Any]) -> None:
        if fields.get("type") == "ack":
            self._sender.ack(_number(fields))

    def refused(self, fields: dict[str, Any]) -> None:
        self._sender.refused(self, fields)


def _number(fields: dict[str, Any]) -> int:
    return int(str(fields.get("client_id")).rpartition("-")[2])


class Receiver(Peer):
    """Keeps a cursor, drops what it has by id, checks the order."""

    def __init__(self, index: int, run: str, target: Target, journal: Journal) -> None:
        super().__init__(f"fr{index}-{run}", target, 1, journal)
        self._epoch = ""
        self._highest = 0
        self._newest = -1
        self._ids: set[str] = set()

    def make(self) -> Client:
        """A client that resumes after the last event seen."""
        cursor = f"{self._epoch}:{self._highest}" if self._epoch else None
        return _ReceiverClient(self, cursor)

    def opened(self, client: Client) -> None:
        """Take the first connection's cursor as the beginning."""
        if not self._epoch:
            self._epoch, _, seq = str(client.welcome["cursor"]).partition(":")
            self._highest = int(seq)

    def event(self, fields: dict[str, Any]) -> None:
        """A chat event, new or not."""
        now, name, seq = time.monotonic_ns(), str(fields["id"]), int(fields["seq"])
        if name in self._ids:
            self.journal.repeats += 1
            return
        self._ids.add(name)
        self.journal.out_of_order += seq <= self._highest
        self._highest = max(self._highest, seq)
        body = f'"content":"{fields["content"]}"'.encode()
        key = (messages.sender(body, 0), messages.number(body, 0))
        self.journal.doubled += key in self.journal.delivered
        self.journal.overtaken += key[1] < self._newest and key not in self.journal.told
        self._newest = max(self._newest, key[1])
        self.journal.delivered.add(key)
        self.journal.arrivals.append((now, now - messages.due_ns(body, 0)))


class _ReceiverClient(Client):
    def __init__(self, receiver: Receiver, cursor: str | None) -> None:
        super().__init__(receiver.user, cursor=cursor)
        self._receiver = receiver

    def other(self, fields: dict[str, Any]) -> None:
        if fields.get("type") == "chat":
            self._receiver.event(fields)
        elif fields.get("type") == "caught_up" and not fields.get("recovered", True):
            self._receiver.journal.unrecovered += 1
