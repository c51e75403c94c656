"""A server of several that is cut off from the others: JetStream no longer answers on it.

Clients that reach it see a connection that lives. It has to be left for another server, and all
connections of a process that are there have to leave it, also those that only listen.
"""

import asyncio
from collections.abc import Callable

DOUBT_S = 10.0
"""Longer than the servers take to elect a leader."""


class Silence:
    """For how long JetStream has answered nothing on a connection."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._at = 0.0

    def end(self) -> None:
        """It answered."""
        self._since = None

    def goes_on(self, waited_s: float) -> bool:
        """It did not, for `waited_s`; whether this is so for `DOUBT_S` now."""
        now = asyncio.get_running_loop().time()
        if self._since is None or now - self._at > DOUBT_S:
            self._since = now - waited_s
        self._at = now
        if now - self._since < DOUBT_S:
            return False
        self._since = None
        return True


class Doubts:
    """Shared by the connections of a process: when one leaves a server in doubt, all do."""

    def __init__(self) -> None:
        self._leaving: list[Callable[[str], None]] = []

    def join(self, leave: Callable[[str], None]) -> None:
        """`leave` is told the server."""
        self._leaving.append(leave)

    def leave(self, server: str) -> None:
        """The server is in doubt: whoever is connected to it leaves."""
        for each in self._leaving:
            each(server)
