"""The lease on running the archive: one process at a time, by the clock of MongoDB.

A holder that was paused for too long loses it, and learns so at its next commit.
"""

import asyncio
import logging
import os
import socket
from types import TracebackType
from uuid import uuid4

from .archive_manifest import LEASE, LEASE_MS
from .database import Database, Document
from .errors import StoreError, StoreUnavailable

RENEW_S = 15.0

_log = logging.getLogger("hikyaku.archive")


class Busy(StoreError):
    """Another process runs the archive; the text says which."""

    retryable = True


class Lease:
    """Held while the block runs. Entering raises `Busy` when another process holds it."""

    def __init__(self, database: Database):
        self._database = database
        self._leases = database["leases"]
        self._task: asyncio.Task[None] | None = None
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    async def __aenter__(self) -> "Lease":
        taking = asyncio.create_task(self._take(), name="archive lease")
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # It may be taken all the same, and nobody would give it back.
            await asyncio.wait([taking])
            await self._return()
            raise
        if not taken:
            raise Busy(f"the archive is being run by {await self.holder()}")
        self._task = asyncio.create_task(self._keep(), name="archive lease")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._return()

    async def _take(self) -> bool:
        free = {"$lt": [{"$ifNull": ["$until", "$$NOW"]}, {"$add": ["$$NOW", 1]}]}
        with self._database.errors():
            made = {"$setOnInsert": {"commits": 0}}
            await self._leases.update_one({"_id": LEASE}, made, upsert=True)
            taken = await self._leases.update_one(
                {"_id": LEASE, "$expr": free}, [{"$set": self._held()}]
            )
        return bool(taken.matched_count)

    async def _return(self) -> None:
        try:
            with self._database.errors():
                own = {"_id": LEASE, "owner": self.owner}
                await self._leases.update_one(own, {"$unset": {"owner": 1, "until": 1}})
        except StoreUnavailable as unavailable:
            _log.info("lease not returned, it ends by itself: %s", unavailable)

    def _held(self) -> Document:
        return {"owner": self.owner, "until": {"$add": ["$$NOW", LEASE_MS]}}

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                with self._database.errors():
                    own = {"_id": LEASE, "owner": self.owner}
                    renewed = await self._leases.update_one(own, [{"$set": self._held()}])
            except StoreUnavailable as error:
                _log.warning("lease not renewed: %s", error)
                continue
            if renewed.matched_count == 0:
                _log.warning("the lease was lost; another process runs the archive")
                return

    async def holder(self) -> str:
        """Who holds it, or empty."""
        with self._database.errors():
            found: Document | None = await self._leases.find_one({"_id": LEASE})
        return str((found or {}).get("owner", ""))

    async def finished_ago_s(self) -> float | None:
        """How long ago a run was finished, by the clock of MongoDB; None: never."""
        ago = {"$subtract": ["$$NOW", "$finished"]}
        pipeline: list[Document] = [{"$match": {"_id": LEASE}}, {"$project": {"ago": ago}}]
        with self._database.errors():
            found = await self._leases.aggregate(pipeline).to_list(1)
        ago_ms = found[0].get("ago") if found else None
        return None if ago_ms is None else ago_ms / 1000

    async def finish(self) -> None:
        """A run is finished."""
        with self._database.errors():
            own = {"_id": LEASE, "owner": self.owner}
            await self._leases.update_one(own, [{"$set": {"finished": "$$NOW"}}])
