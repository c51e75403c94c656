"""What an edge tells Prometheus, collected from plain numbers when it is asked for."""

from collections.abc import Iterator

from prometheus_client import Metric

from broker.feed import Feed
from broker.metrics import counter, gauge

from .edge import Edge
from .files import FileGate
from .presence import Presence

BUSES = ("publishing", "live", "asking")


def metrics(edge: Edge, files: FileGate) -> Iterator[Metric]:
    """All metrics of the edge as they are now."""
    yield gauge("hikyaku_edge_ready", "1 while it can serve.", not edge.missing())
    yield gauge("hikyaku_edge_connections", "Connections with a session.", edge.hub.sessions)
    yield from _of_clients(edge)
    yield from edge.committer.metrics()
    text = "For how long ids can still be made without NATS."
    yield gauge("hikyaku_edge_machine_lease_seconds", text, edge.lease_left_s)
    if edge.began:
        yield from _of_presence(edge.presence)
    if edge.feed is not None:
        yield from _of_feed(edge.feed)
    text = "When the certificate ends that NATS showed when we connected; 0: none was asked for."
    until = edge.asking.certificate_until
    yield gauge("hikyaku_nats_certificate_expiry_timestamp_seconds", text, until)
    yield from _of_files(files)
    connects = {name: getattr(edge, name).reconnects for name in BUSES}
    text = "Connections to NATS that came back."
    yield counter("hikyaku_edge_nats_reconnects_total", text, connects, "bus")


def _of_clients(edge: Edge) -> Iterator[Metric]:
    counters = edge.counters
    yield counter("hikyaku_edge_connects_total", "Sessions opened.", counters.connects)
    text = "Sessions that had something to replay."
    yield counter("hikyaku_edge_resumes_total", text, counters.resumes)
    text = "Events sent in replays."
    yield counter("hikyaku_edge_replayed_events_total", text, counters.replayed)
    yield counter("hikyaku_edge_received_frames_total", "Frames from clients.", counters.frames_in)
    text = "Writes acknowledged to their sender."
    yield counter("hikyaku_edge_acks_total", text, counters.acks)
    text = "Events handed to sessions, once for each."
    yield counter("hikyaku_edge_delivered_events_total", text, edge.hub.delivered)
    text = "Error frames sent, by code."
    yield counter("hikyaku_edge_errors_total", text, counters.errors, "code")
    text = "Connections closed by this server, by reason."
    yield counter("hikyaku_edge_closes_total", text, counters.closes, "reason")


def _of_presence(presence: Presence) -> Iterator[Metric]:
    yield gauge("hikyaku_presence_watched", "Users that are watched.", presence.board.users)
    yield counter("hikyaku_presence_frames_total", "Presence frames sent.", presence.board.told)
    yield gauge("hikyaku_presence_waiting", "Keys not yet written.", presence.waiting)
    text = "Leases taken: 1, and one more each time that it was lost."
    yield counter("hikyaku_presence_leases_total", text, presence.leases)


def _of_feed(feed: Feed) -> Iterator[Metric]:
    text = "Sequence of the last event seen."
    yield gauge("hikyaku_feed_position", text, feed.position)
    yield counter("hikyaku_feed_gaps_total", "Gaps seen in the live feed.", feed.gaps)
    text = "Events that were missed live and read back."
    yield counter("hikyaku_feed_repaired_events_total", text, feed.repaired)
    yield gauge("hikyaku_log_messages", "Events in the log.", feed.state.messages)
    yield gauge("hikyaku_log_size_bytes", "Size of the log.", feed.state.bytes)
    text = "Size at which the log refuses messages; -1: none."
    yield gauge("hikyaku_log_limit_bytes", text, feed.state.max_bytes)


def _of_files(files: FileGate) -> Iterator[Metric]:
    text = "Requests about files."
    yield counter("hikyaku_edge_file_requests_total", text, files.requests)
    text = "Requests about files that no worker answered."
    yield counter("hikyaku_edge_file_failures_total", text, files.failures)
    text = "Bytes of files from clients."
    yield counter("hikyaku_edge_file_received_bytes_total", text, files.received_bytes)
    text = "Bytes of files to clients."
    yield counter("hikyaku_edge_file_sent_bytes_total", text, files.sent_bytes)
    text = "Requests about files on their way."
    yield gauge("hikyaku_edge_file_transfers", text, files.transfers)
