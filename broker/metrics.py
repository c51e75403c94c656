"""Metrics for Prometheus: plain numbers, made into families when they are asked for.

What counts is a field of whoever does the work, an `int` or a `Spread`; so counting costs what an
addition does. Names, units and labels: `docs/operations.md`, "Metrics".
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 300.0),
)
"""Bounds for times, from a commit to a backlog of minutes."""

Metrics = Callable[[], Iterable[Metric]]
"""The metrics of a process as they are now; each name once."""


class Spread:
    """How often values came, by upper bounds that belong to their bucket: a histogram.

    The library's own costs five times as much for each value, which `persist` has for each message.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """This came."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: Iterable[float]) -> None:
        """These came."""
        for value in values:
            self.add(value)

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds as text and how many values were not above; the last is `+Inf`."""
        found: list[tuple[str, float]] = []
        up_to = 0
        for bound, count in zip((*self.bounds, float("inf")), list(self.counts), strict=True):
            up_to += count
            found.append(("+Inf" if bound == float("inf") else repr(float(bound)), up_to))
        return found


def gauge(
    name: str, text: str, value: float | Mapping[str, float], label: str | None = None
) -> Metric:
    """What goes up and down; with a label, a value for each of its values."""
    if not isinstance(value, Mapping):
        return GaugeMetricFamily(name, text, value=value)
    found = GaugeMetricFamily(name, text, labels=[label or ""])
    for each, number in dict(value).items():
        found.add_metric([each], number)
    return found


def counter(
    name: str, text: str, value: float | Mapping[str, float], label: str | None = None
) -> Metric:
    """What only grows; `name` ends in `_total`."""
    if not isinstance(value, Mapping):
        return CounterMetricFamily(name, text, value=value)
    found = CounterMetricFamily(name, text, labels=[label or ""])
    for each, number in dict(value).items():
        found.add_metric([each], number)
    return found


def histogram(
    name: str, text: str, value: Spread | Mapping[str, Spread], label: str | None = None
) -> Metric:
    """How values are spread."""
    if isinstance(value, Spread):
        return HistogramMetricFamily(name, text, buckets=value.buckets(), sum_value=value.total)
    found = HistogramMetricFamily(name, text, labels=[label or ""])
    for each, spread in dict(value).items():
        found.add_metric([each], spread.buckets(), spread.total)
    return found


class _Collector(Collector):
    def __init__(self, metrics: Metrics):
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All as they are now."""
        yield from self._metrics()


def registry(metrics: Metrics) -> CollectorRegistry:
    """What a process tells of its work."""
    made = CollectorRegistry()
    made.register(_Collector(metrics))
    return made


def process_registry() -> CollectorRegistry:
    """Its memory, processor time and open files. With 20,000 of these, asking takes 50 ms."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    return made


def exposition(*registries: CollectorRegistry) -> bytes:
    """All as Prometheus text."""
    return b"".join(map(generate_latest, registries))
