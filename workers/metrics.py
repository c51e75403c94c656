"""A worker's metrics over HTTP, for Prometheus: plain numbers, read when they are asked for.

The endpoint also says that the process is alive: it answers any path.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Numbers = Callable[[], dict[str, float]]
"""Names to values now; names that end in `_total` are counters."""


class _Numbers(Collector):
    def __init__(self, worker: str, numbers: Numbers):
        self._prefix = f"hikyaku_{worker}_"
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """All numbers as they are now."""
        for name, value in self._numbers().items():
            text = name.replace("_", " ")
            if name.endswith("_total"):
                counter = name.removesuffix("_total")
                yield CounterMetricFamily(self._prefix + counter, text, value=value)
            else:
                yield GaugeMetricFamily(self._prefix + name, text, value=value)


@contextmanager
def serving(worker: str, port: int, numbers: Numbers) -> Iterator[None]:
    """Serve on loopback while the block runs; port 0: do not. Raises `OSError` if it is taken."""
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_Numbers(worker, numbers))
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
