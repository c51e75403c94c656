"""Asks the directory which groups users are in: while one question is open, the next collects.

A single connect is asked for at once; when thousands come back together, each question is about
hundreds of users, so that a storm costs the directory little more than a breeze.
"""

import asyncio
from collections.abc import Awaitable, Callable

from broker import subjects
from broker.directory import Chats, Memberships

USERS_A_QUESTION = 200

LARGE = "large"
"""The kind of a channel that members open to follow it."""

Ask = Callable[[Chats], Awaitable[Memberships]]


class MembershipReader:
    """`groups_of` for many callers, as few questions as possible."""

    def __init__(self, ask: Ask):
        self._ask = ask
        self._waiting: dict[str, asyncio.Future[dict[str, str]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def groups_of(self, user_id: str) -> dict[str, str]:
        """Subject to kind of the user's groups, `large` for large channels. May raise."""
        future = self._waiting.get(user_id)
        if future is None:
            future = self._waiting[user_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="membership questions")
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Stop asking; whoever waits is cancelled."""
        for future in self._waiting.values():
            future.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._question(list(self._waiting)[:USERS_A_QUESTION])
        finally:
            self._task = None

    async def _question(self, users: list[str]) -> None:
        try:
            answer = await self._ask(Chats(users=users))
        except Exception as error:
            for user in users:
                future = self._waiting.pop(user)
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever waited may have gone
            return
        # The directory answers for as many as fit into one message; the others are asked again.
        large = dict.fromkeys(answer.large, LARGE)
        for user, groups in answer.groups.items():
            future = self._waiting.pop(user)
            if not future.done():
                future.set_result(
                    {subjects.group(gid): large.get(gid, kind) for gid, kind in groups.items()}
                )
