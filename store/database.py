"""The one place that knows the MongoDB driver (motor) and its settings.

Every write is `w: majority, j: true`: an acknowledged write is on the journal of a majority.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    ExecutionTimeout,
    PyMongoError,
    WTimeoutError,
)
from pymongo.read_concern import ReadConcern

from .config import StoreConfig
from .errors import StoreUnavailable

SELECTION_MS = 2_000
SOCKET_MS = 10_000
TRANSACTION_MS = 5_000

Session = Any
Document = dict[str, Any]
_T = TypeVar("_T")

_log = logging.getLogger("hikyaku.store")


class Database:
    """The site's database. `address` is for messages to people and holds no password."""

    def __init__(self, client: Any, config: StoreConfig):
        self._client = client
        self._database = client[config.database]
        self.address = config.url.rpartition("@")[2].partition("?")[0].removeprefix("mongodb://")

    def __getitem__(self, name: str) -> Any:
        return self._database[name]

    @contextmanager
    def errors(self) -> Any:
        """Turn the driver's connection errors into `StoreUnavailable` with the address."""
        try:
            yield
        except (ConnectionFailure, CursorNotFound, ExecutionTimeout, WTimeoutError) as error:
            _log.debug("MongoDB at %s: %s", self.address, error)
            raise StoreUnavailable(f"MongoDB does not answer at {self.address}") from error
        except ConfigurationError as error:
            # A server that is only starting says that it knows no sessions.
            raise StoreUnavailable(f"MongoDB at {self.address} is not ready: {error}") from error

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when there is no primary."""
        with self.errors():
            await self._client.admin.command("ping")

    async def transaction(self, work: Callable[[Session], Awaitable[_T]]) -> _T:
        """Run `work` in a transaction, again when it met another one's writes."""
        with self.errors():
            async with await self._client.start_session() as session:
                result: _T = await session.with_transaction(
                    work,
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority", j=True),
                    read_preference=ReadPreference.PRIMARY,
                    max_commit_time_ms=TRANSACTION_MS,
                )
                return result


@asynccontextmanager
async def connect(config: StoreConfig) -> AsyncIterator[Database]:
    """Open the database. Does not wait for the server: the first use does, for 2 s."""
    client: Any = AsyncIOMotorClient(
        config.url,
        serverSelectionTimeoutMS=SELECTION_MS,
        connectTimeoutMS=SELECTION_MS,
        socketTimeoutMS=SOCKET_MS,
        w="majority",
        journal=True,
        appname="hikyaku",
        tz_aware=True,
    )
    try:
        yield Database(client, config)
    finally:
        client.close()


__all__ = ["Database", "Document", "PyMongoError", "Session", "connect"]
