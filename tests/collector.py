"""A small collector of OpenTelemetry: takes spans by OTLP over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What came: `spans` as (service, span)."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[tuple[str, Any]] = []

    def take(self, body: bytes) -> None:
        """One request."""
        for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = of_service.resource.attributes
            named = {each.key: each.value.string_value for each in attributes}
            for scope in of_service.scope_spans:
                self.spans += [(named["service.name"], span) for span in scope.spans]

    def trace(self, message_id: str) -> list[tuple[str, str]]:
        """The services and names of the spans of the trace that a message has."""
        ids = {
            span.trace_id
            for _, span in self.spans
            for each in span.attributes
            if each.key == "hikyaku.id" and each.value.string_value == message_id
        }
        assert len(ids) <= 1, "more than one trace"
        return sorted((service, span.name) for service, span in self.spans if span.trace_id in ids)


@contextmanager
def collector() -> Iterator[Collector]:
    """Running, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            assert self.path == "/v1/traces"
            found.take(self.rfile.read(length))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(server.server_address[1])
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join(5)
