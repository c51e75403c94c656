"""Everything on the bus that a site needs, as data; `broker.streams.ensure` makes it so."""

from . import dead, lease, machine, pointers, presence
from .config import BrokerConfig
from .streams import Stream, bucket, chat_stream


def declared(config: BrokerConfig) -> list[Stream]:
    """Streams and buckets, in order of creation."""
    return [
        chat_stream(config),
        dead.stream(config),
        bucket(machine.BUCKET, config),
        bucket(pointers.BUCKET, config),
        presence.stream(config),
        lease.stream(config),
    ]
