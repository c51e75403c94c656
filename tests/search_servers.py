"""The search server for tests: its own process, a free port, a folder, a master key.

The embedded one; in containers whatever the image has, which may be Meilisearch.
"""

from pathlib import Path

from deploy.probes import http_ok

from .ports import free_port
from .servers import CONTAINERS, Hikyaku, container, until_ready

MASTER_KEY = "a-master-key-of-at-least-16-bytes"


class SearchServer:
    """`hikyaku search serve` as operators run it; kill it, start it again with the same data."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.key = MASTER_KEY
        self.url = f"http://127.0.0.1:{self.port}"
        env = {
            "HIKYAKU_HOME": str(folder),
            "HIKYAKU_SEARCH_PORT": str(self.port),
            "HIKYAKU_SEARCH_KEY": self.key,
        }
        self.process = Hikyaku(folder, ["search", "serve"], env).process
        if CONTAINERS:
            env = {
                "MEILI_ENV": "production",
                "MEILI_NO_ANALYTICS": "true",
                "MEILI_DB_PATH": str(folder / "data"),
                "MEILI_HTTP_ADDR": f"127.0.0.1:{self.port}",
                "MEILI_MASTER_KEY": self.key,
            }
            self.process = container(("meilisearch",), folder, env)

    async def start(self) -> None:
        self.process.start()
        await until_ready(self.process, self._answers)

    async def _answers(self) -> None:
        await http_ok("127.0.0.1", self.port, "/health")

    def stop(self) -> None:
        self.process.end(9)
