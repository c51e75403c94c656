"""What the store must be told: where MongoDB is, and how old messages are archived."""

from msgspec import Struct


class StoreConfig(Struct, frozen=True, kw_only=True):
    """Where MongoDB is. Every write is `w: majority, j: true`.

    With a password, `role` is the user (see `store.roles`), whatever the URL says. `ca` is a
    PEM file with the authority whose certificates the servers must have; with it there is TLS.
    """

    url: str = "mongodb://127.0.0.1:27017/?directConnection=true"
    database: str = "hikyaku"
    role: str = ""
    password: str = ""
    ca: str = ""


class ArchiveConfig(Struct, frozen=True, kw_only=True):
    """Where old messages go, and when.

    Messages older than `hot_days` move from MongoDB to files below `url`. `retention_days` is after
    how long messages are removed altogether (0: never), where a group does not say otherwise. Chats
    are spread over `buckets`; a file has messages of one bucket, up to `file_rows` of them, of
    `file_bytes` before compression.
    """

    url: str = ""
    hot_days: float = 30.0
    retention_days: float = 0.0
    log_days: float = 7.0
    buckets: int = 16
    file_rows: int = 50_000
    file_bytes: int = 32 * 1024 * 1024
