"""A log whose live messages get lost, doubled and out of order on their way to a feed."""

from collections.abc import Callable

from broker.bus import Bus, RawHandler
from broker.feed import Feed
from broker.log import Log

from .brokers import all_events, as_role, commit_all
from .servers import Nats, eventually

Live = tuple[bytes, bytes, bytes | None, bytes]
Loss = Callable[[Live], list[Live]]
"""What becomes of a live message: nothing, itself, itself twice, itself with earlier ones."""


class LossyBus(Bus):
    """Loses, doubles or reorders live messages between the connection and the feed."""

    def __init__(self, url: str):
        super().__init__(as_role(url), name="live")
        self.loss: Loss = lambda message: [message]
        self.lost = 0

    def subscribe(self, subject: str, handler: RawHandler, *, queue: str = "") -> int:
        def receive(*message: object) -> None:
            passing = self.loss(message)  # type: ignore[arg-type]
            self.lost += not passing
            for each in passing:
                handler(*each)

        return super().subscribe(
            subject, receive if subject.startswith("live.") else handler, queue=queue
        )


class Site:
    """A server with a log, a lossy live connection and a good one."""

    def __init__(self, nats: Nats, live: LossyBus, good: Bus):
        self.nats = nats
        self.live = live
        self.good = good
        self.log = Log(good)
        self.events: list[tuple[int, str, bytes]] = []
        self.resets = 0

    def feed(self) -> Feed:
        return Feed(self.live, self.log, self._on_event, self._on_reset)

    def _on_event(self, seq: int, subject: str, data: bytes) -> None:
        self.events.append((seq, subject, data))

    def _on_reset(self) -> None:
        self.resets += 1

    async def write(self, count: int, subject: str = "group.a") -> None:
        await commit_all(self.good, [(subject, b"%d" % number) for number in range(count)])

    async def delivered(self, seq: int, within_s: float = 20) -> None:
        await eventually(
            lambda: bool(self.events) and self.events[-1][0] >= seq,
            within_s=within_s,
            what=f"{seq} delivered; there are {len(self.events)} to {self.events[-1:]}",
        )

    async def assert_exact(self, *, after: int = 0) -> None:
        """The feed delivered the log after `after`, as the leader has it."""
        stored = [(each.seq, each.subject, each.data) for each in await all_events(self.good)]
        assert self.events == stored[after:]
        assert self.live.handler_errors == 0
        assert self.resets == 0
