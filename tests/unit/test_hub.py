"""The hub against a model: whoever may see an event is handed it once, and nothing is left over."""

import random
from typing import Any, cast

import pytest

from broker import events, subjects
from edge.hub import Hub, User
from edge.rates import TokenBucket

USERS = ["alice", "bob", "a.b", "飛脚"]
GROUPS = ["g1", "g.2"]


class Seen:
    """Stands where a session stands: keeps what it is handed."""

    def __init__(self) -> None:
        self.user: User
        self.vip = False
        self.opened: frozenset[str] = frozenset()
        self.seqs: list[int] = []

    def deliver(self, seq: int, _: bytes) -> None:
        self.seqs.append(seq)


def membership(kind: type[Any], user: str, group: str) -> bytes:
    return events.encode(
        kind(
            chat_id=subjects.group(group),
            group_id=group,
            by=user,
            users=[user],
            name="n",
            kind="group",
            **({"size": 1} if "size" in kind.__struct_fields__ else {}),
        )
    )


class World:
    """A hub, and beside it what must be true of it."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.hub = Hub()
        self.seq = 0
        self.members: set[tuple[str, str]] = set()
        self.asked: dict[str, set[str]] = {}
        self.here: dict[Seen, str] = {}

    def come(self) -> None:
        user = self.random.choice(USERS)
        seen = Seen()
        seen.user = self.hub.attach(cast(Any, seen), user, TokenBucket(1, 1, 0))
        self.here[seen] = user
        if seen.user.groups is None and user not in self.asked:
            self.asked[user] = {group for name, group in self.members if name == user}

    def answered(self) -> None:
        """The directory's answer comes, about what was when it was asked."""
        for user, groups in list(self.asked.items()):
            del self.asked[user]
            present = self.hub.present(user)
            if present is not None:
                self.hub.set_groups(present, {subjects.group(group): "group" for group in groups})

    def go(self) -> None:
        if self.here:
            seen = self.random.choice(list(self.here))
            user = self.here.pop(seen)
            for _ in range(2):
                self.hub.detach(cast(Any, seen), seen.user)
            if user not in self.here.values():
                self.asked.pop(user, None)

    def change(self) -> None:
        user, group = self.random.choice(USERS), self.random.choice(GROUPS)
        if (user, group) in self.members:
            self.members.remove((user, group))
            self.event(subjects.user(user), membership(events.MemberRemoved, user, group), [user])
        else:
            self.members.add((user, group))
            self.event(subjects.user(user), membership(events.MemberAdded, user, group), [user])

    def dm(self) -> None:
        one, two = self.random.choice(USERS), self.random.choice(USERS)
        self.event(subjects.dm(one, two), b'{"type":"chat"}', [one, two])

    def tell(self) -> None:
        self.answered()
        group = self.random.choice(GROUPS)
        concerned = [user for user, name in self.members if name == group]
        self.event(subjects.group(group), b'{"type":"group_chat"}', concerned)

    def event(self, subject: str, stored: bytes, concerned: list[str]) -> None:
        self.seq += 1
        before = {seen: list(seen.seqs) for seen in self.here}
        self.hub.on_event(self.seq, subject, stored)
        for seen, user in self.here.items():
            expected = [self.seq] if user in concerned else []
            assert seen.seqs == before[seen] + expected, (subject, user)


@pytest.mark.parametrize("seed", range(30))
def test_everyone_concerned_is_handed_each_event_once(seed: int) -> None:
    world = World(seed)
    for _ in range(300):
        world.random.choice(
            [world.come, world.go, world.change, world.dm, world.tell, world.answered]
        )()
        assert world.hub.sessions == len(world.here)
        assert set(cast(Any, world.hub.all_sessions())) == set(world.here)
    while world.here:
        world.go()
    assert world.hub.sessions == 0
    assert world.hub._users == {}
    assert world.hub._groups == {}


def test_typing_is_limited_for_each_chat_and_forgets() -> None:
    user = User("alice", TokenBucket(1, 1, 0))
    assert user.may_type("dm.a.b", 10.0, 3.0)
    assert not user.may_type("dm.a.b", 12.9, 3.0)
    assert user.may_type("dm.a.c", 12.9, 3.0)
    assert user.may_type("dm.a.b", 13.0, 3.0)
    for number in range(10_000):
        user.may_type(f"dm.a.{number}", 100.0, 3.0)
    assert len(user.typed_at) <= 256
    assert user.may_type("dm.a.x", 104.0, 3.0)
    assert len(user.typed_at) < 10
