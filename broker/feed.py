"""The live feed: every event of the log, in order, once, without gaps, from one subscription.

JetStream republishes each stored message on `live.<subject>` at most once; the feed makes that
exact. It keeps one number, the last sequence delivered. An event that is not the next one means
that something was missed: it waits while the range before it is read back by Direct Get. The same
check runs after every reconnect and once a second against the stream's last sequence, so that a
missed last event is found too. A connection on which nothing comes meanwhile is doubted: its server
may be cut off from the others.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from .bus import Bus
from .errors import BrokerError, Refused, Unavailable
from .log import NO_STREAM, Log, LogState, Page, Stored, sequence_of
from .subjects import CHAT_SUBJECTS, LIVE

OnEvent = Callable[[int, str, bytes], None]
"""Called with seq, subject and stored bytes, in order of seq. Must be quick and not raise."""

CHECK_S = 1.0
SHORTER_CHECKS = 5
STASH_EVENTS = 10_000
RETRY_S = 0.02
LAST_RETRY_S = 1.0

_PREFIX = len(LIVE)

_log = logging.getLogger("hikyaku.feed")


class Feed:
    """Delivers the log to `on_event`. `position` is the last sequence delivered.

    `on_reset` is called when the log is no longer the one the feed started with (none, another
    epoch, or it ends before `position`): cursors are void, and whoever uses the feed must start
    anew.
    """

    def __init__(
        self,
        bus: Bus,
        log: Log,
        on_event: OnEvent,
        on_reset: Callable[[], None],
        on_header: Callable[[int, bytes], None] | None = None,
    ):
        """`on_header`, if given, is told the header of each event that came live, before it."""
        self._bus = bus
        self._log = log
        self._on_event = on_event
        self._on_reset = on_reset
        self._on_header = on_header
        self._stash: dict[int, tuple[str, bytes]] = {}
        self._known_last = 0
        self._heard = 0
        self._newest: bytes | None = None
        self._doubted: tuple[int, bytes | None] | None = None
        self._shorter = 0
        self._repair_wanted = asyncio.Event()
        self._check_wanted = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._end = ExitStack()
        self._started = False
        self.position = 0
        self.epoch = ""
        self.ancestors: Mapping[str, int] = {}
        self.gaps = 0
        self.repaired = 0
        self.checked_at = 0.0
        self.state: LogState

    async def __aenter__(self) -> "Feed":
        handler = self._on_live if self._on_header is None else self._on_followed
        sids = [self._bus.subscribe(LIVE + each, handler) for each in CHAT_SUBJECTS]
        for sid in sids:
            self._end.callback(self._bus.unsubscribe, sid)
        try:
            state = await self._log.state()
        except BaseException:
            self._end.close()
            raise
        self.state = state
        self.epoch, self.position, self.ancestors = state.epoch, state.last_seq, state.ancestors
        self._known_last = max(self._known_last, state.last_seq)
        self._stash = {seq: each for seq, each in self._stash.items() if seq > self.position}
        self._started = True
        self._drain_stash()
        if self.position < self._known_last:
            self._repair_wanted.set()
        self._end.callback(self._bus.on_connect(self._check_wanted.set))
        self._tasks = [
            asyncio.create_task(self._repair_loop(), name="feed repair"),
            asyncio.create_task(self._check_loop(), name="feed check"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        # First, so that whoever begins anew on this connection is the only one to deliver.
        self._end.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for _seq, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Unavailable("the feed has ended"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the feed failed and starts anew", exc_info=error)
            self._on_reset()

    async def reached(self, seq: int) -> None:
        """Wait until the event at `seq` has been delivered. The caller sets the deadline.

        Raises `Unavailable` when the feed ends before.
        """
        if seq <= self.position:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (seq, waiter)
        self._waiters.append(entry)
        try:
            await waiter
        finally:
            self._waiters.remove(entry)

    # --- live ---

    def _on_live(self, subject: bytes, _: bytes, header: bytes | None, data: bytes) -> None:
        assert header is not None
        self._heard += 1
        seq = sequence_of(header)
        if self._started and seq == self.position + 1:
            self._deliver(seq, subject[_PREFIX:].decode(), data)
            if self._stash:
                self._drain_stash()
        elif seq > self.position or not self._started:
            self._keep(seq, subject[_PREFIX:].decode(), data)

    def _on_followed(self, subject: bytes, reply: bytes, header: bytes | None, data: bytes) -> None:
        assert header is not None
        assert self._on_header is not None
        self._on_header(sequence_of(header), header)
        self._on_live(subject, reply, header, data)

    def _keep(self, seq: int, subject: str, data: bytes) -> None:
        self._known_last = max(self._known_last, seq)
        if len(self._stash) < STASH_EVENTS:
            self._stash[seq] = (subject, data)
        if self._started and not self._repair_wanted.is_set():
            self.gaps += 1
            self._repair_wanted.set()

    def _deliver(self, seq: int, subject: str, data: bytes) -> None:
        self.position, self._newest = seq, data
        try:
            self._on_event(seq, subject, data)
        except Exception:
            # One event that cannot be handled must not hold up all others.
            _log.exception("event %d on %s was not handled", seq, subject)
        if self._waiters:
            for wanted, waiter in self._waiters:
                if wanted <= seq and not waiter.done():
                    waiter.set_result(None)

    def _drain_stash(self) -> None:
        while (event := self._stash.pop(self.position + 1, None)) is not None:
            self._deliver(self.position + 1, *event)

    # --- repair ---

    async def _repair_loop(self) -> None:
        while True:
            await self._repair_wanted.wait()
            self._repair_wanted.clear()
            pause_s = RETRY_S
            while self.position < self._known_last:
                try:
                    progressed = self._apply(await self._log.read(">", self.position + 1))
                    pause_s = RETRY_S if progressed else min(pause_s * 2, LAST_RETRY_S)
                except BrokerError as error:
                    _log.warning("missed events are not readable yet: %s", error)
                    progressed = False
                    pause_s = LAST_RETRY_S
                if not progressed:
                    await asyncio.sleep(pause_s)

    def _apply(self, page: Page) -> bool:
        """Deliver a page; sequences that are not in it were deleted from the log."""
        before = self.position
        for event in page.events:
            if event.seq > self.position:
                self.repaired += 1
                self._deliver_stored(event)
        for seq in [seq for seq in self._stash if seq <= self.position]:
            del self._stash[seq]
        self._drain_stash()
        return self.position > before

    def _deliver_stored(self, event: Stored) -> None:
        self._deliver(event.seq, event.subject, event.data)

    async def _check_loop(self) -> None:
        position, newest, heard = self.position, self._newest, self._heard
        while True:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._check_wanted.wait()
            except TimeoutError:
                pass
            self._check_wanted.clear()
            try:
                state = await self._log.state(timeout_s=CHECK_S)
            except BrokerError as error:
                _log.warning("the log does not answer: %s", error)
                if isinstance(error, Refused) and error.err_code == NO_STREAM:
                    self._on_reset()
                    return
                continue
            self.state = state
            self.checked_at = asyncio.get_running_loop().time()
            try:
                changed = state.epoch != self.epoch
                changed = changed or await self._went_back(state.last_seq, position, newest)
            except BrokerError:
                continue
            if changed:
                _log.error(
                    "the log changed: epoch %s to %s, last seq %d after %d",
                    *(self.epoch, state.epoch, state.last_seq, position),
                )
                self._on_reset()
                return
            if self._doubted is not None:
                continue
            if state.last_seq > position and self._heard == heard:
                self._bus.unanswered()
            else:
                self._bus.answered()
            if state.last_seq > self.position:
                self._known_last = max(self._known_last, state.last_seq)
                self._repair_wanted.set()
            position, newest, heard = self.position, self._newest, self._heard

    async def _went_back(self, last_seq: int, position: int, newest: bytes | None) -> bool:
        """Whether the log ends before `position`, or has something else than `newest` there.

        A server that was cut off says for a moment that it leads, and where its log ended. So this
        is believed when it was said `SHORTER_CHECKS` times; if the log then is as long as before,
        what it has there decides.
        """
        if last_seq < position:
            self._doubted = (position, newest)
            self._shorter += 1
            return self._shorter >= SHORTER_CHECKS
        self._shorter = 0
        if self._doubted is not None:
            seq, data = self._doubted
            stored = await self._log.get(seq)
            self._doubted = None
            return stored is not None and data is not None and stored.data != data
        return False
