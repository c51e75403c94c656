"""NATS, MongoDB and workers without edges: for tests of what workers do with the log."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.bus import Bus
from broker.roles import OPERATOR
from store.config import StoreConfig
from store.database import Database, connect

from .brokers import make_bus, prepare
from .metrics import sample
from .ports import free_port
from .servers import SECRET, Hikyaku, Mongo, Nats, Process, as_role

ACK_WAIT_S = 1.0


class Stage:
    """NATS, MongoDB, and any number of persist workers."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.nats = Nats(folder / "nats")
        self.mongo = Mongo(folder / "mongo")
        self.workers: list[Hikyaku] = []
        self.bus: Bus
        self.database: Database

    def env(self, **settings: str) -> dict[str, str]:
        return {
            "HIKYAKU_HOME": str(self.folder / "home"),
            "HIKYAKU_NATS_URL": self.nats.url,
            "HIKYAKU_MONGO_URL": self.mongo.url,
            "HIKYAKU_JWT_SECRET": SECRET,
            **as_role(OPERATOR),
            **settings,
        }

    def persist(self, *words: str, ack_wait_s: float = ACK_WAIT_S) -> Hikyaku:
        """A persist worker with a metrics port, not started; see `tests.persisting`."""
        port = free_port([each.port for each in self.workers])
        worker = Hikyaku(
            self.folder / f"persist{port}",
            [],
            self.env(HIKYAKU_WORKER_HEALTH_PORT=str(port)),
            role="persist",
        )
        command = (sys.executable, "-m", "tests.persisting", str(ack_wait_s), *words)
        worker.process = Process(command, worker.process.log.parent, worker.process._env)
        worker.port = port
        self.workers.append(worker)
        return worker

    def end_workers(self) -> None:
        while self.workers:
            self.workers.pop().process.end(signal.SIGKILL)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stage"]:
        try:
            await asyncio.gather(self.nats.start(), self.mongo.start())
            async with (
                make_bus(self.nats.url) as self.bus,
                connect(StoreConfig(url=self.mongo.url)) as self.database,
            ):
                await prepare(self.bus)
                yield self
        finally:
            self.end_workers()
            self.nats.process.kill()
            self.mongo.process.kill()


def metric(worker: Hikyaku, name: str, **labels: str) -> float:
    return sample(worker.get("/metrics"), name, **labels)


def lag(worker: Hikyaku) -> float:
    """Events that `persist` has not done, as a worker of it knows."""
    return metric(worker, "consumer_pending_events", consumer="persist")
