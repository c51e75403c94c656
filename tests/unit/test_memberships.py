"""Questions about groups: few of them, and no answer of before the question."""

import asyncio
from typing import Any, cast

import pytest

from broker import events, subjects
from broker.directory import Chats, Memberships
from edge.hub import Hub, User
from edge.memberships import MembershipReader
from edge.rates import TokenBucket
from tests.servers import eventually

pytestmark = pytest.mark.anyio

CHAT = subjects.group("g")


class Directory:
    """Reads at once, and answers when it is let; `room` is for how many users it has room."""

    def __init__(self, room: int = 200) -> None:
        self.members: set[str] = set()
        self.room = room
        self.asked: list[list[str]] = []
        self.answering = asyncio.Event()

    async def ask(self, question: Chats) -> Memberships:
        self.asked.append(question.users)
        found = question.users[: self.room]
        groups: Any = {user: {"g": "group"} if user in self.members else {} for user in found}
        await self.answering.wait()
        return Memberships(groups=groups)


class Device:
    """What the hub needs of a session."""

    vip = False
    opened: frozenset[str] = frozenset()
    user: User

    def __init__(self) -> None:
        self.got: list[int] = []

    def deliver(self, seq: int, _: bytes) -> None:
        self.got.append(seq)


async def test_who_comes_back_after_a_join_is_not_given_the_answer_of_before() -> None:
    directory, hub = Directory(), Hub()
    reader = MembershipReader(directory.ask)
    first, second = Device(), Device()

    async def opened(device: Device) -> None:
        device.user = hub.attach(cast(Any, device), "alice", TokenBucket(1, 1, 0))
        hub.set_groups(device.user, await reader.groups_of("alice"))

    opening = [asyncio.create_task(opened(first))]
    await eventually(lambda: len(directory.asked) == 1)
    hub.detach(cast(Any, first), first.user)
    directory.members.add("alice")
    joined = events.MemberAdded(
        chat_id=CHAT, group_id="g", by="bob", users=["alice"], name="g", kind="group", size=2
    )
    hub.on_event(1, subjects.user("alice"), events.encode(joined))
    opening.append(asyncio.create_task(opened(second)))
    directory.answering.set()
    await asyncio.gather(*opening)
    hub.on_event(2, CHAT, b'{"type":"group_chat","id":"1"}')
    assert second.user.groups == {CHAT: "group"}
    assert (first.got, second.got) == ([], [2])
    await reader.close()


async def test_who_comes_while_a_question_is_open_is_in_the_next_one() -> None:
    directory = Directory()
    reader = MembershipReader(directory.ask)
    asking = [asyncio.create_task(reader.groups_of("alice"))]
    await eventually(lambda: len(directory.asked) == 1)
    later = ["alice", "bob", "bob", "carol"]
    asking += [asyncio.create_task(reader.groups_of(user)) for user in later]
    directory.answering.set()
    assert await asyncio.gather(*asking) == [{}] * 5
    assert directory.asked == [["alice"], ["alice", "bob", "carol"]]
    await reader.close()


async def test_who_found_no_room_in_an_answer_is_asked_for_again() -> None:
    directory = Directory(room=1)
    directory.members.add("bob")
    reader = MembershipReader(directory.ask)
    asking = [asyncio.create_task(reader.groups_of(user)) for user in ("alice", "bob")]
    directory.answering.set()
    assert await asyncio.gather(*asking) == [{}, {CHAT: "group"}]
    assert directory.asked == [["alice", "bob"], ["bob"]]
    await reader.close()


async def test_a_failure_is_everyones_who_asked() -> None:
    async def fail(_: Chats) -> Memberships:
        raise RuntimeError("no answer")

    reader = MembershipReader(fail)
    asking = [asyncio.create_task(reader.groups_of("alice")) for _ in range(2)]
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(each) for each in found] == ["no answer"] * 2
    await reader.close()
