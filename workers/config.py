"""What a worker must be told."""

from msgspec import Struct

from broker.config import BrokerConfig
from store.config import ArchiveConfig, StoreConfig


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """One worker process. `health_port` serves metrics on loopback; 0 means not to."""

    site: str = "local"
    broker: BrokerConfig = BrokerConfig()
    store: StoreConfig = StoreConfig()
    archive: ArchiveConfig = ArchiveConfig()
    archive_interval_s: float = 86_400.0
    group_members: int = 500
    health_port: int = 0
    log_level: str = "info"
