"""Settings are set when they are not as they should be, and not again and again."""

from typing import Any

import pytest

from search.config import SearchConfig
from search.indexes import Indexes
from search.settings import settings

pytestmark = pytest.mark.anyio


class Server:
    """One index, whose settings the server writes in its own way."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.updates = 0
        self.uid = "messages-1"
        self.task_uid = 1

    async def call(self, work: Any, **_: Any) -> Any:
        return work(self)

    async def finished(self, _: int) -> None:
        pass

    # --- as the client, and as its index ---

    config = None
    http = None

    def index(self, _: str) -> "Server":
        return self

    def get_settings(self) -> dict[str, Any]:
        return self.settings

    def update_settings(self, given: dict[str, Any]) -> "Server":
        self.updates += 1
        self.settings = {**self.settings, **given, "localizedAttributes": [{"locales": ["ja"]}]}
        return self


async def test_a_server_that_writes_a_setting_its_own_way_is_told_once() -> None:
    server: Any = Server()
    indexes = Indexes(server, SearchConfig(locales=("jpn",)))
    for _ in range(5):
        await indexes.ensure(1)
    assert server.updates == 1
    server.settings["rankingRules"] = ["words"]
    for _ in range(5):
        await indexes.ensure(1)
    assert server.updates == 2
    assert server.settings["rankingRules"] == settings(("jpn",))["rankingRules"]
