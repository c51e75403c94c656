"""What the broker package must be told: where NATS is and how the log is kept."""

from msgspec import Struct


class BrokerConfig(Struct, frozen=True, kw_only=True):
    """Where NATS is, and the limits of the log.

    `replicas` is 1 (one server, every commit fsynced) or 3. `max_bytes` bounds the log: when it is
    full, sends are refused with `overloaded`; nothing stored is dropped. `max_age_s` is how long
    a client may be away and still be resumed from the log. `outbox_bytes` bounds what waits for
    other sites. `machines` are the machine numbers, first and last, that message ids of this site
    may have: linked sites have others.

    `role` is one of `broker.roles`: with a password it is the user at NATS, whatever the addresses
    say; it names the inbox too. `ca` is a PEM file with the authority whose certificates the
    servers must have; with it, a connection without TLS is refused.
    """

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    role: str = ""
    password: str = ""
    ca: str = ""
    replicas: int = 1
    max_bytes: int = 32 * 1024**3
    max_age_s: float = 7 * 86400.0
    outbox_bytes: int = 8 * 1024**3
    machines: tuple[int, int] = (0, 1023)
