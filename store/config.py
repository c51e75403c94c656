"""What the store must be told: where MongoDB is."""

from msgspec import Struct


class StoreConfig(Struct, frozen=True, kw_only=True):
    """Where MongoDB is. Every write is `w: majority, j: true`."""

    url: str = "mongodb://127.0.0.1:27017/?directConnection=true"
    database: str = "hikyaku"
