"""What the parts of `Client` have in common: they ask, and they read the answers."""

from abc import ABC, abstractmethod
from typing import TypeVar

import msgspec

from edge.frames import Ack, Chat, Delete, Edit, GroupChat, React, Request, Result, Welcome

from .errors import ServerError
from .web import Web

T = TypeVar("T")

Write = Chat | GroupChat | Edit | Delete | React
"""A request that is answered with `ack`."""


class Requests(ABC):
    """What `Client` gives to its parts."""

    session: Welcome | None

    @abstractmethod
    def _web(self, patience_s: float) -> Web:
        """Give a way to the server's HTTP, on which a transfer may stand still for so long."""

    @abstractmethod
    async def _ask(
        self,
        frame: Request,
        *,
        lane: str | None = None,
        client_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Result:
        """Send a question and wait for its `result`."""

    @abstractmethod
    async def _write(self, frame: Write, *, lane: str, deadline_s: float | None) -> Ack:
        """Send a write and wait for its `ack`; those of one lane keep their order."""

    @abstractmethod
    def _lane(self, chat_id: str) -> str:
        """Name the lane of a chat, which its messages take too."""


def read_answer(value: object, kind: type[T]) -> T:
    """Read a part of a `result`. Raises `ServerError` if it is not what was asked for."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ServerError("internal", f"the server's answer has wrong fields: {error}") from None
