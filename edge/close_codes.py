"""Close codes of `docs/protocol.md`: the number's range says whether and how to reconnect."""

from enum import IntEnum


class CloseCode(IntEnum):
    """40xx: not without a change. 41xx: with backoff. 42xx: at once, with the cursor."""

    NORMAL = 1000
    GOING_AWAY = 1001
    SERVICE_RESTART = 1012
    UNAUTHORIZED = 4001
    TOKEN_EXPIRED = 4002
    FORBIDDEN = 4003
    TOO_MANY_CONNECTIONS = 4009
    FRAME_TOO_LARGE = 4013
    MALFORMED = 4022
    NO_PONG = 4101
    RATE_LIMITED = 4129
    DRAINING = 4200
    SLOW_CONSUMER = 4208
