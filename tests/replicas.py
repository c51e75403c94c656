"""A log on several servers of which one is behind, made of two single ones."""

from collections.abc import Callable
from typing import Any, TypeVar

from broker.bus import Bus, Reply
from broker.log import Log, Stored

_T = TypeVar("_T")


class Replicas(Log):
    """Direct Gets are answered by `behind` as often as told, then by `bus`, who leads."""

    def __init__(self, bus: Bus, behind: Bus, *, stale: int) -> None:
        super().__init__(bus)
        self._behind = Log(behind)
        self.stale = stale

    async def _lags(self) -> bool:
        return True

    def _answers_late(self) -> bool:
        self.stale -= 1
        return self.stale >= 0

    async def get(self, seq: int) -> Stored | None:
        return await (self._behind.get(seq) if self._answers_late() else super().get(seq))

    async def _direct(
        self, request: dict[str, Any], take: Callable[[Reply], _T]
    ) -> tuple[list[_T], int, int]:
        if self._answers_late():
            return await self._behind._direct(request, take)
        return await super()._direct(request, take)
