"""What a site says that is not its to say is refused, counted and named, and holds up nothing."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from broker import events, outbox, subjects
from broker.bus import Bus
from broker.config import BrokerConfig
from broker.errors import Refused
from broker.federation import Postal
from broker.snowflake import unix_ms
from broker.streams import MAX_EVENT_BYTES
from tests.chat import Clients, names
from tests.offices import Company
from tests.servers import eventually
from workers.relay.sending import Answer, Batch, Where

pytestmark = pytest.mark.anyio

EPOCH = "of nagoya"


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    company = Company(tmp_path_factory.mktemp("company"), ["tokyo"], strangers=["nagoya", "kyoto"])
    async with company.running():
        yield company


class Nagoya:
    """A site that says whatever it likes, with its own credentials."""

    def __init__(
        self, company: Company, name: str = "nagoya", machines: tuple[int, int] = (900, 999)
    ):
        self._where = [
            Where(box=box, epoch=f"of {name}", machines=machines) for box in outbox.BOXES
        ]
        url = f"nats://{name}:pw@127.0.0.1:{company.hub.port}"
        self.bus = Bus(BrokerConfig(urls=(url,)), name=name)
        self.postal = Postal(self.bus, name)
        self.at: dict[outbox.Box, int] = {}

    async def __aenter__(self) -> "Nagoya":
        await self.bus.__aenter__()
        await self.bus.wait_connected(5)
        await self.postal.__aenter__()
        for where in self._where:
            answer = await self.ask("where", where)
            assert answer.state == "taken"
            self.at[where.box] = answer.at
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.postal.__aexit__(*exc_info)
        await self.bus.__aexit__(*exc_info)

    async def ask(self, verb: str, question: Any) -> Answer:
        payload = msgspec.json.encode(question)
        data = await self.postal.ask("tokyo", verb, payload, timeout_s=10)
        return msgspec.json.decode(data, type=Answer)

    async def submit(self, *parcels: bytes) -> Answer:
        return await self._say("submitted", parcels)

    async def tell(self, *parcels: bytes) -> Answer:
        return await self._say("told", parcels)

    async def _say(self, box: outbox.Box, parcels: Sequence[bytes]) -> Answer:
        after = self.at[box]
        numbered = [(after + n, Raw(each)) for n, each in enumerate(parcels, 1)]
        batch = Batch(box=box, epoch=EPOCH, after=after, parcels=numbered)
        answer = await self.ask("parcels", batch)
        self.at[box] = answer.at
        return answer


def message(sender: str, to: str, content: str) -> events.Chat:
    number = str(unix_ms() << 22)
    return events.Chat(
        id=number,
        chat_id=subjects.dm(sender, to),
        from_=sender,
        to=to,
        content=content,
        content_type="text",
        timestamp=unix_ms(),
        client_id=content,
    )


def submitted(event: events.Chat) -> bytes:
    return outbox.encode(outbox.Submitted(chat_id=event.chat_id, data=Raw(events.encode(event))))


def told(seq: int, event: events.Chat) -> bytes:
    parcel = outbox.Event(seq=seq, chat_id=event.chat_id, data=Raw(events.encode(event)))
    return outbox.encode(parcel)


def own(seq: int, event: events.MemberAdded) -> bytes:
    return outbox.encode(outbox.Own(seq=seq, data=Raw(events.encode(event))))


def refusals(company: Company) -> list[str]:
    log = company["tokyo"].relay.process.log.read_text()
    return re.findall(r"parcel \d+ of nagoya is refused: (.*)", log)


async def test_only_what_is_theirs(company: Company) -> None:
    alice_id, bob_id = names("alice", "bob")
    async with Clients() as connect, Nagoya(company) as nagoya:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        here, before = f"{alice_id}@tokyo", len(refusals(company))
        unread = outbox.Submitted(chat_id="$KV.sites.nagoya", data=Raw(b"{}"))
        good = submitted(message("zed", here, "fair and square"))
        bad = {
            "is not its user": submitted(message(f"{bob_id}@tokyo", here, "as bob of tokyo")),
            "is not its user ": submitted(message("carol@kyoto", here, "as carol of kyoto")),
            "not readable": b'{"type":"submitted","chat_id":7}',
            "no chat id": outbox.encode(unread),
            "no parcel of the box 'submitted'": told(9, message("0zed", here, "told there")),
        }
        bad_told = {
            "no parcel of the box 'told'": good,
            "does not live there": told(1, message("zed", here, "an order of tokyo's")),
            "of this site did not write it": told(
                2, message(here, "0zed", "alice never wrote this")
            ),
            "another chat": outbox.encode(
                outbox.Event(
                    seq=3,
                    chat_id=subjects.dm("0zed", here),
                    data=Raw(events.encode(message("0zed", f"{bob_id}@tokyo", "elsewhere"))),
                )
            ),
        }
        for answer in (
            await nagoya.tell(*bad_told.values()),
            await nagoya.submit(*bad.values(), good),
        ):
            assert answer.state == "taken", "what is bad holds up nothing"
        bad = {**bad_told, **bad}
        heard = await alice.until("chat")
        assert (heard["from"], heard["content"]) == ("zed@nagoya", "fair and square")
        await eventually(lambda: len(refusals(company)) >= before + len(bad))
        for why, said in zip(bad, refusals(company)[before:], strict=True):
            assert why.strip() in said
        assert alice.contents() == ["fair and square"]


async def test_what_cannot_be_kept_holds_up_nothing(company: Company) -> None:
    """Too large for the log, also only with the names that it has here; or for the database."""
    (alice_id,) = names("alice")
    async with Clients() as connect, Nagoya(company) as nagoya:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        before = len(refusals(company))
        here, there = subjects.group("g"), "zed"
        page = outbox.GroupPage(
            seq=21, group_id="g", name="g", kind="group", created_by=there, size=2, members={}
        )
        came = events.MemberAdded(
            **{"chat_id": here, "group_id": "g", "by": there, "name": "g"},
            kind="group",
            users=[f"{alice_id}@tokyo"],
            size=2,
        )
        mentions = [f"u{number}" for number in range(20_000)]
        grown = msgspec.structs.replace(message(there, f"{alice_id}@tokyo", "x"), mentions=mentions)
        assert len(events.encode(grown)) < MAX_EVENT_BYTES
        large = submitted(message(there, f"{alice_id}@tokyo", "x" * (MAX_EVENT_BYTES - 300)))
        await nagoya.tell(outbox.encode(page))
        huge = msgspec.structs.replace(page, seq=22, size=2**70)
        await nagoya.submit(large, submitted(grown))
        await nagoya.tell(outbox.encode(huge), own(23, msgspec.structs.replace(came, size=2**70)))
        await nagoya.tell(own(24, came))
        await nagoya.submit(submitted(message(there, f"{alice_id}@tokyo", "what can be kept")))
        await alice.until("member_added", group_id="g@nagoya")
        await alice.until("chat", content="what can be kept")
        assert alice.contents() == ["what can be kept"]
        await eventually(lambda: len(refusals(company)) >= before + 4)
        said = refusals(company)[before:]
        assert ["too large" in each for each in said] == [True, True, False, False]


async def test_what_comes_twice_is_taken_once(company: Company) -> None:
    (alice_id,) = names("alice")
    async with Clients() as connect, Nagoya(company) as nagoya:
        alice = await connect(company["tokyo"].edges[0], alice_id)
        said = [submitted(message("zed", f"{alice_id}@tokyo", f"{n}")) for n in range(3)]
        start = nagoya.at["submitted"]
        await nagoya.submit(*said)
        nagoya.at["submitted"] = start
        assert (await nagoya.submit(*said)).at == start + 3
        await nagoya.submit(submitted(message("zed", f"{alice_id}@tokyo", "last")))
        await alice.until("chat", content="last")
        assert alice.contents() == ["0", "1", "2", "last"]
        at = nagoya.at["submitted"]
        later = [(at + 6, Raw(said[0]))]
        hole = Batch(box="submitted", epoch=EPOCH, after=at + 5, parcels=later)
        assert await nagoya.ask("parcels", hole) == Answer(at=at, state="again")
        other = Where(box="submitted", epoch="another outbox", machines=(900, 999))
        assert (await nagoya.ask("where", other)).state == "stranger"


async def test_nobody_speaks_for_another(company: Company) -> None:
    """The servers see to it: neither as another site, nor to read what is for it."""
    where = json.dumps({"epoch": "x", "machines": [900, 999]}).encode()
    async with Nagoya(company) as nagoya:
        for subject in ("fed.tokyo.kyoto.where", "fed.tokyo.kyoto.parcels"):
            with pytest.raises(Refused, match="does not let"):
                await nagoya.bus.request(subject, where, timeout_s=2)
        with pytest.raises(Refused, match="does not let"):
            await nagoya.bus.request("$JS.API.STREAM.NAMES", b"", timeout_s=2)
