"""Has every NATS server of the site read its configuration again, over its system account."""

import asyncio
from contextlib import suppress

import msgspec
from msgspec import Struct

from broker.bus import Bus, Reply, publication
from broker.config import BrokerConfig
from broker.errors import Unavailable
from broker.roles import ADMIN

from .errors import UserError

CONNECT_S = 5.0
ANSWER_S = 5.0
QUIET_S = 0.5

PING = "$SYS.REQ.SERVER.PING"


class _Server(Struct):
    id: str
    name: str


class _Error(Struct):
    description: str = ""


class _Answer(Struct):
    server: _Server
    error: _Error | None = None


async def reload(config: BrokerConfig) -> None:
    """Tell all servers that answer. Raises `UserError` if one does not take its configuration.

    `config` says where they are and has the operator's password.
    """
    as_admin = msgspec.structs.replace(config, role=ADMIN)
    async with Bus(as_admin, name="reload") as bus:
        await bus.wait_connected(CONNECT_S)
        for server in await _servers(bus):
            subject = f"$SYS.REQ.SERVER.{server.id}.RELOAD"
            reply = await bus.request(subject, timeout_s=ANSWER_S)
            answer = msgspec.json.decode(reply.data, type=_Answer)
            if answer.error is not None:
                why = answer.error.description
                raise UserError(f"the NATS server {server.name} does not take it: {why}")


async def _servers(bus: Bus) -> list[_Server]:
    """Whoever answers; the last of them has been quiet for `QUIET_S`."""
    answers: asyncio.Queue[Reply | None] = asyncio.Queue()
    found: dict[str, _Server] = {}
    number, inbox = bus.expect(answers.put_nowait)
    try:
        bus.write(publication(PING, b"", reply=inbox))
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET_S if found else ANSWER_S):
                    reply = await answers.get()
                if reply is None or reply.status == 503:
                    break
                server = msgspec.json.decode(reply.data, type=_Answer).server
                found[server.id] = server
    finally:
        bus.forget(number)
    if not found:
        raise Unavailable(f"no NATS server at {bus.address} answers its administrator")
    return list(found.values())
