"""The health check of containers, against a real HTTP server."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ..ports import free_port


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200 if self.path == "/well" else 503
        body = b'{"missing": "NATS"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join(5)


def check(port: int, path: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "deploy.health", str(port), path]
    return subprocess.run(words, capture_output=True, text=True, timeout=30)


def test_200_is_well(port: int) -> None:
    assert check(port, "/well").returncode == 0


def test_anything_else_is_not_and_says_what_was_answered(port: int) -> None:
    ran = check(port, "/readyz")
    assert ran.returncode == 1
    assert "503" in ran.stderr
    assert '"missing": "NATS"' in ran.stderr


def test_nobody_there_is_not(port: int) -> None:
    ran = check(free_port({port}), "/well")
    assert ran.returncode == 1
    assert "does not answer" in ran.stderr
    assert "Traceback" not in ran.stderr
