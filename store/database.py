"""The one place that knows the MongoDB driver (motor) and its settings.

Every write is `w: majority, j: true`: an acknowledged write is on the journal of a majority.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)
from pymongo.read_concern import ReadConcern

from .config import StoreConfig
from .errors import StoreUnavailable

SELECTION_MS = 2_000
SOCKET_MS = 10_000
TRANSACTION_MS = 5_000

_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18

Session = Any
Document = dict[str, Any]
_T = TypeVar("_T")

_log = logging.getLogger("hikyaku.store")


class Database:
    """The site's database. `address` is for messages to people and holds no password."""

    def __init__(self, client: Any, config: StoreConfig):
        self._client = client
        self._database = client[config.database]
        address = config.url.rpartition("@")[2].partition("?")[0].removeprefix("mongodb://")
        self.address = address.rstrip("/")
        self._role = config.role or "this user"

    def __getitem__(self, name: str) -> Any:
        return self._database[name]

    @contextmanager
    def errors(self) -> Any:
        """Turn the driver's connection errors into `StoreUnavailable` with the address."""
        try:
            yield
        except (ConnectionFailure, CursorNotFound, ExecutionTimeout, WTimeoutError) as error:
            _log.debug("MongoDB at %s: %s", self.address, error)
            why = ""
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                why = ": its certificate is no good: renew it with `hikyaku certificates`;"
                why += " HIKYAKU_MONGO_CA must be its authority"
            raise StoreUnavailable(f"MongoDB does not answer at {self.address}{why}") from error
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                raise StoreUnavailable(
                    f"MongoDB at {self.address} does not let {self._role} do that:"
                    " `hikyaku mongo-init` gives each role what it needs"
                ) from error
            if error.code != _AUTHENTICATION_FAILED:
                raise
            raise StoreUnavailable(
                f"MongoDB at {self.address} refuses the user or the password of its URL"
            ) from error
        except ConfigurationError as error:
            # A server that is only starting says that it knows no sessions.
            raise StoreUnavailable(f"MongoDB at {self.address} is not ready: {error}") from error

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when there is no primary."""
        with self.errors():
            await self._client.admin.command("ping")

    async def names(self) -> list[str]:
        """The names of all collections."""
        with self.errors():
            found: list[str] = await self._database.list_collection_names()
        return sorted(name for name in found if not name.startswith("system."))

    async def command(self, command: Document) -> Document:
        """Run a command on the database."""
        with self.errors():
            answer: Document = await self._database.command(command)
        return answer

    async def ahead_ms(self) -> int:
        """By how much this process' clock runs ahead of that of MongoDB's primary, at least 0.

        Who removes what is old goes by the earlier of the two.
        """
        own = time.time_ns() // 1_000_000
        now: datetime = (await self.command({"hello": 1}))["localTime"]
        return max(0, own - round(now.timestamp() * 1000))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """A session whose reads all see the moment of the first one.

        MongoDB keeps that for `minSnapshotHistoryWindowInSeconds`, 300 unless set.
        """
        with self.errors():
            async with await self._client.start_session(snapshot=True) as session:
                yield session

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
    options: dict[str, Any] = {}
    if config.password:
        options |= {"username": config.role, "password": config.password, "authSource": "admin"}
    if config.ca:
        options |= {"tls": True, "tlsCAFile": config.ca}
    client: Any = AsyncIOMotorClient(
        config.url,
        serverSelectionTimeoutMS=SELECTION_MS,
        connectTimeoutMS=SELECTION_MS,
        socketTimeoutMS=SOCKET_MS,
        w="majority",
        journal=True,
        appname=f"hikyaku {config.role}".rstrip(),
        tz_aware=True,
        **options,
    )
    try:
        yield Database(client, config)
    finally:
        client.close()


__all__ = ["Database", "Document", "PyMongoError", "Session", "connect"]
