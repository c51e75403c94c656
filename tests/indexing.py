"""Runs `hikyaku worker index` with a short wait for acknowledgements.

It may die before an acknowledgement, or find the server always too busy.

python -m tests.indexing 1.0 [die | busy]
"""

import os
import signal
import sys

from broker.consumer import Puller, durable
from broker.log import STREAM
from workers import index

index.CONSUMER = durable(STREAM, index.NAME, ack_wait_s=float(sys.argv[1]))


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if sys.argv[2:] == ["die"]:
    Puller.ack = _die  # type: ignore[method-assign,assignment]

if sys.argv[2:] == ["busy"]:
    index.MAX_TASKS = -1

from deploy.cli import main  # noqa: E402

sys.exit(main(["worker", index.NAME]))
