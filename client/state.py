"""What a client tells about its connection."""

from dataclasses import dataclass
from typing import Literal

from .errors import ClientError

Phase = Literal["connecting", "online", "waiting", "stopped", "closed"]


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """`waiting`: tries again after `retry_in_s`; `reason` says why, in words for a person."""

    phase: Phase
    retry_in_s: float = 0.0
    reason: str = ""
    error: ClientError | None = None
