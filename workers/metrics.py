"""A worker's metrics over HTTP, for Prometheus.

The endpoint also says that the process is alive: it answers any path.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import ProcessCollector, start_http_server

from broker.metrics import Metrics, registry

from .config import WorkerConfig


@contextmanager
def serving(config: WorkerConfig, metrics: Metrics) -> Iterator[None]:
    """Serve while the block runs, unless the port is 0. Raises `OSError` if it is taken."""
    if not config.health_port:
        yield
        return
    own = registry(metrics)
    ProcessCollector(registry=own)
    server, thread = start_http_server(config.health_port, addr=config.health_host, registry=own)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
