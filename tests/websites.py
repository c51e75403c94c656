"""A site with all that the web client can use: search, files, pushes."""

import asyncio
import signal
from pathlib import Path

from .filesite import INTERNAL
from .ports import free_port
from .push_server import Authority
from .push_services import PushService
from .searching import SearchSite
from .servers import Hikyaku


class WebSite(SearchSite):
    """Two edges, every worker, and a push service, which the caller runs."""

    def __init__(self, folder: Path, authority: Authority, push: PushService, **settings: str):
        files_port = free_port()
        super().__init__(
            folder,
            HIKYAKU_MESSAGES_PER_S="2000",
            HIKYAKU_MESSAGES_BURST="20000",
            HIKYAKU_INTERNAL_SECRET=INTERNAL,
            HIKYAKU_FILES_PORT=str(files_port),
            **settings,
        )
        self.push = push
        env = self.worker.process._env or {}
        pushing = {**env, **authority.env, **push.env, "HIKYAKU_PUSH_WAIT_S": "0.1"}
        self.notify = Hikyaku(folder / "notify", ["worker", "notify"], pushing)
        health = free_port([files_port])
        keeping = {**env, "HIKYAKU_WORKER_HEALTH_PORT": str(health)}
        self.files = Hikyaku(folder / "files", ["worker", "files"], keeping, health)

    async def start(self) -> None:
        await super().start()
        await asyncio.gather(self.notify.start(), self.files.start())

    def stop(self) -> None:
        for each in (self.notify, self.files):
            each.process.end(signal.SIGKILL)
        super().stop()
