"""What a peer's outbox brings is taken once, also when the link begins anew."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from msgspec import Raw

from broker import events, outbox, sites, subjects
from broker.batch import Part, publish_all
from broker.bucket import Bucket
from broker.federation import Postal
from broker.links import Links
from broker.log import STREAM, Log
from broker.sites import Sites
from broker.snowflake import unix_ms
from broker.streams import NANOSECOND
from store.mirrored import Mirrored
from tests.brokers import api
from tests.chat import names
from tests.stage import Stage
from workers.relay.homing import Homing
from workers.relay.limits import Limits
from workers.relay.sending import Answer, Batch
from workers.relay.taking import Taker

pytestmark = pytest.mark.anyio

WINDOW_S = 0.1
"""For so long JetStream knows message ids here: the least that it takes."""
WAIT_S = 10.0


class _Homing:
    """Lets everybody write."""

    async def refusal(self, *_: Any) -> None:
        await asyncio.sleep(0)


class Osaka:
    """A peer, what it says, and how tokyo takes it."""

    def __init__(self, stage: Stage, linked: Sites):
        self._bus = stage.bus
        self._sites = linked
        self._log = Log(stage.bus)
        self._taker = Taker(
            stage.bus,
            links=Links(stage.bus),
            linked=linked,
            mirrored=Mirrored(stage.database),
            homing=cast(Homing, _Homing()),
            machines=(0, 1),
            limits=Limits(1e6, linked.linked),
            check=lambda: None,
        )
        self._handlers: dict[str, Any] = {}
        self._taker.serve(cast(Postal, self))
        self._at: Counter[outbox.Box] = Counter()
        self._epoch = "first"
        alice, bob, zed = names("alice", "bob", "0zed")
        # By their names alice's conversation with bob lives at tokyo, that with zed at osaka.
        self.there = f"{zed}", f"{alice}@tokyo"
        self.here = f"{bob}", f"{alice}@tokyo"

    def serve(self, verb: str, handler: Any) -> None:
        self._handlers[verb] = handler

    async def say(self, *parcels: Any) -> None:
        """Bring these in one batch of each box."""
        for box in outbox.BOXES:
            wanted = [e for e in parcels if isinstance(e, outbox.Submitted) == (box == "submitted")]
            if wanted:
                await self._say(box, wanted)

    async def _say(self, box: outbox.Box, parcels: list[Any]) -> None:
        at = self._at[box]
        numbered = [(at + n, Raw(outbox.encode(p))) for n, p in enumerate(parcels, 1)]
        batch = Batch(box=box, epoch=self._epoch, after=at, parcels=numbered)
        data = await self._handlers["parcels"]("osaka", msgspec.json.encode(batch))
        answer = msgspec.json.decode(data, type=Answer)
        assert answer.state == "taken"
        self._at[box] = answer.at

    async def renew(self) -> None:
        """Begin anew, long after what was taken."""
        await self._taker.renew("osaka")
        self._epoch = uuid4().hex
        self._at.clear()
        await self._forgotten()

    async def _forgotten(self) -> None:
        """Wait until JetStream does not know what was stored until now."""
        probe = Part(subjects.user("probe"), b"{}", (f"Nats-Msg-Id: {uuid4().hex}",))
        first = await publish_all(self._bus, [probe], timeout_s=WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while True:
                if await publish_all(self._bus, [probe], timeout_s=WAIT_S) != first:
                    return

    def _message(self, between: tuple[str, str], content: str) -> events.Chat:
        return events.Chat(
            id=str(unix_ms() << 22),
            chat_id=subjects.dm(*between),
            from_=between[0],
            to=between[1],
            content=content,
            content_type="text",
            timestamp=unix_ms(),
            client_id=content,
        )

    def told(self, seq: int, content: str) -> outbox.Event:
        event = self._message(self.there, content)
        return outbox.Event(seq=seq, chat_id=event.chat_id, data=Raw(events.encode(event)))

    def submitted(self, content: str) -> outbox.Submitted:
        event = self._message(self.here, content)
        return outbox.Submitted(chat_id=event.chat_id, data=Raw(events.encode(event)))

    async def stored(self) -> list[str]:
        """What the log has of both chats, in order."""
        found = []
        for user, alice in (self.there, self.here):
            chat = subjects.dm(f"{user}@osaka", alice.removesuffix("@tokyo"))
            found += (await self._log.read(chat, 1)).events
        said = [events.decode(each.data) for each in sorted(found)]
        return [each.content for each in said if isinstance(each, events.Chat)]


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")).running() as stage:
        info = (await api(stage.bus, f"STREAM.INFO.{STREAM}"))["config"]
        info["duplicate_window"] = int(WINDOW_S * NANOSECOND)
        await api(stage.bus, f"STREAM.UPDATE.{STREAM}", info)
        await Bucket(stage.bus, sites.BUCKET).put("osaka", sites.encode(sites.Peer()))
        yield stage


@pytest.fixture
async def osaka(stage: Stage) -> AsyncIterator[Osaka]:
    async with Sites("tokyo", stage.bus, stage.bus, lambda: None) as linked:
        await api(stage.bus, "STREAM.PURGE.KV_links")
        yield Osaka(stage, linked)


async def test_a_restored_outbox_has_what_was_taken(osaka: Osaka) -> None:
    """Behind what is new, and in more than one batch."""
    told = [osaka.told(10 + number, f"told {number}") for number in range(3)]
    submitted = [osaka.submitted(f"submitted {number}") for number in range(3)]
    await osaka.say(told[0], submitted[0], told[1], submitted[1])
    await osaka.say(told[2], submitted[2])
    taken = await osaka.stored()
    assert len(taken) == 6
    await osaka.renew()
    new = osaka.submitted("not taken before"), osaka.told(13, "told after")
    await osaka.say(new[0], told[1], submitted[1])
    await osaka.say(told[2], submitted[2], new[1])
    assert await osaka.stored() == [*taken, "not taken before", "told after"]


async def test_a_log_that_was_set_back(osaka: Osaka) -> None:
    """Other events have places at which events were taken that are lost there."""
    kept = osaka.told(10, "in the backup")
    await osaka.say(kept, osaka.told(11, "lost"), osaka.told(12, "lost too"))
    await osaka.renew()
    await osaka.say(kept, osaka.told(11, "another"), osaka.told(12, "one more"))
    assert (await osaka.stored())[3:] == ["another", "one more"]


async def test_renewed_again_before_all_was_taken(osaka: Osaka) -> None:
    told = [osaka.told(10 + number, f"told {number}") for number in range(4)]
    await osaka.say(*told)
    await osaka.renew()
    await osaka.say(told[0])
    await osaka.renew()
    await osaka.say(*told)
    assert await osaka.stored() == [f"told {number}" for number in range(4)]
