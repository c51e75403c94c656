"""Follows single messages through a site: a line in the log, and a span, for each step. Both are
off unless set; then there is no `Following`, and nothing is asked about a message.

`log_messages` is the share of messages that is logged. It is chosen by the message's id, so that
every process chooses the same ones and `grep ID` over all logs tells a message's whole way. Never
logged: what a message says, and tokens.

A message that is traced carries `traceparent` in the header of its event.
"""

import logging
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from .log import header_value

if TYPE_CHECKING:
    from .tracing import Span, Tracer

TRACE_HEADER = b"traceparent"
KNOWN = 10_000

_log = logging.getLogger("hikyaku.messages")

Told = str | int | float


class FollowConfig(Struct, frozen=True, kw_only=True):
    """Which messages are followed: a share, 0 to 1, in the log; as traces those that OTEL_* say."""

    log_messages: float = 0.0
    traces: bool = False


class Following:
    """What one process does with single messages. `step` is for what is done with a message."""

    def __init__(self, config: FollowConfig, process: str):
        self._share = int(config.log_messages * 2**32)
        self._traces: OrderedDict[str, bytes] = OrderedDict()
        self._tracer: Tracer | None = None
        if config.traces:
            from . import tracing

            self._tracer = tracing.Tracer(process)

    def begin(self, message_id: str, chat_id: str) -> "Span | None":
        """A message came from a client; the span that all others belong to, if it is traced."""
        self._note("received", message_id, {"chat": chat_id})
        if self._tracer is None:
            return None
        return self._tracer.begin("message", {"hikyaku.id": message_id})

    def step(
        self,
        step: str,
        message_id: str | int,
        *,
        trace: bytes = b"",
        took_s: float = 0.0,
        **told: Told,
    ) -> None:
        """This was done with a message just now; `trace` is its `traceparent`, if it has one."""
        self._note(step, str(message_id), told)
        if trace and self._tracer is not None:
            self._traces[str(message_id)] = trace
            if len(self._traces) > KNOWN:
                self._traces.popitem(last=False)
            named = {f"hikyaku.{name}": value for name, value in told.items()}
            attributes = {"hikyaku.id": str(message_id), **named}
            self._tracer.past(step, trace, int(took_s * 1e9), attributes)

    def trace(self, message_id: str) -> bytes:
        """The `traceparent` of a message that this process did something with lately, or empty."""
        return self._traces.get(message_id, b"")

    def _note(self, step: str, message_id: str, told: dict[str, Told]) -> None:
        if zlib.crc32(message_id.encode()) < self._share:
            fields = {"id": message_id, **told}
            _log.info("message %s %s", message_id, step, extra={"fields": fields})


def following(config: FollowConfig, process: str) -> Following | None:
    """What follows messages, if anything is to."""
    if config.log_messages or config.traces:
        return Following(config, process)
    return None


def trace_of(header: bytes | None) -> bytes:
    """The `traceparent` of a raw header block, or empty."""
    return b"" if header is None else header_value(header, TRACE_HEADER)
