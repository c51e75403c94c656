"""One edge: what its sessions share, and its life from the first connection to NATS to the drain.

An edge answers HTTP at once and says at `/readyz` what it still waits for. It has no state that it
cannot lose: when the log is replaced by another, it closes its sessions and starts anew.
"""

import asyncio
import logging
import math
import resource
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from socket import gethostname
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from msgspec.json import encode

from broker import alive, directory, outbox, query, relay, subjects
from broker.bus import Bus
from broker.committer import Committer
from broker.declared import declared
from broker.doubt import Doubts
from broker.errors import BrokerError, NoResponders, OlderLog, Unavailable
from broker.feed import Feed
from broker.following import following
from broker.log import STREAM, Log
from broker.machine import MachineLease
from broker.requests import Failure, ask
from broker.sites import Sites
from broker.snowflake import Snowflake
from broker.streams import check_usable, names

from . import garbage
from .close_codes import CloseCode
from .config import EdgeConfig
from .cursor import Cursor
from .elsewhere import provisional
from .following import EdgeFollowing
from .gathering import Gatherer
from .heartbeat import Heartbeat
from .hub import Hub
from .memberships import MembershipReader
from .presence import Presence
from .receipts import GATHER_S, RECEIPTS_A_QUESTION, Crowded
from .session import Session
from .socket import text_frame
from .tokens import TokenVerifier

CONNECT_S = 5.0
RETRY_S = 0.5
STALE_S = 5.0
DIRECTORY_S = 2.0
PARALLEL_REPLAYS = 6
"""Of pages of 8 MiB: past 64 MiB unsent, NATS takes the connection for a slow consumer's."""

DRAIN_STEPS = 50

_EPHEMERAL = len(subjects.EPHEMERAL)
_LIVE = len(subjects.LIVE)
_T = TypeVar("_T")

_log = logging.getLogger("hikyaku.edge")


class Counters:
    """Plain numbers, read by `/metrics`."""

    def __init__(self) -> None:
        self.frames_in = 0
        self.acks = 0
        self.connects = 0
        self.resumes = 0
        self.replayed = 0
        self.errors: Counter[str] = Counter()
        self.closes = Counter({code.name.lower(): 0 for code in CloseCode})


class Edge:
    """Use as an async context manager; `ready` is false until NATS and the log answer."""

    def __init__(self, config: EdgeConfig, tokens: TokenVerifier, on_failure: Callable[[], None]):
        self.config = config
        self.tokens = tokens
        self.hub = Hub()
        self.counters = Counters()
        self.crowded = Crowded()
        self.moving = Gatherer(self._move, most=RECEIPTS_A_QUESTION, gather_s=GATHER_S)
        self.replays = asyncio.Semaphore(PARALLEL_REPLAYS)
        self.heartbeat = Heartbeat(
            interval_s=config.ping_interval_s, timeout_s=config.pong_timeout_s
        )
        doubts = Doubts()
        self.publishing = Bus(config.broker, name=f"{config.name} publish", doubts=doubts)
        self.live = Bus(config.broker, name=f"{config.name} live", doubts=doubts)
        self.asking = Bus(config.broker, name=f"{config.name} ask", doubts=doubts)
        self.log = Log(self.asking)
        self.committer = Committer(self.publishing, Log(self.publishing))
        self.following: EdgeFollowing | None = None
        followed = following(config.follow, config.name)
        if followed is not None:
            self.following = EdgeFollowing(followed, self.hub, self.committer)
        self.out_log = Log(self.asking, stream=outbox.SUBMITTED)
        self.outbound = Committer(self.publishing, Log(self.publishing, stream=outbox.SUBMITTED))
        self.sites: Sites | None = None
        self.memberships = MembershipReader(self._ask_chats)
        self.feed: Feed | None = None
        self.draining = False
        self._on_failure = on_failure
        self._lease: MachineLease | None = None
        self._presence: Presence | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_changed = asyncio.Event()
        self._was = Cursor("", 0)
        self._stack = AsyncExitStack()
        self._waiting_for = f"NATS at {self.publishing.address}"

    # --- life ---

    async def __aenter__(self) -> "Edge":
        for bus in (self.publishing, self.live, self.asking):
            await self._stack.enter_async_context(bus)
        await self._stack.enter_async_context(self.committer)
        await self._stack.enter_async_context(self.outbound)
        self.live.subscribe(f"{outbox.LIVE}*.submit.>", self._on_submission)
        self.live.subscribe(f"{subjects.EPHEMERAL}>", self._on_ephemeral)
        for essential in (self.heartbeat.run(), self._serve(), garbage.keep_out_of_the_way()):
            self.spawn(essential, essential=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.memberships.close()
        await self.moving.close()
        await self._stack.aclose()

    async def _serve(self) -> None:
        """Be ready as long as the log is the same one; begin again when it is another."""
        while True:
            try:
                async with AsyncExitStack() as stack:
                    await self._begin(stack)
                    self._waiting_for = "the log"
                    await self._log_changed.wait()
            except BrokerError as error:
                if self._waiting_for != str(error):
                    _log.warning("not ready: %s", error)
                self._waiting_for = str(error)
            if self.feed is not None:
                self._was = Cursor(self.feed.epoch, self.feed.position)
            self.feed = None
            self._log_changed.clear()
            for session in self.hub.all_sessions():
                session.close(CloseCode.SERVICE_RESTART, "the log was replaced")
            self.hub.forget_sizes()
            await asyncio.sleep(RETRY_S)

    async def _begin(self, stack: AsyncExitStack) -> None:
        for bus in (self.publishing, self.live, self.asking):
            await bus.wait_connected(CONNECT_S)
        wanted = {each.name for each in declared(self.config.broker)}
        if missing := wanted - await names(self.asking):
            what = "the log" if STREAM in missing else ", ".join(sorted(missing))
            raise Unavailable(f"{what}, which a worker makes once MongoDB answers")
        await check_usable(self.asking, STREAM)
        if self._lease is None:
            self._lease = await self._stack.enter_async_context(
                MachineLease(self.asking, self.config.broker.machines)
            )
        if self.sites is None:
            sites = Sites(self.config.site, self.live, self.asking, lambda: None)
            self.sites = await self._stack.enter_async_context(sites)
        else:
            await self.sites.refresh()
        if self._presence is None:
            self._presence = await self._stack.enter_async_context(Presence(self))
        if self.following is None:
            feed = Feed(self.live, self.log, self.hub.on_event, self._log_changed.set)
        else:
            on_event, on_header = self.following.on_event, self.following.on_header
            feed = Feed(self.live, self.log, on_event, self._log_changed.set, on_header)
        await stack.enter_async_context(feed)
        if feed.epoch == self._was.epoch and feed.position < self._was.seq:
            raise OlderLog(feed.position, self._was.seq, "this edge has delivered")
        await self._directory_answers()
        self.feed = feed
        _log.info("%s is ready: epoch %s, seq %d", self.config.name, feed.epoch, feed.position)

    async def _directory_answers(self) -> None:
        """Nobody has a session when an edge begins, and without the directory nobody gets one."""
        question = directory.Chats(users=[])
        answer = directory.Memberships
        try:
            await ask(self.asking, directory.SERVICE, "chats", question, answer, DIRECTORY_S)
        except (Failure, Unavailable) as error:
            why = str(error)
            if isinstance(error, NoResponders):
                why = "start it, or see its log"
                found = await alive.workers(self.asking, [directory.SERVICE])
                why = next((each.waits for each in found if each.waits), why)
            what = f"the worker directory, without which nobody can connect: {why}"
            raise Unavailable(what) from None

    async def drain(self) -> None:
        """Send everyone elsewhere, spread over the drain time, and commit what waits."""
        self.draining = True
        reason = "this server stops; go elsewhere"
        sessions = self.hub.all_sessions()
        step = max(1, math.ceil(len(sessions) / DRAIN_STEPS))
        for start in range(0, len(sessions), step):
            for session in sessions[start : start + step]:
                session.leave(reason)
            if start + step < len(sessions):
                await asyncio.sleep(self.config.drain_s * step / len(sessions))
        await self.committer.drain(self.config.drain_s)
        await self.outbound.drain(self.config.drain_s)
        for session in self.hub.all_sessions():
            session.close(CloseCode.DRAINING, reason)

    # --- for sessions ---

    @property
    def ids(self) -> Snowflake:
        """The generator of message ids. Raises `Unavailable` while there is no lease."""
        if self._lease is None:
            raise Unavailable("this server has no machine number yet")
        return self._lease.ids

    def described(self) -> bytes:
        """What this edge says of itself in its lease."""
        return msgspec.json.encode(
            alive.Edge(
                host=gethostname(),
                connections=self.hub.sessions,
                machine=-1 if self._lease is None else self._lease.machine,
                files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )
        )

    @property
    def lease_left_s(self) -> float:
        """For how long this edge can make ids if NATS stays away; 0 while there is no lease."""
        return self._lease.left_s if self._lease is not None else 0.0

    @property
    def began(self) -> bool:
        """Whether NATS has answered once, so that there is presence."""
        return self._presence is not None

    @property
    def presence(self) -> Presence:
        """Who is here. Raises `Unavailable` before NATS has answered for the first time."""
        if self._presence is None:
            raise Unavailable("presence has not begun")
        return self._presence

    def now(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    def later(self, wait_s: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `action` after `wait_s`, unless the handle is cancelled."""
        return self._loop.call_later(wait_s, action)

    def spawn(self, work: Coroutine[Any, Any, None], *, essential: bool = False) -> None:
        """Run `work` in a task that this edge owns: cancelled at the end, its failure logged.

        Without an `essential` one the edge is no use, and `on_failure` is called.
        """
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, essential=essential))

    def _done(self, task: asyncio.Task[None], *, essential: bool) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task failed", exc_info=error)
            if essential:
                self._on_failure()

    def forget(self, session: Session) -> None:
        """The session's socket is gone."""
        self.heartbeat.remove(session)
        if session.attached:
            if self._presence is not None:
                self._presence.forget(session)
            self.hub.detach(session, session.user)

    def whisper(self, chat_id: str, sender: str, frame: bytes) -> None:
        """Tell everyone in a chat, on all edges, but the sender; never stored, at most once."""
        try:
            payload = b"%b\n%b" % (sender.encode(), frame)
            self.asking.publish(subjects.ephemeral(chat_id), payload)
        except BrokerError as error:
            _log.debug("not whispered: %s", error)

    def _on_ephemeral(self, subject: bytes, _: bytes, _header: bytes | None, data: bytes) -> None:
        sender, _newline, frame = data.partition(b"\n")
        self.hub.on_ephemeral(subject[_EPHEMERAL:].decode(), sender.decode(), text_frame(frame))

    def _on_submission(self, subject: bytes, _: bytes, _header: bytes | None, data: bytes) -> None:
        """A write for a chat elsewhere went into the outbox, on whatever edge."""
        chat_id = outbox.submitted_chat(subject[_LIVE:].decode())
        if chat_id is not None and (frame := provisional(data)) is not None:
            self.hub.on_ephemeral(chat_id, "", frame)

    async def ask_directory(self, verb: str, question: Any, answer: type[_T]) -> _T:
        """Ask the directory where the group lives, else this site's.

        Raises `Failure` for its no, `Unavailable` for no answer.
        """
        timeout_s = self.config.request_timeout_s
        group = getattr(question, "group_id", None)
        if group is not None and self.sites is not None:
            site = self.sites.names.site_of(group)
            if site is not None:
                asked = relay.Question(site=site, verb=verb, question=Raw(encode(question)))
                return await self.ask_relay("directory", asked, answer)
        return await ask(self.asking, directory.SERVICE, verb, question, answer, timeout_s)

    async def ask_relay(self, verb: str, question: Any, answer: type[_T]) -> _T:
        """Ask the way to other sites. Raises as `ask_directory` does."""
        timeout_s = self.config.request_timeout_s
        return await ask(self.asking, relay.SERVICE, verb, question, answer, timeout_s)

    async def ask_query(self, verb: str, question: Any, answer: type[_T]) -> _T:
        """Ask about the past. Raises `Failure` for a no, `Unavailable` for no answer."""
        timeout_s = self.config.request_timeout_s
        return await ask(self.asking, query.SERVICE, verb, question, answer, timeout_s)

    async def _move(self, receipts: list[query.Receipt]) -> list[query.Outcome]:
        moved = await self.ask_query("move", query.Move(receipts=receipts), query.Moved)
        return moved.outcomes

    async def _ask_chats(self, question: directory.Chats) -> directory.Memberships:
        return await self.ask_directory("chats", question, directory.Memberships)

    async def reached(self, seq: int) -> None:
        """Wait until the event at `seq` was delivered here. Raises `TimeoutError`."""
        async with asyncio.timeout(self.config.request_timeout_s):
            if self.feed is None:
                raise Unavailable("the log does not answer")
            await self.feed.reached(seq)

    # --- for operators ---

    def missing(self) -> list[str]:
        """What this edge lacks to be ready, for people; empty when it is ready."""
        if self.draining:
            return ["this server is draining"]
        found = [
            f"NATS does not answer at {bus.address}"
            for bus in (self.publishing, self.live, self.asking)
            if not bus.connected
        ]
        if found:
            return found[:1]
        if self.feed is None:
            return [f"waiting for {self._waiting_for}"]
        if self.feed.checked_at and self.now() - self.feed.checked_at > STALE_S:
            return ["the log does not answer"]
        return []
