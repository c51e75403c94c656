"""Who is there: workers answer a ping, edges say in their lease how many connections they have.

A ping goes to every process of a worker, on `svc.<worker>.ping`; the answers of half a second
count. An edge answers nobody: its lease tells, at most a third of `HIKYAKU_PRESENCE_LEASE_S` old.
"""

import asyncio
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

import msgspec
from msgspec import Struct

from . import lease
from .bus import Bus, Reply, publication
from .errors import BrokerError, Refused
from .log import Log
from .subjects import service

ANSWERS_S = 0.5
PING = "ping"


class Worker(Struct, kw_only=True):
    """A worker process. `started` is Unix seconds by its own clock.

    `waits` is why it does not work yet; empty when it does.
    """

    worker: str
    host: str
    pid: int
    started: float
    waits: str = ""


class Edge(Struct, kw_only=True):
    """An edge that holds a lease: its id, and what it said when it renewed it.

    `machine` is its number for message ids, `files` its limit of open files. -1: it did not say.
    """

    edge: str = ""
    host: str = ""
    connections: int = -1
    machine: int = -1
    files: int = -1


class Alive:
    """Answers pings for one process of a worker. Use as a context manager."""

    def __init__(self, bus: Bus, worker: str):
        self._bus = bus
        self._worker = Worker(
            worker=worker, host=socket.gethostname(), pid=os.getpid(), started=time.time()
        )

    def waits(self, why: str) -> None:
        """What it waits for; empty when it works."""
        self._worker.waits = why

    async def __aenter__(self) -> "Alive":
        self._sid = self._bus.subscribe(service(self._worker.worker, PING), self._answer)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.unsubscribe(self._sid)

    def _answer(self, _: bytes, reply: bytes, _header: bytes | None, _data: bytes) -> None:
        with suppress(BrokerError):
            self._bus.publish(reply.decode(), msgspec.json.encode(self._worker))


async def workers(bus: Bus, names: Iterable[str]) -> list[Worker]:
    """The processes of these workers that answer in half a second. Raises `Unavailable`."""
    found: list[Worker] = []

    def on_reply(reply: Reply | None) -> None:
        if reply is not None and not reply.status:
            found.append(msgspec.json.decode(reply.data, type=Worker))

    number, inbox = bus.expect(on_reply)
    try:
        bus.write(b"".join(publication(service(n, PING), b"", reply=inbox) for n in names))
        await asyncio.sleep(ANSWERS_S)
    finally:
        bus.forget(number)
    return sorted(found, key=lambda each: (each.worker, each.host, each.pid))


async def edges(bus: Bus) -> list[Edge]:
    """The edges that hold a lease. Raises `Unavailable`."""
    prefix = f"$KV.{lease.BUCKET}."
    page = await Log(bus, stream=f"KV_{lease.BUCKET}").snapshot([f"{prefix}*"])
    if page is None:
        raise Refused(0, "over 1,024 edges hold a lease")
    found = []
    for each in page.events:
        if each.data and not each.subject.startswith(f"{prefix}{lease.FOR_SITE}"):
            try:
                edge = msgspec.json.decode(each.data, type=Edge)
            except msgspec.ValidationError:  # an edge of an older version
                edge = Edge()
            edge.edge = each.subject.removeprefix(prefix)
            found.append(edge)
    return sorted(found, key=lambda each: each.edge)
