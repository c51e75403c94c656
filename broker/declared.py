"""Everything on the bus that a site needs, as data; `broker.streams.ensure` makes it so."""

from . import dead, lease, links, machine, outbox, pointers, presence, sites
from .config import BrokerConfig
from .streams import Stream, bucket, chat_stream


def declared(config: BrokerConfig) -> list[Stream]:
    """Streams and buckets, in order of creation."""
    return [chat_stream(config), *beside(config)]


def beside(config: BrokerConfig) -> list[Stream]:
    """All but the log, which only those make who know where it begins."""
    return [
        dead.stream(config),
        bucket(machine.BUCKET, config),
        bucket(pointers.BUCKET, config),
        bucket(pointers.DELIVERED, config),
        presence.stream(config),
        lease.stream(config),
        sites.stream(config),
        bucket(links.BUCKET, config),
        *outbox.streams(config),
    ]
