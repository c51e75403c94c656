"""What a worker must be told."""

from msgspec import Struct

from broker.config import BrokerConfig
from broker.following import FollowConfig
from search.config import SearchConfig
from store.config import ArchiveConfig, StoreConfig

from .push.config import PushConfig


class FilesConfig(Struct, frozen=True, kw_only=True):
    """The worker `files`: where it listens, where it keeps files, and what it takes.

    `url` is that of the object store, `spool` a folder for what is on its way. `secret` is shared
    with the edges. What no message refers to is removed after `orphan_s`, an upload that is not
    finished after `upload_s`. A quota of 0 is none.
    """

    host: str = "127.0.0.1"
    port: int = 0
    secret: str = ""
    url: str = ""
    spool: str = ""
    file_bytes: int = 100 * 1024 * 1024
    quota_bytes: int = 10 * 1024**3
    pixels: int = 50_000_000
    orphan_s: float = 86_400.0
    upload_s: float = 86_400.0
    sweep_s: float = 600.0
    clamd: str = ""


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """One worker process. `health_port` serves metrics at `health_host`; 0 means not to.

    `link_parcels_per_s` is what `relay` takes from each linked site on average.
    """

    site: str = "local"
    broker: BrokerConfig = BrokerConfig()
    store: StoreConfig = StoreConfig()
    archive: ArchiveConfig = ArchiveConfig()
    archive_interval_s: float = 86_400.0
    search: SearchConfig = SearchConfig()
    files: FilesConfig = FilesConfig()
    group_members: int = 500
    presence_lease_s: int = 10
    pong_timeout_s: float = 90.0
    link_parcels_per_s: float = 5000.0
    push: PushConfig = PushConfig()
    health_port: int = 0
    health_host: str = "127.0.0.1"
    follow: FollowConfig = FollowConfig()
