"""Making the log where there is none, without losing one of which only the description was lost.

A server that cannot read a stream's description leaves the stream out and its events on the disk.
It takes them up when a stream of that name is made, and removes all below a `first_seq`. So the log
is made on a subject that nobody uses, and without a place where it begins; then it is looked at.
What came back is kept. Only an empty log is moved to where it has to begin. Then it gets its
subjects.

Until then it is half made, and who asks for its state hears `HalfMade`. Whoever may make streams
goes on with it, also several at once and after a crash: where a new log begins and its epoch were
decided by who made it and stand in its metadata. It is moved by a purge of what lies before its
beginning, which removes nothing from a new log however late it comes.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from .bus import Bus
from .config import BrokerConfig
from .log import BEGINS, STREAM
from .streams import Stream, call, chat_stream, create, finish

MAKING = "making.log"


class Made(NamedTuple):
    """What became of a log that was half made: `kept` events came back, up to `last_seq`."""

    epoch: str
    last_seq: int
    kept: int


async def begin_log(bus: Bus, config: BrokerConfig, first_seq: int) -> bool:
    """Make the log by half, if there is none: if it is empty it will begin at `first_seq`.

    Whether it was made. Raises as `ensure` does.
    """
    wanted = {**chat_stream(config).config, "subjects": [MAKING]}
    wanted["metadata"] = {**wanted["metadata"], BEGINS: str(first_seq)}
    return await create(bus, Stream(STREAM, wanted))


async def finish_log(
    bus: Bus, config: BrokerConfig, before: Callable[[Made], Awaitable[str]]
) -> Made | None:
    """Go on with a log that is half made; None if it is whole already.

    `before` is told what it will be, and gives the epoch under which it goes on. Raises what
    `before` raises, and as `ensure` does.
    """
    found = await call(bus, f"STREAM.INFO.{STREAM}")
    metadata, state = found["config"].get("metadata") or {}, found["state"]
    if BEGINS not in metadata:
        return None
    first_seq, epoch = int(metadata[BEGINS]), metadata["epoch"]
    # Another process may have finished it by now, and the first events be there.
    kept = state["messages"] if state["first_seq"] != first_seq else 0
    if not state["messages"] and state["last_seq"] < first_seq - 1:
        await call(bus, f"STREAM.PURGE.{STREAM}", {"seq": first_seq})
    made = Made(epoch, state["last_seq"] if kept else first_seq - 1, kept)
    made = made._replace(epoch=await before(made))
    await finish(bus, chat_stream(config), {"epoch": made.epoch})
    return made
