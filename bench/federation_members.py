"""Members of groups at several sites: they write, and keep what they are delivered, in order."""

import asyncio
import time
from typing import Any

from . import messages
from .client import Client
from .fault_clients import Journal, Peer
from .offices import Site

HOMES = ("tokyo", "osaka")
"""The sites at which a group lives."""

OF_A_SITE = 2

Key = tuple[str, int, int]
"""A group's home, the sender, the number of the message."""


class Member(Peer):
    """Writes into all groups, and keeps what it is delivered, in order, through all connections."""

    def __init__(self, site: Site, index: int, run: str) -> None:
        super().__init__(f"m{index}-{run}", site.target, index, Journal())
        self.site = site.name
        self.address = site.target.edge(index)
        self.secret = site.target.secret
        self.index = index
        self.run_id = run
        self.view: dict[str, list[Key]] = {home: [] for home in HOMES}
        self.unacked: dict[Key, bytes] = {}
        self.acked: set[Key] = set()
        self.heard_others: list[float] = []
        self.groups: set[str] = set()
        self.disordered = 0
        self.again: set[Key] = set()
        self.void = 0
        self._templates: dict[str, messages.Template] = {}
        self._epoch = ""
        self._highest = 0
        self._ids: set[str] = set()
        self._next = 0
        self._holding = False

    def group(self, home: str) -> str:
        """What the group that lives at `home` is called here."""
        name = f"g-{home}-{self.run_id}"
        return name if home == self.site else f"{name}@{home}"

    async def knows_all(self) -> bool:
        """Whether it was told that it is in all groups."""
        return self.groups >= {self.group(home) for home in HOMES}

    def make(self) -> Client:
        """A client that goes on after the last event seen."""
        return _MemberClient(self, f"{self._epoch}:{self._highest}" if self._epoch else None)

    def opened(self, client: Client) -> None:
        """Send again what has no ack."""
        epoch, _, seq = str(client.welcome["cursor"]).partition(":")
        if not self._epoch:
            self._highest = int(seq)
        self._epoch = epoch
        self._holding = False
        for frame in list(self.unacked.values()):
            client.send(frame)

    def say(self) -> None:
        """One new message into each group in turn."""
        home = HOMES[self._next % len(HOMES)]
        if home not in self._templates:
            self._templates[home] = messages.Template(
                f"{self.run_id}-{home}", self.index, group_id=self.group(home)
            )
        key = (home, self.index, self._next)
        frame = self._templates[home].frame(self._next, time.monotonic_ns())
        self._next += 1
        self.unacked[key] = frame
        client = self.client
        if client is not None and not client.closed.done() and not self._holding:
            client.send(frame)

    def answered(self, client: Client, fields: dict[str, Any]) -> None:
        """An ack or an error."""
        home, _, number = str(fields.get("client_id")).split("-")[1:]
        key = (home, self.index, int(number))
        if fields["type"] == "ack":
            if self.unacked.pop(key, None) is not None:
                self.acked.add(key)
            return
        self.again.add(key)
        if not fields.get("retryable"):
            self.journal.refused.append(f"{fields.get('code')}: {fields.get('message')}")
            self.unacked.pop(key, None)
        elif not self._holding:
            self._holding = True
            wait_s = float(fields.get("retry_after_ms") or 200) / 1e3
            asyncio.get_running_loop().call_later(wait_s, self._send_again, client)

    def _send_again(self, client: Client) -> None:
        if client is self.client and self._holding and not client.closed.done():
            self.opened(client)

    def event(self, fields: dict[str, Any]) -> None:
        """An event of the log, new or not."""
        seq, name = int(fields["seq"]), str(fields["id"])
        if name in self._ids:
            return
        self._ids.add(name)
        self.disordered += seq <= self._highest
        self._highest = max(self._highest, seq)
        content = str(fields.get("content") or "")
        if not content.startswith("~"):
            return
        body = f'"content":"{content}"'.encode()
        sender = messages.sender(body, 0)
        home = str(fields["group_id"]).split("-")[1]
        self.view[home].append((home, sender, messages.number(body, 0)))
        if sender // OF_A_SITE != self.index // OF_A_SITE:
            self.heard_others.append(time.monotonic())


class _MemberClient(Client):
    def __init__(self, member: Member, cursor: str | None) -> None:
        super().__init__(member.user, cursor=cursor)
        self._member = member

    def other(self, fields: dict[str, Any]) -> None:
        match fields.get("type"):
            case "ack":
                self._member.answered(self, fields)
            case "write_refused":
                self._member.void += 1
            case "member_added":
                self._member.groups.add(str(fields["group_id"]))
            case "group_chat":
                self._member.event(fields)

    def refused(self, fields: dict[str, Any]) -> None:
        self._member.answered(self, fields)
