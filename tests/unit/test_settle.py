"""The index ends as MongoDB is: random orders, redeliveries, kills, several writers, a rebuild.

The parts that write are the real ones; MongoDB and the search server are dictionaries, and every
call to them takes a random number of turns of the loop, so that writers overtake one another in
ways that real servers show once in a long time. `tests/integration/test_index.py` has real ones.
"""

import asyncio
import random
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import pytest

from search.documents import Document, document_of
from search.indexes import Refusal
from store.searchable import Numbers
from workers import rebuild, settle
from workers.rebuild import Overtaken, Rebuild
from workers.settle import Settler

pytestmark = pytest.mark.anyio

MESSAGES = 3
EVENTS = 8
WRITERS = 3
SLOWNESS = 12
EPISODES = 400
"""Short ones: a fault shows only if no later event mends it."""


class World:
    """MongoDB, the log and the search server; everything that is asked takes a while."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.mongo: dict[int, dict[str, Any]] = {}
        self.indexes: dict[int, dict[str, Document]] = {1: {}}
        self.live, self.building, self.last = 1, 0, 1
        self.undone: list[int] = []
        """Messages of events that nobody has acknowledged."""
        self.seq = 0
        self.written = 0

    async def a_while(self) -> None:
        for _ in range(self.random.randrange(SLOWNESS)):
            await asyncio.sleep(0)

    def event(self) -> None:
        """One more event: it is in MongoDB, and waits to be indexed."""
        self.seq += 1
        key = self.random.randrange(1, MESSAGES + 1)
        message = self.mongo.setdefault(
            key, {"_id": key, "chat": "c", "from": "u", "at": 1, "seq": self.seq, "content": "new"}
        )
        if "deleted_seq" not in message and message["seq"] != self.seq:
            if self.random.random() < 0.1:
                message.update(deleted_seq=self.seq, content="")
            else:
                message.update(edited_seq=self.seq, content=f"version {self.seq}")
        self.undone.append(key)

    def expected(self) -> dict[str, Document]:
        made = (document_of(each, since_ms=0) for each in self.mongo.values())
        return {each["id"]: each for each in made if each is not None}

    # --- as `Searchable` ---

    async def messages(self, ids: Collection[int]) -> dict[int, dict[str, Any]]:
        await self.a_while()
        found = {key: dict(self.mongo[key]) for key in ids if key in self.mongo}
        await self.a_while()
        return found

    async def page(self, after: int, up_to: int, limit: int) -> list[int]:
        await self.a_while()
        return sorted(key for key in self.mongo if after < key <= up_to)[:limit]

    async def last_id(self) -> int:
        await self.a_while()
        return max(self.mongo, default=0)

    async def count(self) -> int:
        return len(self.mongo)

    # --- as `Indexes` ---

    async def ensure(self, number: int) -> None:
        await self.a_while()
        self.indexes.setdefault(number, {})

    async def write(
        self, number: int, documents: Iterable[Document], gone: Collection[str]
    ) -> list[Refusal]:
        await self.a_while()
        index = self.indexes.setdefault(number, {})
        for each in documents:
            index[each["id"]] = each
            self.written += 1
        for key in gone:
            index.pop(key, None)
        await self.a_while()
        return []

    async def numbers(self) -> list[int]:
        await self.a_while()
        return sorted(self.indexes)

    async def remove(self, number: int) -> None:
        await self.a_while()
        self.indexes.pop(number, None)

    # --- as `SearchNumbers` ---

    async def read(self) -> Numbers:
        await self.a_while()
        numbers = Numbers(self.live, self.building or None)
        await self.a_while()
        return numbers

    async def begin(self) -> int:
        await self.a_while()
        self.last += 1
        self.building = self.last
        return self.building

    async def going_on(self, number: int) -> bool:
        await self.a_while()
        return self.building == number

    async def finish(self, number: int) -> bool:
        await self.a_while()
        if self.building != number:
            return False
        self.live, self.building = number, 0
        return True

    async def abandon(self, number: int) -> bool:
        if self.building == number:
            self.building = 0
        return True


class _Named:
    """The world under another name where two parts call a method alike."""

    def __init__(self, world: World, **names: str):
        self._world = world
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, self._names.get(name, name))


async def _write(world: World, settler: Settler, *, until: asyncio.Event) -> None:
    """One worker: takes events in any order, some twice, and gives back what it is not sure of."""
    while world.undone or not until.is_set():
        await asyncio.sleep(0)
        if not world.undone:
            continue
        count = world.random.randrange(1, 6)
        chosen = world.random.sample(range(len(world.undone)), min(count, len(world.undone)))
        taken = [world.undone[each] for each in chosen]
        if world.random.random() < 0.9:
            world.undone = [e for n, e in enumerate(world.undone) if n not in chosen]
        try:
            settled = await settler.settle(set(taken), (await world.read()).all)
        except asyncio.CancelledError:
            world.undone += taken
            raise
        world.undone += [each for each in taken if each in settled.unsure]


async def _rebuild_often(world: World, settler: Settler, *, until: asyncio.Event) -> None:
    searchable: Any = _Named(world, last="last_id")
    while not until.is_set():
        numbers: Any = world
        work = asyncio.create_task(
            Rebuild(searchable, numbers, numbers, settler).run(lambda done, total: None)
        )
        if world.random.random() < 0.5:
            for _ in range(world.random.randrange(200)):
                await asyncio.sleep(0)
            work.cancel()
        with suppress(asyncio.CancelledError, Overtaken):
            await work


async def _run(seed: int, *, rebuilding: bool) -> World:
    world = World(seed)
    anything: Any = world
    settler = Settler(anything, anything, days=1e6)
    until = asyncio.Event()
    tasks = [asyncio.create_task(_write(world, settler, until=until)) for _ in range(WRITERS)]
    others = []
    if rebuilding:
        others = [
            asyncio.create_task(_rebuild_often(world, settler, until=until)) for _ in range(2)
        ]
    for _ in range(EVENTS):
        world.event()
        for _ in range(world.random.randrange(20)):
            await asyncio.sleep(0)
        if world.random.random() < 0.1:
            killed = world.random.randrange(WRITERS)
            tasks[killed].cancel()
            await asyncio.wait([tasks[killed]])
            tasks[killed] = asyncio.create_task(_write(world, settler, until=until))
    until.set()
    await asyncio.gather(*tasks, *others)
    return world


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "LAST_LOOK_S", 0.0)
    monkeypatch.setattr(rebuild, "PAGE", 4)


@pytest.mark.parametrize("rounds", [1, 3])
async def test_the_index_ends_as_mongodb_is(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "ROUNDS", rounds)
    for seed in range(EPISODES):
        world = await _run(seed, rebuilding=False)
        assert world.indexes == {1: world.expected()}, seed


@pytest.mark.parametrize("rounds", [1, 3])
async def test_also_while_it_is_rebuilt(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "ROUNDS", rounds)
    for seed in range(EPISODES):
        world = await _run(seed, rebuilding=True)
        assert world.indexes[world.live] == world.expected(), seed


async def test_what_is_edited_without_end_holds_up_nobody() -> None:
    world = World(1)
    anything: Any = world
    settler = Settler(anything, anything, days=1e6)
    world.event()
    (key,) = world.mongo
    editing = True

    async def edit() -> None:
        while editing:
            world.seq += 1
            world.mongo[key].update(edited_seq=world.seq, content=f"version {world.seq}")
            await asyncio.sleep(0)

    task = asyncio.create_task(edit())
    try:
        async with asyncio.timeout(10):
            for _ in range(20):
                settled = await settler.settle({key}, [1])
                assert settled.refused == {}
    finally:
        editing = False
        await task
    assert world.written <= 20 * settle.ROUNDS


async def test_a_message_that_does_not_change_is_written_once() -> None:
    world = World(2)
    anything: Any = world
    world.event()

    settler = Settler(anything, anything, days=1e6)
    assert (await settler.settle(set(world.mongo), [1])).unsure == set()
    assert world.written == 1
