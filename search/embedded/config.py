"""What the embedded search server is told."""

from pathlib import Path

from msgspec import Struct


class SearchServerConfig(Struct, frozen=True, kw_only=True):
    """Where it listens, where its data is, and its master key; without one anyone may do all."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7700
    master_key: str = ""
    max_payload_bytes: int = 100 * 1024**2
