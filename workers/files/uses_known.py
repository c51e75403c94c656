"""Whether MongoDB has all that the log has, and so knows which messages refer to which files."""

import asyncio

from broker.bus import Bus
from broker.consumer import progress
from broker.log import Log

from ..persist import CONSUMER

POLL_S = 0.05


async def uses_known(bus: Bus, within_s: float) -> bool:
    """Whether it has every message that the log has just now, at the latest after `within_s`.

    Raises `Unavailable`.
    """
    last = (await Log(bus).state()).last_seq
    deadline = asyncio.get_running_loop().time() + within_s
    while not (await progress(bus, CONSUMER, to=last)).reached(last):
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True
