"""The token: given once, or fetched by a function of the application."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from .errors import TokenSourceFailed, Unauthorized

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that fetches one. A function that is not async runs in a thread."""

FETCH_DEADLINE_S = 30.0


class Tokens:
    """Keeps the present token and fetches another when that one is of no more use."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self.present = source if isinstance(source, str) else None

    @property
    def can_renew(self) -> bool:
        """Whether there is a function to ask."""
        return not isinstance(self._source, str)

    async def get(self) -> str:
        """Give the present token, fetched if need be.

        An `OSError` of the function (which `TimeoutError` is too) passes through and means "try
        later"; any other error becomes `TokenSourceFailed`.
        """
        if self.present is None:
            self.present = await self._fetch()
        return self.use(self.present)

    def use(self, token: str) -> str:
        """Take `token` from now on. Raises `Unauthorized` for what cannot be one."""
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise Unauthorized("the token is empty or has characters that no token has")
        self.present = token
        return token

    def discard(self) -> None:
        """Fetch a new one next time, if there is a function to ask."""
        if self.can_renew:
            self.present = None

    async def _fetch(self) -> str:
        source = self._source
        if isinstance(source, str):
            return source
        try:
            async with asyncio.timeout(FETCH_DEADLINE_S):
                fetched: str | Awaitable[str]
                if inspect.iscoroutinefunction(source):
                    fetched = source()
                else:
                    fetched = await asyncio.to_thread(cast(Callable[[], Any], source))
                token = await fetched if inspect.isawaitable(fetched) else fetched
        except OSError:
            raise
        except Exception as error:
            raise TokenSourceFailed(f"the token function failed: {error!r}") from error
        if not isinstance(token, str):
            raise TokenSourceFailed(f"the token function gave {type(token).__name__}, not str")
        return token
