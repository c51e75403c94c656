"""Presence and large channels: asked for again on each connection."""

import asyncio
from typing import Any

import pytest

from client import (
    Activity,
    CaughtUp,
    Client,
    ClientEvent,
    Presence,
    PresenceEvent,
    errors,
)
from edge.frames import (
    Close,
    Open,
    PresenceSet,
    PresenceSubscribe,
    PresenceUnsubscribe,
    Result,
)

from .test_client_sends import nothing_comes, online
from .test_client_server import Link, eventually
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

ONLINE: dict[str, Any] = {"status": "online", "text": "here", "last_seen": None}
OFFLINE: dict[str, Any] = {"status": "offline", "text": "", "last_seen": 5}


async def answer(link: Link, kind: type[Any], **fields: Any) -> Any:
    frame = await link.receive(kind)
    await link.send(Result(id=frame.id, **fields))
    return frame


async def news(client: Client) -> ClientEvent:
    """The next event that is no `CaughtUp`."""
    async with asyncio.timeout(10):
        while isinstance(event := await anext(client), CaughtUp):
            pass
    return event


async def test_users_are_watched_over_reconnects() -> None:
    async with online() as (server, client, link):
        watching = asyncio.create_task(client.watch(["bob", "carol", "zoe"]))
        views = {"bob": ONLINE, "carol": OFFLINE}
        assert (await answer(link, PresenceSubscribe, presence=views)).users[0] == "bob"
        assert await watching == {
            "bob": Presence(status="online", text="here"),
            "carol": Presence(status="offline", last_seen=5),
        }
        event = PresenceEvent(user_id="bob", status="away", text="", last_seen=None)
        await link.send(event)
        assert await news(client) == event

        leaving = asyncio.create_task(client.unwatch(["carol"]))
        assert (await answer(link, PresenceUnsubscribe, presence={})).users == ["carol"]
        await leaving
        link.cut()
        link = await server.online()
        again = await answer(link, PresenceSubscribe, presence={"bob": OFFLINE})
        assert again.users == ["bob", "zoe"]
        assert await news(client) == PresenceEvent(
            user_id="bob", status="offline", text="", last_seen=5
        )


async def test_many_users_are_watched_in_parts() -> None:
    async with online() as (_, client, link):
        watching = asyncio.create_task(client.watch(f"u{n}" for n in range(501)))
        first = await answer(link, PresenceSubscribe, presence={"u0": ONLINE})
        second = await answer(link, PresenceSubscribe, presence={"u500": ONLINE})
        assert (len(first.users), second.users) == (500, ["u500"])
        assert list(await watching) == ["u0", "u500"]


async def test_what_a_user_is_can_be_set() -> None:
    async with online() as (_, client, link):
        setting = asyncio.create_task(client.set_presence("dnd", "at work"))
        frame = await answer(link, PresenceSet, presence={"alice": ONLINE})
        assert (frame.status, frame.text) == ("dnd", "at work")
        await setting


async def test_large_channels_are_followed_over_reconnects() -> None:
    async with online() as (server, client, link):
        for chat_id in ("group.a", "group.b", "group.c"):
            opening = asyncio.create_task(client.open(chat_id))
            assert (await answer(link, Open)).chat_id == chat_id
            await opening
        closing = asyncio.create_task(client.close_chat("group.b"))
        assert (await answer(link, Close)).chat_id == "group.b"
        await closing
        await link.send(Activity(chat_id="group.b", seq=9))
        assert await news(client) == Activity(chat_id="group.b", seq=9)

        link.cut()
        link = await server.online()
        assert (await answer(link, Open)).chat_id == "group.a"
        await link.refuse(await link.receive(Open), "not_member")
        assert await news(client) == Activity(chat_id="group.a", seq=0)
        assert await news(client) == Activity(chat_id="group.c", seq=0)
        link.cut()
        link = await server.online()
        assert (await answer(link, Open)).chat_id == "group.a"
        await nothing_comes(link)


async def test_a_watch_that_fails_is_not_kept() -> None:
    async with online() as (server, client, link):
        watching = asyncio.create_task(client.watch(["bob"]))
        await link.refuse(await link.receive(PresenceSubscribe), "invalid")
        with pytest.raises(errors.InvalidRequest):
            await watching
        link.cut()
        await nothing_comes(await server.online())


async def test_following_is_tried_again_when_the_server_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client.following.AGAIN_AFTER_S", 0.05)
    async with online(deadline_s=0.3) as (server, client, link):
        opening = asyncio.create_task(client.open("group.a"))
        await answer(link, Open)
        await opening
        link.cut()
        link = await server.online()
        await link.refuse(await link.receive(Open), "unavailable", retry_after_ms=1000)
        await answer(link, Open)
        assert await news(client) == Activity(chat_id="group.a", seq=0)


async def test_what_was_missed_waits_for_a_place() -> None:
    async with online(inbox_size=1) as (server, client, link):
        watching = asyncio.create_task(client.watch(["bob", "carol"]))
        await answer(link, PresenceSubscribe, presence={"bob": ONLINE, "carol": ONLINE})
        await watching
        link.cut()
        link = await server.online()
        await answer(link, PresenceSubscribe, presence={"bob": OFFLINE, "carol": OFFLINE})
        await eventually(lambda: client.state.phase == "online")
        events = [await news(client), await news(client)]
        assert [getattr(event, "user_id", "") for event in events] == ["bob", "carol"]
