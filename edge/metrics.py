"""Prometheus metrics, collected from plain numbers when they are asked for.

Names follow the Prometheus conventions: base units, `_total` for counters.
"""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .edge import Edge


class _EdgeCollector(Collector):
    def __init__(self, edge: Edge):
        self._edge = edge

    def collect(self) -> Iterator[Metric]:
        """All metrics of the edge as they are now."""
        edge = self._edge
        counters = edge.counters
        committer = edge.committer
        yield _gauge("connections", "Connections with a session.", edge.hub.sessions)
        yield _counter("connects", "Sessions opened.", counters.connects)
        yield _counter("resumes", "Sessions that had something to replay.", counters.resumes)
        yield _counter("replayed_events", "Events sent in replays.", counters.replayed)
        yield _counter("frames_received", "Frames from clients.", counters.frames_in)
        yield _counter("acks", "Messages acknowledged to their sender.", counters.acks)
        yield _counter("committed_messages", "Messages stored in the log.", committer.committed)
        yield _counter("commits", "Commits, of one message or a batch.", committer.commits)
        yield _counter("commit_seconds", "Time spent in commits.", committer.commit_s)
        yield _counter("commit_retries", "Single publishes repeated.", committer.retries)
        yield _counter("commit_failures", "Messages not stored in time.", committer.failed)
        yield _gauge("commit_waiting", "Messages not yet stored.", committer.waiting)
        yield _counter("delivered_frames", "Events handed to sessions.", edge.hub.delivered)
        if edge.began:
            presence = edge.presence
            yield _gauge("presence_watched", "Users that are watched.", presence.board.users)
            yield _counter("presence_frames", "Presence frames sent.", presence.board.told)
            yield _gauge("presence_waiting", "Keys not yet written.", presence.waiting)
        feed = edge.feed
        if feed is not None:
            yield _gauge("feed_position", "Sequence of the last event seen.", feed.position)
            yield _counter("feed_gaps", "Gaps seen in the live feed.", feed.gaps)
            yield _counter("feed_repaired_events", "Events read back.", feed.repaired)
        reconnects = CounterMetricFamily(
            "hikyaku_edge_nats_connects", "Connections made to NATS.", labels=["bus"]
        )
        for name in ("publishing", "live", "asking"):
            reconnects.add_metric([name], getattr(edge, name).reconnects)
        yield reconnects
        errors = CounterMetricFamily(
            "hikyaku_edge_errors", "Error frames sent, by code.", labels=["code"]
        )
        for code, count in counters.errors.items():
            errors.add_metric([code], count)
        yield errors
        closes = CounterMetricFamily(
            "hikyaku_edge_closes",
            "Connections closed by this server, by reason.",
            labels=["reason"],
        )
        for reason, count in counters.closes.items():
            closes.add_metric([reason], count)
        yield closes


def _gauge(name: str, text: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"hikyaku_edge_{name}", text, value=value)


def _counter(name: str, text: str, value: Any) -> Metric:
    return CounterMetricFamily(f"hikyaku_edge_{name}", text, value=value)


def registry(edge: Edge) -> CollectorRegistry:
    """A registry with this edge's metrics."""
    made = CollectorRegistry()
    made.register(_EdgeCollector(edge))
    return made


def exposition(of: CollectorRegistry) -> bytes:
    """The metrics as Prometheus text."""
    return generate_latest(of)
