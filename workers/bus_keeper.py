"""Keeps on the bus what a site needs: makes what is missing, at the start and whenever it is lost.

Only some workers may make streams (`MAKERS`); the others wait for one that does. The log is made
only by who can ask MongoDB where it has to begin: after every seq that MongoDB may have, so that
events of a log that was lost and those of the new one never share a place. For the same reason a
log that ends before what MongoDB has, an older copy of NATS' data, is not used.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.declared import beside
from broker.errors import BrokerError, HalfMade, OlderLog, Unavailable
from broker.log import STREAM, Log, LogState
from broker.making import Made, begin_log, finish_log
from broker.streams import Consumer, chat_stream, check_usable, ensure, names, update
from store.errors import StoreError
from store.log_floor import LogFloor

CHECK_S = 1.0
CONFIRM_S = 10.0
MAKERS = ("directory", "persist")
"""The workers whose roles may make streams: see `broker.roles`."""

_log = logging.getLogger("hikyaku.keeper")


async def _nothing() -> None:
    pass


class BusKeeper:
    """Any number of processes may have one. `makes`: this one may make streams. `remembers`: it
    notes in MongoDB which log it is.

    `others` are connections that may say nothing for long: they are asked too, so that one notices
    when its server is cut off from the rest.
    """

    def __init__(
        self,
        bus: Bus,
        config: BrokerConfig,
        floor: LogFloor,
        consumers: list[Consumer],
        *,
        makes: bool,
        remembers: bool = False,
        others: Sequence[Bus] = (),
    ) -> None:
        self._bus = bus
        self._makes = makes
        self._remembers = remembers
        self._others = others
        self._config = config
        self._floor = floor
        self._consumers = consumers
        self._epoch, self._last_seq = "", 0
        self._names = {STREAM, *(each.name for each in beside(config))}

    async def make(self) -> None:
        """Make what is missing, update what differs.

        Raises `BrokerError`, among them `OlderLog`, and `StoreError`.
        """
        if self._makes:
            await self._make_streams()
        elif missing := self._names - await names(self._bus):
            makers = " and ".join(MAKERS)
            raise Unavailable(f"{', '.join(sorted(missing))}, which {makers} make")
        else:
            await check_usable(self._bus, STREAM)
        await ensure(self._bus, [], self._consumers)

    async def _make_streams(self) -> None:
        await ensure(self._bus, beside(self._config))
        try:
            there = await update(self._bus, chat_stream(self._config))
        except HalfMade:
            there = await finish_log(self._bus, self._config, self._known) is None
        if there:
            await self._compare()
        else:
            await begin_log(self._bus, self._config, await self._floor.read() + 1)
            await finish_log(self._bus, self._config, self._known)

    async def _known(self, made: Made) -> str:
        """The epoch of a log that was made, or came back. Raises `OlderLog`."""
        if not made.kept:
            _log.warning("there was no log; a new one begins at %d", made.last_seq + 1)
            return made.epoch
        seen = await self._floor.seen()
        if made.last_seq < seen:
            raise OlderLog(made.last_seq, seen, "MongoDB has")
        # It is the same log with the same events: cursors go on, if it is known which one it was.
        epoch = await self._floor.epoch() or made.epoch
        _log.error(
            "the log's description was lost on NATS' disk; its %d events, up to %d, are kept",
            made.kept,
            made.last_seq,
        )
        return epoch

    async def _look(self) -> set[str]:
        asked = (names(each) for each in (self._bus, *self._others))
        found = await asyncio.gather(*asked, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        assert isinstance(found[0], set)
        return found[0]

    async def _compare(self) -> None:
        """The log that is there has all that MongoDB has. Raises `OlderLog`."""
        seen = await self._floor.seen()
        state = await self._state(seen)
        if state.last_seq < seen:
            raise OlderLog(state.last_seq, seen, "MongoDB has")

    async def _state(self, reached: int, epoch: str = "") -> LogState:
        """The log's state; of one that ends before `reached`, what is said in the end.

        With `epoch` only if it is that log.
        In a cluster a server may answer that has begun with an empty disk and is not there yet.
        """
        state = await Log(self._bus).state()
        if self._config.replicas > 1:
            deadline = asyncio.get_running_loop().time() + CONFIRM_S
            while (
                state.last_seq < reached
                and epoch in ("", state.epoch)
                and asyncio.get_running_loop().time() < deadline
            ):
                await asyncio.sleep(CHECK_S)
                state = await Log(self._bus).state()
        return state

    async def run(self, also: Callable[[], Awaitable[None]] = _nothing) -> None:
        """Look every second, until cancelled; then do what is to be done `also`.

        Raises `OlderLog`: then nobody may go on.
        """
        said = ""
        whole = True
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                if missing := self._names - await self._look():
                    _log.error("not on the bus any more: %s", ", ".join(sorted(missing)))
                    whole = False
                if not whole:
                    await self.make()
                    whole = True
                await self._look_back()
                await also()
                said = ""
            except OlderLog:
                raise
            except HalfMade:
                # Who began with it may have died.
                whole = False
            except (BrokerError, StoreError) as error:
                if str(error) != said:
                    _log.warning("the bus is not looked after for now: %s", error)
                said = str(error)

    async def _look_back(self) -> None:
        """Whether it is the same log and ends before where it did. Raises `OlderLog`."""
        state = await self._state(self._last_seq, self._epoch)
        if state.epoch == self._epoch and state.last_seq < self._last_seq:
            raise OlderLog(state.last_seq, self._last_seq, "this worker has seen")
        if self._remembers and state.epoch != self._epoch:
            await self._floor.remember(state.epoch)
        self._epoch, self._last_seq = state.epoch, state.last_seq
