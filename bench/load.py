"""Closed-loop load: clients that keep a fixed number of messages without an ack, and the window."""

import asyncio
import time
from collections.abc import Sequence

from . import messages
from .client import Client
from .process import CpuMeter
from .scenario import BenchError, Context, Outcome, check_alive, reached

RETRY_S = 0.1
DRAIN_TIMEOUT_S = 20.0


class Loader(Client):
    """Counts acks and deliveries; with a template it sends the next message for each ack."""

    def __init__(self, user: str, template: messages.Template | None = None) -> None:
        super().__init__(user)
        self.acked = 0
        self.delivered = 0
        self.sent = 0
        self.running = False
        self._limit = 0
        self._template = template

    def start(self, outstanding: int, *, limit: int = 1 << 60) -> None:
        """Send the first messages, at most `limit` in all."""
        self.running = True
        self._limit = limit
        for _ in range(min(outstanding, limit)):
            self._next()

    def text(self, data: bytes, start: int, end: int) -> None:
        """Count a delivery or an ack."""
        if data.find(messages.MARK, start, end) >= 0:
            self.delivered += 1
        elif data.find(messages.ACK, start, end) >= 0:
            self.acked += 1
            if self.running:
                self._next()
        else:
            self.control(data[start:end])

    def refused(self, fields: dict[str, object]) -> None:
        """A refused message is not sent again; its place goes to a new one, a little later."""
        self.sent -= 1
        if fields.get("retryable"):
            asyncio.get_running_loop().call_later(RETRY_S, self._after_refusal)

    def _after_refusal(self) -> None:
        if self.running:
            self._next()

    def _next(self) -> None:
        if self._template is not None and self.sent < self._limit:
            number = self.sent + len(self.errors)
            self.sent += 1
            self.send(self._template.frame(number, time.monotonic_ns()))


async def saturate(
    context: Context,
    senders: Sequence[Loader],
    receivers: Sequence[Loader],
    *,
    outstanding: int,
    copies: int,
) -> Outcome:
    """Keep `outstanding` messages of each sender in flight; count what the receivers get.

    Each message must arrive `copies` times at the receivers in all; it is checked at the end.
    """

    def delivered() -> int:
        return sum(client.delivered for client in receivers)

    def acked() -> int:
        return sum(client.acked for client in senders)

    def sent() -> int:
        return sum(client.sent for client in senders)

    cpu = CpuMeter(context.target.supervisor)
    acked_before, delivered_before = acked(), delivered()
    context.say("warming up")
    for client in senders:
        client.start(outstanding)
    await asyncio.sleep(context.scaled(3, 1))
    context.say("measuring")
    cpu.start()
    own_s, begin_s, before = time.process_time(), time.monotonic(), delivered()
    await asyncio.sleep(context.scaled(10, 2))
    count, seconds = delivered() - before, time.monotonic() - begin_s
    own_s, used = time.process_time() - own_s, cpu.used_s()
    context.say("draining")
    for client in senders:
        client.running = False
    check_alive([*senders, *receivers])
    all_sent = sent()
    await reached(
        lambda: all_sent - sent() + acked() - acked_before, all_sent, timeout_s=DRAIN_TIMEOUT_S
    )
    await reached(delivered, delivered_before + sent() * copies, timeout_s=DRAIN_TIMEOUT_S)
    if not count:
        raise BenchError("nothing was delivered while measuring")
    return Outcome(
        metrics={"per_s": count / seconds, "cpu_us": sum(used.values()) / count * 1e6},
        cpu_us={name: spent / count * 1e6 for name, spent in used.items()},
        notes={
            "deliveries": count,
            "generator_cpu_share": round(own_s / seconds, 3),
            "server_cpu_share": round(sum(used.values()) / seconds, 3),
            "refused_and_retried": sum(len(client.errors) for client in senders),
        },
    )
