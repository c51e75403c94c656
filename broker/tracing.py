"""Spans for OpenTelemetry, sent by OTLP over HTTP. Imported only where traces are on.

Where they go, which are taken and what they are called is said by the standard variables, as
`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER` and `OTEL_RESOURCE_ATTRIBUTES`.
"""

import os
import time
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float]

_W3C = TraceContextTextMapPropagator()


class Span:
    """A span that is not over. `trace` is its `traceparent`, empty if it is not taken."""

    def __init__(self, span: OtelSpan):
        self._span = span
        self.trace = b""
        if span.get_span_context().trace_flags.sampled:
            carrier: dict[str, str] = {}
            _W3C.inject(carrier, set_span_in_context(span))
            self.trace = carrier["traceparent"].encode()

    def end(self) -> None:
        """It is over."""
        self._span.end()


class Tracer:
    """Makes a process's spans; what cannot be sent is dropped and logged."""

    def __init__(self, process: str):
        named = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        own = {} if named else {SERVICE_NAME: f"hikyaku-{process}"}
        provider = TracerProvider(resource=Resource.create(own))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer("hikyaku")

    def begin(self, name: str, attributes: Attributes) -> Span:
        """A span without a parent, from now on."""
        return Span(self._tracer.start_span(name, kind=SpanKind.SERVER, attributes=attributes))

    def past(self, name: str, parent: bytes, took_ns: int, attributes: Attributes) -> None:
        """A span that is over now."""
        context = _W3C.extract({"traceparent": parent.decode()})
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            name, context, SpanKind.CONSUMER, attributes, start_time=end_ns - took_ns
        )
        span.end(end_ns)
