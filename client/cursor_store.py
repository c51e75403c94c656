"""Where a client keeps its cursor between runs: the interface, and one that keeps it in memory."""

from typing import Protocol


class CursorStore(Protocol):
    """Keeps one short text. A client saves at most once in a while, and when it closes."""

    async def load(self) -> str | None:
        """Give what was saved last, or None to start from now."""

    async def save(self, cursor: str) -> None:
        """Keep `cursor`. After an error the client tries again with a newer one."""


class MemoryCursorStore:
    """Keeps the cursor as long as the process lives."""

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor

    async def load(self) -> str | None:
        """Give the cursor."""
        return self.cursor

    async def save(self, cursor: str) -> None:
        """Keep the cursor."""
        self.cursor = cursor
