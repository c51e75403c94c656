"""A replica that lags: Direct Get is answered by any one, also by one that is behind."""

import asyncio

from .errors import Unavailable

RETRY_S = 0.02
LAG_S = 5.0
"""For so long a replica may be behind before it is an error."""


class Behind(Exception):
    """The replica that answered does not have what is known to be stored."""


class Lag:
    """For how long a replica has been behind. `what` it has to have."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._end = asyncio.get_running_loop().time() + LAG_S

    async def pause(self) -> None:
        """Wait before asking again. Raises `Unavailable` when it takes too long."""
        if asyncio.get_running_loop().time() > self._end:
            raise Unavailable(f"a replica is behind: it does not have {self._what} yet")
        await asyncio.sleep(RETRY_S)
