"""A note and a push for tests of providers, and a client that trusts the test authority."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.notify import Address
from workers.push.guard import Guard
from workers.push.http import Http
from workers.push.provider import Note, Push

TIMEOUT_S = 2.0
LOOPBACK = Guard(["127.0.0.0/8"])

NOTE = Note(
    user="bob",
    device="phone",
    chat_id="dm.alice.bob",
    chat_kind="dm",
    chat_name="",
    message_id="123",
    seq=7,
    sender="alice",
    content="hello 你好",
    content_type="text",
    timestamp=1_700_000_000_000,
    mention=False,
    badge=3,
    unread=2,
)


def push(address: Address, note: Note = NOTE) -> Push:
    return Push("123/phone/bob", "collapse-collapse-collap", address, 1, note, 3600)


@asynccontextmanager
async def http(guard: Guard | None = None) -> AsyncIterator[Http]:
    async with Http(guard, connections=20, timeout_s=TIMEOUT_S) as made:
        yield made
