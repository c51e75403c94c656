"""What an edge notes of single messages when they are followed: see `broker.following`."""

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from broker import events
from broker.committer import Committed, Committer, OnDone, Outcome
from broker.following import TRACE_HEADER, Following, trace_of

if TYPE_CHECKING:
    from .hub import Hub

TRACES = 10_000
"""Headers of so many events are kept until these are delivered."""


class EdgeFollowing:
    """An edge has one only if messages are followed."""

    def __init__(self, following: Following, hub: "Hub", committer: Committer):
        self._following = following
        self._hub = hub
        self._committer = committer
        self._traces: OrderedDict[int, bytes] = OrderedDict()

    def written(self, message_id: str, chat_id: str, done: OnDone) -> tuple[OnDone, bytes]:
        """A message is to be stored: what is to be called when it is, and its header."""
        span = self._following.begin(message_id, chat_id)
        trace = b"" if span is None else span.trace

        def noted(outcome: Outcome) -> None:
            took_s = asyncio.get_running_loop().time() - self._committer.began
            batch, step = self._committer.batch, self._following.step
            if not isinstance(outcome, Committed):
                step("refused", message_id, trace=trace, chat=chat_id, reason=str(outcome))
            elif outcome.first is not None:
                first = events.decode_identity(outcome.first).id
                step("duplicate", message_id, trace=trace, seq=outcome.seq, first=first)
            else:
                step(
                    "stored",
                    message_id,
                    trace=trace,
                    took_s=took_s,
                    seq=outcome.seq,
                    chat=chat_id,
                    batch=batch,
                )
            done(outcome)
            if span is not None:
                span.end()

        header = b"%b: %b\r\n" % (TRACE_HEADER, trace) if trace else b""
        return noted, header

    def on_header(self, seq: int, header: bytes) -> None:
        """An event came live."""
        trace = trace_of(header)
        if trace:
            self._traces[seq] = trace
            if len(self._traces) > TRACES:
                self._traces.popitem(last=False)

    def on_event(self, seq: int, subject: str, stored: bytes) -> None:
        """Deliver an event, and note it if somebody got it."""
        before, begin = self._hub.delivered, monotonic()
        self._hub.on_event(seq, subject, stored)
        trace = self._traces.pop(seq, b"")
        sessions = self._hub.delivered - before
        message_id = events.message_id(stored)
        if message_id is not None and sessions:
            self._following.step(
                "delivered",
                message_id.decode(),
                trace=trace,
                took_s=monotonic() - begin,
                seq=seq,
                chat=subject,
                sessions=sessions,
            )

    def replayed(self, seq: int, subject: str, stored: bytes) -> None:
        """An event that a client had missed was sent to it."""
        message_id = events.message_id(stored)
        if message_id is not None:
            self._following.step("replayed", message_id.decode(), seq=seq, chat=subject)
