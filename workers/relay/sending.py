"""Brings what waits in a box to one peer, in order, and starts again where the peer is.

The peer says how far it is, so nothing here has to be remembered; what it has taken is removed, but
for submissions, which stay until they come back in their chat's order.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from broker import outbox, subjects
from broker.bus import Bus
from broker.errors import BrokerError, Unavailable
from broker.federation import Postal, read
from broker.links import Links, Taken, way
from broker.log import Log, LogState, Stored
from broker.relay import Link
from broker.streams import purge

from ..pace import Pace

PARCELS = 500
FIRST_BYTES, MOST_BYTES = 64 * 1024, 512 * 1024
ANSWER_S = 15.0
LOOK_S = 1.0
GREETING_S = 2.0
SILENT_LOOKS = 2
POLL_S = 1.0
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 2.0

_log = logging.getLogger("hikyaku.relay")


class Where(Struct, kw_only=True):
    """Asks how far the peer is with one of this site's boxes; `machines` are its numbers."""

    box: outbox.Box
    epoch: str
    machines: tuple[int, int]


class Batch(Struct, kw_only=True):
    """Parcels, each with its place in the box; `after` is the place of the one before."""

    box: outbox.Box
    epoch: str
    after: int
    parcels: list[tuple[int, Raw]]


class Answer(Struct, kw_only=True):
    """How far the peer is now; `state` says why it takes no more, `busy` that it is about to.

    `digest` is that of the parcel at `at`, if the peer knows.
    """

    at: int
    digest: str = ""
    busy: bool = False
    state: Literal["taken", "again", "stranger", "removed", "overlap"] = "taken"


def digest(parcel: bytes) -> str:
    """What tells a parcel from another one at the same place."""
    return hashlib.blake2b(parcel, digest_size=8).hexdigest()


class Sender:
    """Brings one box to one peer. `run` until cancelled."""

    def __init__(
        self,
        peer: str,
        box: outbox.Box,
        bus: Bus,
        postal: Postal,
        links: Links,
        machines: tuple[int, int],
    ):
        self.peer = peer
        self._box: outbox.Box = box
        self._way = way("out", box)
        self._subject = outbox.waiting(peer, box)
        self._machines = machines
        self._bus = bus
        self._postal = postal
        self._links = links
        self._log = Log(bus, stream=outbox.stream(box))
        self._news = asyncio.Event()
        self.connected = False
        self.state = "not tried yet"
        self.sent = 0
        self.at = 0
        self._taken_at = 0.0
        self._since = time.time()
        self._pace = Pace(FIRST_BYTES, MOST_BYTES)

    async def run(self) -> None:
        """Send what there is, as it comes, whenever the peer can be reached."""
        sid = self._bus.subscribe(subjects.LIVE + self._subject, lambda *_: self._news.set())
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._send()
                    if self.state in (_WHY["taken"], _WHY["again"]):
                        pause_s = FIRST_PAUSE_S
                except BrokerError as error:
                    self._say(str(error), connected=False)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
        finally:
            self._bus.unsubscribe(sid)

    def _say(self, state: str, *, connected: bool) -> None:
        if state != self.state:
            _log.log(
                logging.INFO if connected else logging.WARNING,
                *("link to %s (%s): %s", self.peer, self._box, state),
            )
        if connected != self.connected:
            self._since = time.time()
        self.state, self.connected = state, connected

    async def link(self) -> Link:
        """How the link is. Raises `Unavailable`."""
        at = self.at or (await self._links.taken(self.peer, self._way)).seq
        waiting, first = await self._log.count(self._subject, at + 1)
        return Link(
            site=self.peer,
            connected=self.connected,
            state=self.state,
            waiting=waiting,
            oldest_s=await self._log.age_s(first) if first else None,
            last_s=time.time() - self._taken_at if self._taken_at else None,
            since_s=time.time() - self._since,
        )

    async def _send(self) -> None:
        """Until something is not as it should be."""
        state = await self._log.state()
        taken = await self._links.taken(self.peer, self._way)
        epoch = state.epoch + taken.renewed
        question = Where(box=self._box, epoch=epoch, machines=self._machines)
        answer = await self._ask("where", question, GREETING_S)
        if answer.state == "taken" and (why := await self._doubtful(answer, taken, state)):
            self._say(why, connected=True)
            return
        self.at = answer.at
        while answer.state in ("taken", "again"):
            self._say("connected", connected=True)
            self._news.clear()
            page = await self._log.read(self._subject, self.at + 1, PARCELS)
            if not page.events:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._news.wait()
                        continue
                # Nothing to say for a second: see that it is still there.
                answer = await self._ask("where", question, GREETING_S)
                if answer.at != self.at:
                    return
                continue
            parcels = _fitting(page.events, self._pace.size)
            batch = Batch(
                box=self._box,
                epoch=epoch,
                after=self.at,
                parcels=[(each.seq, Raw(each.data)) for each in parcels],
            )
            answer = await self._bring(batch, question)
            if answer.state != "taken":
                break
            self.sent += sum(each.seq <= answer.at for each in parcels)
            self._taken_at = time.time()
            self.at = answer.at
            after = msgspec.structs.replace(taken, epoch=epoch, seq=self.at)
            await self._links.take(self.peer, self._way, after)
            if self._box == "told":
                await purge(self._bus, outbox.STREAM, self._subject, before=self.at + 1)
        self._say(_WHY[answer.state], connected=True)

    async def _doubtful(self, answer: Answer, taken: Taken, state: LogState) -> str:
        """Why what the peer has cannot be from this outbox, or the outbox not the one it knows."""
        if taken.epoch == state.epoch + taken.renewed and answer.at < taken.seq:
            # What it had taken is gone from our outbox.
            return (
                f"it has less of our outbox ({answer.at}) than it had taken ({taken.seq}): was it "
                f"restored from a backup? {RENEW}"
            )
        if answer.at > taken.seq:
            # Taken and not recorded here, before a crash; unless it was another outbox.
            ours = await self._log.get(answer.at)
            known = ours is None or (
                ours.subject.startswith(self._subject.removesuffix(">"))
                and answer.digest in ("", digest(ours.data))
            )
            if answer.at > state.last_seq or not known:
                return (
                    f"it has more of our outbox ({answer.at}) than there is: was this site "
                    f"restored from a backup? {RENEW}"
                )
        return ""

    async def _bring(self, batch: Batch, question: Where) -> Answer:
        """Send a batch and learn how far the peer is. Raises `Unavailable`.

        A batch or its answer may be lost with the connection between the servers, which nobody
        here notices: so the peer is asked in between. As what is sent goes one way in order, a
        peer that answers and is not busy with the batch has it behind it or will never see it.
        """
        began = time.monotonic()
        asked = asyncio.ensure_future(self._ask("parcels", batch, ANSWER_S))
        silent = 0
        try:
            while not (await asyncio.wait({asked}, timeout=LOOK_S))[0]:
                answer = await self._look(question)
                silent = 0 if answer is not None else silent + 1
                if silent >= SILENT_LOOKS:
                    self._say("it does not answer", connected=False)
                if asked.done() or answer is None or answer.busy:
                    continue
                if answer.at < batch.parcels[-1][0]:
                    raise Unavailable("what was sent last did not arrive")
                return answer
            answer = asked.result()
        except BrokerError:
            self._pace.slower()
            raise
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        self._pace.took(time.monotonic() - began)
        return answer

    async def _look(self, question: Where) -> Answer | None:
        """How far the peer is; None if it is not there, or if what was sent fills the way."""
        try:
            return await self._ask("where", question, GREETING_S)
        except BrokerError:
            return None

    async def _ask(self, verb: str, question: Where | Batch, timeout_s: float) -> Answer:
        payload = msgspec.json.encode(question)
        data = await self._postal.ask(self.peer, verb, payload, timeout_s=timeout_s)
        return read(data, Answer, self.peer)


class Senders:
    """Those of one peer, as tasks of a group."""

    def __init__(self, senders: Sequence[Sender], group: asyncio.TaskGroup):
        self._senders = senders
        self._tasks = [group.create_task(each.run()) for each in senders]

    @property
    def connected(self) -> bool:
        """Whether the peer takes what it is sent, of all."""
        return all(each.connected for each in self._senders)

    @property
    def sent(self) -> int:
        """How many parcels the peer took."""
        return sum(each.sent for each in self._senders)

    async def link(self) -> Link:
        """How the link is; its state is the first that is not as it should be."""
        links = [await each.link() for each in self._senders]
        amiss = [each for each in links if each.state != _WHY["taken"]]
        return Link(
            site=links[0].site,
            connected=all(each.connected for each in links),
            state=(amiss or links)[0].state,
            waiting=sum(each.waiting for each in links),
            oldest_s=max(
                (each.oldest_s for each in links if each.oldest_s is not None), default=None
            ),
            last_s=min((each.last_s for each in links if each.last_s is not None), default=None),
        )

    def cancel(self) -> None:
        """End them soon."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """End them."""
        self.cancel()
        await asyncio.wait(self._tasks)


RENEW = "Nothing is sent; see 'A site from a backup' in docs/federation.md"

_WHY = {
    "taken": "connected",
    "again": "it asks to begin again",
    "stranger": "it knows another outbox of ours, of before a restore or a reset. " + RENEW,
    "removed": "it is not linked with this site, or has removed it",
    "overlap": "both sites may use the same machine numbers in ids: set other HIKYAKU_MACHINES",
}


def _fitting(found: list[Stored], most: int) -> list[Stored]:
    """As many as `most` bytes hold, at least one."""
    size = 0
    for number, each in enumerate(found):
        size += len(each.data) + 32
        if number and size > most:
            return found[:number]
    return found
