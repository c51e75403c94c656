"""Sends and questions against a scripted server: order, retries, deadlines, cancellation."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection

from client import Ack, Client, errors
from client.sender import Sender
from edge.frames import (
    Chat,
    GroupAdd,
    GroupChat,
    GroupCreate,
    GroupInfo,
    GroupJoin,
    GroupLeave,
    GroupMembers,
    GroupRemove,
    GroupUpdate,
    Limits,
    Request,
    Result,
    Typing,
)

from .test_client_server import Link, ScriptedServer, eventually
from .test_client_server import short_waits as short_waits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]

GROUP = {"group_id": "g1", "chat_id": "group.g1", "name": "Team", "kind": "group", "version": 3}


@asynccontextmanager
async def online(**options: Any) -> AsyncIterator[tuple[ScriptedServer, Client, Link]]:
    async with ScriptedServer() as server:
        client = Client(server.url, "t", **options)
        await client.start()
        link = await server.online()
        await eventually(lambda: client.state.phase == "online")
        try:
            yield server, client, link
        finally:
            await client.close()


def send(client: Client, content: str, to: str = "bob", **options: Any) -> asyncio.Task[Ack]:
    return asyncio.create_task(client.send(to, content, **options))


async def nothing_comes(link: Link) -> None:
    """Ask something of its own and see that its answer is the next frame from the client."""
    pong = await link.socket.ping()
    async with asyncio.timeout(5):
        await pong
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await link.socket.recv()


async def test_a_send_gives_the_ack() -> None:
    async with online() as (_, client, link):
        sending = send(client, "hi", reply_to="5", attachments=["f"], mentions=["carol"])
        frame = await link.receive(Chat)
        assert (frame.to, frame.content, frame.reply_to) == ("bob", "hi", "5")
        assert (frame.attachments, frame.mentions) == (["f"], ["carol"])
        await link.ack(frame, seq=7, duplicate=True)
        ack = await sending
        assert (ack.seq, ack.duplicate, ack.client_id) == (7, True, frame.client_id)


async def test_a_group_message_goes_to_the_group() -> None:
    async with online() as (_, client, link):
        sending = asyncio.create_task(client.send_group("g1", "hi", client_id="mine"))
        frame = await link.receive(GroupChat)
        assert (frame.group_id, frame.content, frame.client_id) == ("g1", "hi", "mine")
        await link.ack(frame, seq=8)
        assert (await sending).seq == 8


async def test_after_a_cut_all_is_sent_again_in_order_under_the_same_names() -> None:
    async with online() as (server, client, link):
        tasks = [send(client, text) for text in ("one", "two", "three")]
        tasks.append(send(client, "other", to="carol"))
        first, other = await link.receive(Chat), await link.receive(Chat)
        assert (first.content, other.content) == ("one", "other")
        link.cut()
        link = await server.online()
        again, other_again = await link.receive(Chat), await link.receive(Chat)
        assert (again.client_id, other_again.client_id) == (first.client_id, other.client_id)
        await link.ack(other_again, seq=1)
        await link.ack(again, seq=2, duplicate=True)
        for seq, text in ((3, "two"), (4, "three")):
            frame = await link.receive(Chat)
            assert frame.content == text
            await link.ack(frame, seq=seq)
        assert [(await task).seq for task in tasks] == [2, 3, 4, 1]


@pytest.mark.parametrize("code", ["rate_limited", "overloaded", "unavailable", "timeout"])
async def test_nothing_overtakes_a_message_that_is_tried_again(code: str) -> None:
    async with online() as (_, client, link):
        one, two = send(client, "one"), send(client, "two")
        first = await link.receive(Chat)
        await link.refuse(first, code, retry_after_ms=50)
        started = time.monotonic()
        again = await link.receive(Chat)
        assert (again.content, again.client_id) == ("one", first.client_id)
        assert time.monotonic() - started > 0.03
        await link.ack(again, seq=1)
        assert (await one).seq == 1
        await link.ack(await link.receive(Chat), seq=2)
        assert (await two).seq == 2


async def test_sends_before_the_connection_wait_for_it() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        sending = send(client, "early")
        link = await server.accept()
        await nothing_comes(link)
        await link.welcome()
        await link.ack(await link.receive(Chat), seq=1)
        assert (await sending).seq == 1
        await client.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_frame", errors.InvalidRequest),
        ("invalid", errors.InvalidRequest),
        ("too_large", errors.TooLarge),
        ("unauthorized", errors.NotAllowed),
        ("forbidden", errors.NotAllowed),
        ("not_member", errors.NotMember),
        ("not_found", errors.NotFound),
        ("conflict", errors.Conflict),
        ("duplicate_group", errors.DuplicateGroup),
        ("group_full", errors.GroupFull),
        ("internal", errors.ServerError),
        ("from_the_future", errors.ServerError),
    ],
)
async def test_each_code_has_its_error(code: str, kind: type[errors.RequestFailed]) -> None:
    async with online() as (_, client, link):
        sending = send(client, "hi", expect_seq=4)
        frame = await link.receive(Chat)
        assert frame.expect_seq == 4
        await link.refuse(frame, code, seq=6)
        with pytest.raises(kind) as caught:
            await sending
        assert type(caught.value) is kind
        assert (caught.value.code, caught.value.seq, caught.value.retryable) == (code, 6, False)
        assert caught.value.client_id == frame.client_id


async def test_at_its_deadline_a_send_says_what_is_known() -> None:
    async with online() as (_, client, link):
        silent = send(client, "no answer", deadline_s=0.2)
        behind = send(client, "never sent", deadline_s=0.1)
        await link.receive(Chat)
        with pytest.raises(errors.SendTimeout) as unsent:
            await behind
        assert not unsent.value.sent
        with pytest.raises(errors.SendTimeout, match="unknown") as unknown:
            await silent
        assert unknown.value.sent
        assert unknown.value.client_id
        refused = send(client, "refused", deadline_s=0.3)
        await link.refuse(await link.receive(Chat), "overloaded", retry_after_ms=100)
        await link.receive(Chat)
        with pytest.raises(errors.Overloaded):
            await refused
        too_long = send(client, "limited", deadline_s=5)
        await link.refuse(await link.receive(Chat), "rate_limited", retry_after_ms=9000)
        with pytest.raises(errors.RateLimited) as limited:
            await too_long
        assert limited.value.retry_after_s == 9


async def test_cancellation_while_sending() -> None:
    async with online() as (_, client, link):
        first, second, third = (send(client, text) for text in ("one", "two", "three"))
        frame = await link.receive(Chat)
        second.cancel()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        last = await link.receive(Chat)
        assert last.content == "three"
        await link.ack(frame, seq=1)
        await link.ack(last, seq=2)
        assert (await third).seq == 2


async def test_cancellation_at_the_moment_of_the_error() -> None:
    async with online() as (_, client, link):
        sending = send(client, "one")
        await link.refuse(await link.receive(Chat), "invalid")
        sending.cancel()
        with pytest.raises((asyncio.CancelledError, errors.InvalidRequest)):
            await sending


class StuckSocket:
    """Takes one frame and then waits until it is let go."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.free = asyncio.Event()

    async def send(self, data: bytes, *, text: bool) -> None:
        self.sent.append(data)
        await self.free.wait()


async def test_what_was_given_up_while_an_earlier_one_went_out_is_not_sent() -> None:
    sender, socket = Sender(10), StuckSocket()
    tasks = [
        asyncio.create_task(
            sender.request(Chat(client_id=f"c{n}", to=f"u{n}", content="hi"), deadline_s=5)
        )
        for n in range(3)
    ]
    await asyncio.sleep(0)
    pumping = asyncio.create_task(sender.pump(cast(ClientConnection, socket)))
    await eventually(lambda: len(socket.sent) == 1)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    socket.free.set()
    await eventually(lambda: len(socket.sent) == 2)
    for task in (pumping, *tasks):
        task.cancel()
    await asyncio.wait([pumping, *tasks])
    assert b'"u0"' in socket.sent[0]
    assert b'"u2"' in socket.sent[1]


async def test_a_full_outbox_is_said_at_once() -> None:
    async with online(outbox_size=2) as (_, client, link):
        tasks = [send(client, "one"), send(client, "two")]
        await link.receive(Chat)
        with pytest.raises(errors.OutboxFull):
            await client.send("bob", "three")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_what_the_server_would_not_take_never_leaves() -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, "t")
        await client.start()
        link = await server.accept()
        await link.welcome(limits=Limits(frame_bytes=500))
        with pytest.raises(errors.InvalidRequest, match="length"):
            await client.send("", "hi")
        with pytest.raises(errors.InvalidRequest, match="UTF-8"):
            await client.send("bob", "\ud800")
        with pytest.raises(errors.TooLarge):
            await client.send("bob", "x" * 500)
        with pytest.raises(errors.InvalidRequest):
            await client.typing()
        sending = send(client, "fits", client_id="c1")
        frame = await link.receive(Chat)
        assert frame.content == "fits"
        with pytest.raises(errors.InvalidRequest, match="already"):
            await client.send("bob", "again", client_id="c1")
        sending.cancel()
        await client.close()


async def test_typing_is_sent_now_and_then_and_never_later() -> None:
    async with online() as (server, client, link):
        for _ in range(3):
            await client.typing(to="bob")
        await client.typing(group_id="g1")
        assert (await link.receive(Typing)).to == "bob"
        assert (await link.receive(Typing)).group_id == "g1"
        await nothing_comes(link)
        await link.close(4101)
        await eventually(lambda: client.state.phase != "online")
        await client.typing(to="carol")
        link = await server.online()
        await nothing_comes(link)


QUESTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Any]]] = [
    ("create_group", ("Team", ["bob"]), {"group_id": "g1", "kind": "channel"}, GroupCreate),
    ("add_members", ("g1", ["bob"]), {}, GroupAdd),
    ("remove_members", ("g1", ["bob"]), {}, GroupRemove),
    ("join", ("g1",), {}, GroupJoin),
    ("group_info", ("g1",), {}, GroupInfo),
    ("update_group", ("g1",), {"name": "Team", "roles": {"bob": "admin"}}, GroupUpdate),
]


@pytest.mark.parametrize(("method", "args", "options", "kind"), QUESTIONS)
async def test_questions_about_groups(
    method: str, args: tuple[Any, ...], options: dict[str, Any], kind: type[Any]
) -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(getattr(client, method)(*args, **options))
        frame = await link.receive(kind)
        await link.send(Result(id=frame.id, group=GROUP))
        group = await asking
        assert (group.group_id, group.name, group.version) == ("g1", "Team", 3)


async def test_members_come_in_pages() -> None:
    async with online() as (_, client, link):
        asking = asyncio.create_task(client.members("g1", after="a", limit=2))
        frame = await link.receive(GroupMembers)
        assert (frame.group_id, frame.after, frame.limit) == ("g1", "a", 2)
        rows = [{"user_id": "b", "role": "owner"}, {"user_id": "c", "role": "member"}]
        await link.send(Result(id=frame.id, members=rows, more=True))
        page = await asking
        assert [(member.user_id, member.role) for member in page.members] == [
            ("b", "owner"),
            ("c", "member"),
        ]
        assert page.more


async def test_a_question_is_asked_again_after_a_cut() -> None:
    async with online() as (server, client, link):
        creating = asyncio.create_task(client.create_group("Team"))
        first = await link.receive(GroupCreate)
        link.cut()
        link = await server.online()
        again = await link.receive(GroupCreate)
        assert again.client_id == first.client_id
        await link.send(Result(id=again.id, group=GROUP))
        assert (await creating).name == "Team"


async def test_leaving_twice_because_of_a_cut_is_leaving() -> None:
    async with online() as (server, client, link):
        leaving = asyncio.create_task(client.leave("g1"))
        await link.receive(GroupLeave)
        link.cut()
        link = await server.online()
        await link.refuse(await link.receive(GroupLeave), "not_member")
        await leaving
        leaving = asyncio.create_task(client.leave("g1"))
        await link.refuse(await link.receive(GroupLeave), "not_member")
        with pytest.raises(errors.NotMember):
            await leaving


async def test_answers_that_make_no_sense_are_errors() -> None:
    async with online() as (_, client, link):
        asking: asyncio.Task[Request | Any] = asyncio.create_task(client.group_info("g1"))
        await link.send(Result(id=(await link.receive(GroupInfo)).id, group={"name": 5}))
        with pytest.raises(errors.ServerError):
            await asking
        sending = send(client, "hi")
        await link.send(Result(id=(await link.receive(Chat)).id))
        with pytest.raises(errors.ServerError):
            await sending
        asking = asyncio.create_task(client.group_info("g1"))
        await link.ack(await link.receive(GroupInfo), seq=1)
        with pytest.raises(errors.ServerError):
            await asking


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = [line.strip("│├└─ ").split()[0] for line in errors.__doc__.splitlines() if line[4:5]]
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ClientError)
    }
    assert set(kinds) <= set(drawn)
