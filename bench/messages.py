"""Measured messages: fixed width, so that each costs one `%` to make and one `find` to read.

The content is `~`, 6 digits of the sender, 9 of the message's number, 19 of the nanosecond
(CLOCK_MONOTONIC) at which it was due, and padding up to `BODY_BYTES`.
"""

from . import wire

BODY_BYTES = 120
MARK = b'"content":"~'
ACK = b'"type":"ack"'
_SENDER, _NUMBER, _DUE = 6, 9, 19
_AT_NUMBER = len(MARK) + _SENDER
_AT_DUE = _AT_NUMBER + _NUMBER
_END = _AT_DUE + _DUE


class Template:
    """What one sender sends to one user (`to`) or group, but for the number and the time."""

    def __init__(
        self, run: str, sender: int, *, to: str | None = None, group_id: str | None = None
    ) -> None:
        kind, field, name = ("chat", "to", to) if to else ("group_chat", "group_id", group_id)
        padding = "x" * (BODY_BYTES - 1 - _SENDER - _NUMBER - _DUE)
        who = f'{{"type":"{kind}","{field}":"{name}","client_id":"{run}-{sender:06d}-'
        what = f'%09d","content":"~{sender:06d}%09d%019d{padding}"}}'
        payload = (who.replace("%", "%%") + what).encode()
        size = len(payload % (0, 0, 0))
        head = wire.frame(bytes(size))[:-size]
        self._frame = head.replace(b"%", b"%%") + payload

    def frame(self, number: int, due_ns: int) -> bytes:
        """The frame to send; `number` is unique for this sender."""
        return self._frame % (number, number, due_ns)


def number(data: bytes, mark: int) -> int:
    """The number of the message whose `MARK` is at `mark`."""
    return int(data[mark + _AT_NUMBER : mark + _AT_DUE])


def sender(data: bytes, mark: int) -> int:
    """The sender of the message whose `MARK` is at `mark`."""
    return int(data[mark + len(MARK) : mark + _AT_NUMBER])


def due_ns(data: bytes, mark: int) -> int:
    """When the message whose `MARK` is at `mark` was due to be sent."""
    return int(data[mark + _AT_DUE : mark + _END])
