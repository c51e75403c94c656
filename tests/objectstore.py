"""A real server of the API of S3, as a process of its own that can be killed."""

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from .ports import free_port
from .servers import Process

READY_S = 30.0


class S3:
    """Moto's server, with one bucket. Use as a context manager."""

    def __init__(self, folder: Path, bucket: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._bucket = bucket
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self.process = Process(command, folder)
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> "S3":
        self.process.start()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{self._bucket}", method="PUT"
        )
        deadline = time.monotonic() + READY_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return self
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, self.process.log.read_text()
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.end(9)
