"""Asks the directory which groups users are in: while one question is open, the next collects.

A single connect is asked for at once; when thousands come back together, each question is about
hundreds of users, so that a storm costs the directory little more than a breeze.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from broker import subjects
from broker.directory import Chats, Memberships

USERS_A_QUESTION = 200

LARGE = "large"
"""The kind of a channel that members open to follow it."""

_Callers = dict[str, list[asyncio.Future[dict[str, str]]]]
Ask = Callable[[Chats], Awaitable[Memberships]]


class MembershipReader:
    """`groups_of` for many callers, as few questions as possible.

    Who comes while a question about the same user is on its way waits for the next one: the answer
    may be of before a change that this edge has seen, when nobody here wanted to know of it.
    """

    def __init__(self, ask: Ask):
        self._ask = ask
        self._waiting: _Callers = {}
        self._asked: _Callers = {}
        self._task: asyncio.Task[None] | None = None

    async def groups_of(self, user_id: str) -> dict[str, str]:
        """Subject to kind of the user's groups, `large` for large channels. May raise."""
        future: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="membership questions")
        return await future

    async def close(self) -> None:
        """Stop asking; whoever waits is cancelled."""
        for callers in (*self._waiting.values(), *self._asked.values()):
            for future in callers:
                future.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                users = list(self._waiting)[:USERS_A_QUESTION]
                self._asked = {user: self._waiting.pop(user) for user in users}
                await self._question(users)
        finally:
            self._task = None

    async def _question(self, users: list[str]) -> None:
        try:
            answer = await self._ask(Chats(users=users))
            found = {user: _by_subject(groups, answer) for user, groups in answer.groups.items()}
        except Exception as error:
            asked, self._asked = self._asked, {}
            for callers in asked.values():
                for future in callers:
                    if not future.done():
                        future.set_exception(error)
            return
        for user, kinds in found.items():
            for future in self._asked.pop(user, ()):
                if not future.done():
                    future.set_result(kinds)
        # The directory answers for as many as fit into one message; the others are asked again.
        left, self._asked = self._asked, {}
        for user, callers in left.items():
            self._waiting[user] = callers + self._waiting.get(user, [])


def _by_subject(groups: Mapping[str, str], answer: Memberships) -> dict[str, str]:
    large = dict.fromkeys(answer.large, LARGE)
    return {subjects.group(gid): large.get(gid, kind) for gid, kind in groups.items()}
