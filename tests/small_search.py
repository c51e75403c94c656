"""Runs the embedded search server with a small limit of what a request may hold.

python -m tests.small_search FOLDER PORT KEY BYTES
"""

import sys
from pathlib import Path

from search.embedded.config import SearchServerConfig
from search.embedded.server import run

folder, port, key, size = sys.argv[1:]
run(
    SearchServerConfig(
        folder=Path(folder), port=int(port), master_key=key, max_payload_bytes=int(size)
    )
)
