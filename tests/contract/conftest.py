"""The servers that the contract is checked on.

The embedded one always; a Meilisearch where `HIKYAKU_TEST_MEILISEARCH_URL` says that one runs, with
`HIKYAKU_TEST_MEILISEARCH_KEY` its master key. Tests make indexes of their own there.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest
from meilisearch import Client

from ..search_servers import SearchServer

URL = os.environ.get("HIKYAKU_TEST_MEILISEARCH_URL", "")
KEY = os.environ.get("HIKYAKU_TEST_MEILISEARCH_KEY", "")


@pytest.fixture(scope="session", params=["embedded", *(["meilisearch"] if URL else [])])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    if request.param == "meilisearch":
        yield Client(URL, KEY)
        return
    server = SearchServer(tmp_path_factory.mktemp("search"))
    try:
        asyncio.run(server.start())
        yield Client(server.url, server.key)
    finally:
        server.stop()
