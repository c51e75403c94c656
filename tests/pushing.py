"""A site that pushes: edges and workers as processes, and the push services on loopback."""

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from broker.bus import Bus
from broker.committer import Committer
from broker.consumer import progress
from broker.log import Log
from store.config import StoreConfig
from store.database import Database, connect
from workers.notify import CONSUMER

from .brokers import TIMEOUT_S, make_bus
from .metrics import sample
from .mirror import until
from .ports import free_port
from .push_server import Authority
from .push_services import Apns, Browser, Fcm, PushService
from .servers import SECRET, Hikyaku, Process, Site, token

WITHIN_S = 30.0


class World:
    """A site with `notify` and all providers; `worker` is its first process."""

    site: Site
    bus: Bus
    database: Database
    apns: Apns
    fcm: Fcm
    push: PushService

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float | None = None,
        site: Site | None = None,
        **settings: str,
    ):
        """With `lease_s`, what a killed worker had in hand is free again so soon.

        `site` is one that runs already.
        """
        self._running = site
        self._folder = folder
        self._lease_s = lease_s
        self._settings = settings
        self.authority = Authority(folder / "ca")
        self.workers: list[Hikyaku] = []

    @property
    def worker(self) -> Hikyaku:
        return self.workers[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        async with AsyncExitStack() as stack:
            for name, kind in (("apns", Apns), ("fcm", Fcm), ("push", PushService)):
                service = kind(self.authority, self._folder)
                setattr(self, name, await stack.enter_async_context(service))
            self.site = self._running or Site(self._folder, **self._settings)
            stack.callback(self._stop)
            if self._running is None:
                await self.site.start()
            self.bus = await stack.enter_async_context(make_bus(self.site.nats.url))
            await self.bus.wait_connected(TIMEOUT_S)
            self.database = await stack.enter_async_context(
                connect(StoreConfig(url=self.site.mongo.url))
            )
            self.add_worker()
            await self.worker.start()
            yield self

    def _stop(self) -> None:
        for each in self.workers:
            each.process.end(signal.SIGKILL)
        if self._running is None:
            self.site.stop()

    def add_worker(self) -> Hikyaku:
        """Another process of `notify`, not started."""
        port = free_port([each.port for each in self.workers])
        settings = {
            "HIKYAKU_HOME": str(self._folder / "home"),
            "HIKYAKU_NATS_URL": self.site.nats.url,
            "HIKYAKU_MONGO_URL": self.site.mongo.url,
            "HIKYAKU_JWT_SECRET": SECRET,
            "HIKYAKU_WORKER_HEALTH_PORT": str(port),
            "HIKYAKU_PUSH_WAIT_S": "0.3",
            "HIKYAKU_PUSH_COALESCE_S": "1",
            "HIKYAKU_WEBHOOKS": "on",
            **self.authority.env,
            **self.apns.env,
            **self.fcm.env,
            **self.push.env,
            **self._settings,
        }
        worker = Hikyaku(
            self._folder / f"notify{len(self.workers)}", ["worker", "notify"], settings
        )
        if self._lease_s is not None:
            command = (sys.executable, "-m", "tests.notifying", str(self._lease_s))
            worker.process = Process(command, worker.process.log.parent, worker.process._env)
        worker.port = port
        worker._answers = worker._says_so  # type: ignore[method-assign]
        self.workers.append(worker)
        return worker

    def set(self, name: str, value: str) -> None:
        """A setting of the workers that are added from now on."""
        self._settings[name] = value

    # --- asking ---

    async def commit(self, chat_id: str, event: bytes) -> None:
        """Store an event in the log, as an edge does."""
        async with Committer(self.bus, Log(self.bus)) as committer:
            await committer.commit(chat_id, event, msg_id=uuid4().hex)

    async def call(
        self, method: str, path: str, user: str, body: Any = None, **claims: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request to the first edge."""
        edge = self.site.edges[0]

        def send() -> tuple[int, dict[str, Any]]:
            request = urllib.request.Request(f"http://127.0.0.1:{edge.port}{path}", method=method)
            request.add_header("Authorization", f"Bearer {token(user, **claims)}")
            if body is not None:
                request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())

        return await asyncio.to_thread(send)

    async def register(
        self, user: str, device: str, provider: str, *, vip: bool = False, **fields: Any
    ) -> dict[str, Any]:
        asked = {"device": device, "provider": provider, **fields}
        claims: dict[str, Any] = {"vip": True} if vip else {}
        status, answer = await self.call("POST", "/v1/devices", user, asked, **claims)
        assert status == 201, answer
        return answer

    async def browser(self, user: str, device: str = "web", **fields: Any) -> Browser:
        """Register a browser."""
        browser = self.push.browser(f"{user}-{device}")
        fields["subscription"] = browser.subscription
        await self.register(user, device, "webpush", **fields)
        return browser

    async def change(self, user: str, **fields: Any) -> dict[str, Any]:
        status, answer = await self.call("PUT", "/v1/notifications", user, fields)
        assert status == 200, answer
        return answer

    def metric(self, name: str, worker: Hikyaku | None = None, **labels: str) -> float:
        return sample((worker or self.worker).get("/metrics"), name, **labels)

    # --- waiting ---

    async def settled(self) -> None:
        """Wait until all that is in the log now was pushed, or is not going to be."""
        await self.bus.wait_connected(WITHIN_S)
        last = (await Log(self.bus).state()).last_seq

        async def done() -> bool:
            if not (await progress(self.bus, CONSUMER, to=last)).reached(last):
                return False
            waiting = {"due": {"$exists": True}}
            chats = await self.database["push_chats"].count_documents(waiting)
            return not chats and not await self.database["pushes"].count_documents(waiting)

        await until(done)
